"""The other end of a side that runs the vectors: a plain NATS client."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Awaitable
from typing import Any, TypeVar

import nats
import pyarrow

import vectors

T = TypeVar("T")

#: Where receive cases are published.
SUBJECT = "conformance.receive"


class Peer:
    """The other end: a plain NATS client in an event loop of its own."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = self.run(nats.connect(url))
        self.seen: list[Any] = []
        self.run(self.client.subscribe(">", cb=self._take))
        self.flush()

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    async def _take(self, msg: Any) -> None:
        if not msg.subject.startswith("_INBOX."):
            self.seen.append(msg)

    def publish(self, data: bytes) -> None:
        self.run(self.client.publish(SUBJECT, data))
        self.flush()

    def flush(self) -> None:
        self.run(self.client.flush())
        # Callbacks run in tasks of their own.
        self.run(asyncio.sleep(0))

    def sent(self) -> list[Any]:
        """The messages published by anyone since the last call."""
        self.flush()
        seen, self.seen = self.seen, []
        return seen

    def close(self) -> None:
        self.run(self.client.close())
        self.loop.close()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        body: bytes = answer.read()
    return body


def columns(raw: bytes) -> dict[str, list[Any]]:
    """What a table in Arrow IPC has."""
    with pyarrow.ipc.open_stream(raw) as reader:
        found: dict[str, list[Any]] = reader.read_all().to_pydict()
    return found


def by_name(case: vectors.Case) -> str:
    return str(case["name"])
