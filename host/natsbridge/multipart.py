"""A file as a multipart/form-data request body, hashed while it is sent."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from natsbridge import http
from natsbridge.arguments import Progress
from natsbridge.source import Source

__all__ = ["Body", "file_name"]

#: Bytes handed to the connection at a time: small enough that a slow link shows life within
#: `http.STALL_S`.
PIECE = 64 << 10

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

T = TypeVar("T")


def file_name(dataname: str) -> str:
    """Return the name under which a file server stores a payload: safe in a URL and a header."""
    name = _UNSAFE.sub("_", dataname)[:64]
    bare = name.lstrip(".")
    return "_" * (len(name) - len(bare)) + bare or "payload"


class Body:
    """The body around a source, once.

    Attributes:
        headers: Content-Type, and Content-Length where the size is known.
        sha256, md5: digests of the file; `md5` is None in a Python that lacks it.
        count: bytes of the file that were sent.
        fault: what the source or `on_progress` raised; aiohttp reports that as a broken
            connection.
    """

    def __init__(self, name: str, source: Source, on_progress: Progress | None) -> None:
        boundary = secrets.token_hex(16)
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._source = source
        self._on_progress = on_progress
        self._beat = time.monotonic()
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if source.size is not None:
            length = len(self._head) + source.size + len(self._tail)
            self.headers["Content-Length"] = str(length)
        self.sha256 = hashlib.sha256()
        self.md5: Any = None
        if "md5" in hashlib.algorithms_available:
            self.md5 = hashlib.md5(usedforsecurity=False)
        self.count = 0
        self.fault: Exception | None = None

    def _next(self) -> bytes | memoryview:
        data = self._source.read()
        self.sha256.update(data)
        if self.md5 is not None:
            self.md5.update(data)
        return data

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """Yield the body in pieces."""
        try:
            yield self._head
            while data := await asyncio.to_thread(self._next):
                view = memoryview(data)
                for start in range(0, len(view), PIECE):
                    piece = view[start : start + PIECE]
                    yield piece
                    self._beat = time.monotonic()
                    self.count += len(piece)
                    if self._on_progress:
                        self._on_progress(self._source.name, self.count, self._source.size)
            yield self._tail
        except Exception as e:
            self.fault = e
            raise

    async def watched(self, work: Awaitable[T]) -> T:
        """Await `work`, the request with this body and its answer.

        Raises:
            asyncio.TimeoutError: when no piece went out, and no answer came, for `http.STALL_S`.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                left = self._beat + http.STALL_S - time.monotonic()
                if left <= 0:
                    raise asyncio.TimeoutError
                await asyncio.wait({task}, timeout=left)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
