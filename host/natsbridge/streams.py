"""Making streams and looking after them, for the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerInfo, DiscardPolicy, StreamConfig, StreamInfo

from natsbridge.client import Connection
from natsbridge.errors import STREAM_FAILED, NATSBridgeError
from natsbridge.jetstream import ANSWER_S, refused
from natsbridge.subjects import check_subject

__all__ = ["DAY_S", "ConsumerState", "StreamState", "Streams"]

DAY_S = 86400

T = TypeVar("T")


@dataclass(frozen=True)
class ConsumerState:
    """How far a consumer has come."""

    name: str
    waiting: int
    unacknowledged: int

    @classmethod
    def of(cls, info: ConsumerInfo) -> ConsumerState:
        """Return it as the server tells."""
        return cls(info.name, info.num_pending or 0, info.num_ack_pending or 0)


@dataclass(frozen=True)
class StreamState:
    """What a stream was told, and what it has. Ages are seconds; 0 is no limit."""

    name: str
    subjects: list[str]
    messages: int
    bytes: int
    max_age: float
    max_bytes: int
    refuses: bool
    consumers: list[ConsumerState]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Streams:
    """The streams of a connection's account.

    Each call raises `STREAM_FAILED` with what the server says, or `NATS_CONNECTION_FAILED`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._js = connection.client.jetstream()

    async def _call(self, work: Awaitable[T]) -> T:
        connection = self._connection
        try:
            return await work
        except nats.js.errors.APIError as e:
            raise refused(connection, e) from None
        except nats.errors.NoRespondersError:
            why = f"the server {connection.url} has no JetStream"
            raise NATSBridgeError(STREAM_FAILED, why) from None
        except (nats.errors.Error, OSError, asyncio.TimeoutError) as e:
            raise connection._failed("asking JetStream", e) from e

    async def create(
        self,
        name: str,
        subjects: list[str],
        max_age: int | None = None,
        max_bytes: int | None = None,
        when_full: str | None = None,
        replicas: int | None = None,
    ) -> tuple[StreamState, bool]:
        """Make a stream, or change one: its state, and whether it is new.

        What is None stays as it is; a new stream has `DAY_S`, no limit, drop-oldest and 1.
        """
        for subject in subjects:
            check_subject(subject, wildcards=True)
        before = await self._info(name)
        changes: dict[str, Any] = {"subjects": subjects}
        if max_age is not None or before is None:
            changes["max_age"] = DAY_S if max_age is None else max_age
        if max_bytes is not None or before is None:
            changes["max_bytes"] = max_bytes or -1
        if when_full is not None or before is None:
            changes["discard"] = DiscardPolicy.NEW if when_full == "refuse" else DiscardPolicy.OLD
        if replicas is not None or before is None:
            changes["num_replicas"] = replicas or 1
        if before is None:
            work = self._js.add_stream(StreamConfig(name=name, **changes))
        else:
            work = self._js.update_stream(before.config, **changes)
        return await self._state(await self._call(work)), before is None

    async def find(self, name: str) -> StreamState | None:
        """Return a stream, if there is one of that name."""
        info = await self._info(name)
        return None if info is None else await self._state(info)

    async def _info(self, name: str) -> StreamInfo | None:
        try:
            return await self._js.stream_info(name)
        except nats.js.errors.NotFoundError:
            return None
        except ValueError as e:
            raise NATSBridgeError(STREAM_FAILED, f"{name!r} is no name of a stream: {e}") from None
        except (nats.errors.Error, OSError, asyncio.TimeoutError) as e:
            raise self._connection._failed("asking JetStream", e) from e

    async def info(self, name: str) -> StreamState:
        """Return a stream."""
        state = await self.find(name)
        if state is None:
            why = f"there is no stream {name!r}; make one: natsbridge stream create {name} SUBJECT"
            raise NATSBridgeError(STREAM_FAILED, why)
        return state

    async def all(self) -> list[StreamState]:
        """Return all streams, by name, but for those of JetStream's own buckets."""
        found = [await self._state(info) for info in await self._call(self._js.streams_info())]
        return sorted(found, key=lambda state: state.name)

    async def of(self, subject: str) -> str:
        """Return the name of the stream that takes what is published to a subject.

        Several of them, for a subject with wildcards, are refused.
        """
        check_subject(subject, wildcards=True)
        names = sorted(await self._call(self._taking(subject)))
        if not names:
            why = f"no stream takes what is published to {subject!r}; make one: natsbridge stream"
            raise NATSBridgeError(STREAM_FAILED, f"{why} create NAME {subject!r}")
        if len(names) > 1:
            raise NATSBridgeError(
                STREAM_FAILED,
                f"what is published to {subject!r} is in the streams {', '.join(names)}: take a"
                " subject of one of them (natsbridge stream info), and run one command for each",
            )
        return names[0]

    async def _taking(self, subject: str) -> list[str]:
        """Return the names of the streams that have to do with a subject."""
        order = json.dumps({"subject": subject}).encode()
        msg = await self._connection.client.request("$JS.API.STREAM.NAMES", order, ANSWER_S)
        answer = json.loads(msg.data)
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        return answer.get("streams") or []

    async def purge(self, name: str) -> int:
        """Remove a stream's messages: how many there were."""
        before = (await self.info(name)).messages
        await self._call(self._js.purge_stream(name))
        return before

    async def _state(self, info: StreamInfo) -> StreamState:
        config, state = info.config, info.state
        consumers = []
        if state.consumer_count:
            consumers = await self._call(self._js.consumers_info(str(config.name)))
        return StreamState(
            name=str(config.name),
            subjects=list(config.subjects or []),
            messages=state.messages,
            bytes=state.bytes,
            max_age=float(config.max_age or 0),
            max_bytes=max(0, config.max_bytes or 0),
            refuses=config.discard == DiscardPolicy.NEW,
            consumers=[ConsumerState.of(c) for c in consumers],
        )
