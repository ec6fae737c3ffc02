"""Stands between a client and its server, and is what networks are at their worst."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

#: Bytes taken at a time.
CHUNK = 1 << 16
#: Seconds for the proxy's thread to do what it is told.
PATIENCE_S = 10


class Ending(enum.Enum):
    """How a connection ends."""

    CLOSE = "both ends are closed in order"
    RESET = "both ends get a TCP reset"
    HALF_CLOSE = "this direction ends, the other one goes on"
    STALL = "nothing more comes in this direction, and nothing is closed"


@dataclass(frozen=True)
class Way:
    """What happens to what passes in one direction; at first, nothing does."""

    #: Seconds that each piece is late.
    delay_s: float = 0
    #: Bytes a second.
    rate: int | None = None
    #: Bytes at most in a segment.
    split: int | None = None
    #: The number of the byte whose bits are turned over, from 0.
    corrupt: int | None = None
    #: Bytes that pass before the ending.
    end_after: int | None = None
    #: What does not pass, nor anything after it: the ending is before it.
    end_before: bytes | None = None
    ending: Ending = Ending.CLOSE


@dataclass(frozen=True)
class Link:
    """One connection: what happens to the server, to the client, or that it is refused."""

    up: Way = Way()
    down: Way = Way()
    #: Reset at once.
    refused: bool = False


PLAIN = Link()


class FaultProxy:
    """Listens on loopback for what is meant for `url`; its own is `url` too.

    plan: what happens to each connection, or gives that for its number, from 0. A test may set
    another one at any time; it holds for connections to come.
    """

    def __init__(self, url: str, plan: Link | Callable[[int], Link] = PLAIN) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = parts.hostname, parts.port or 80
        self.plan = plan
        #: How many connections came.
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{parts.scheme}://127.0.0.1:{self.port}"
        self._live: dict[asyncio.Task[Any], list[asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def cut(self, ending: Ending = Ending.CLOSE) -> None:
        """Close or reset all connections that there are."""
        self._do(self._cut(ending))

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_S)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)

    async def _shut(self) -> None:
        self._server.close()
        await self._cut(Ending.RESET)

    async def _cut(self, ending: Ending) -> None:
        live = list(self._live.items())
        for task, ends in live:
            for end in ends:
                _end(end, ending)
            task.cancel()
        await asyncio.gather(*(task for task, _ in live), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        link = self.plan(self.connections) if callable(self.plan) else self.plan
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        ends = self._live[task] = [client]
        ending = Ending.RESET  # refused, or the server is not there
        try:
            if not link.refused:
                source, server = await asyncio.open_connection(*self._target)
                ends.append(server)
                ending = Ending.CLOSE
                for end in ends:
                    there = end.get_extra_info("socket")
                    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ending = await _both(
                    _pass(reader, server, link.up), _pass(source, client, link.down)
                )
        except OSError:
            pass  # one end is gone, and takes the other with it
        except asyncio.CancelledError:
            ending = Ending.CLOSE  # cut: it has ended already
        finally:
            del self._live[task]
            for end in ends:
                _end(end, ending)


async def _both(*ways: Coroutine[Any, Any, Ending]) -> Ending:
    """Pass bytes both ways until one ends the connection, or both have ended."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        for done in asyncio.as_completed(tasks):
            if (ending := await done) is not Ending.HALF_CLOSE:
                return ending
        return Ending.CLOSE
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter, way: Way) -> Ending:
    """Pass bytes on in one direction: how it ended."""
    passed = 0
    held = b""  # may be the beginning of what does not pass
    over = way.end_after == 0
    while not over:
        data = await source.read(CHUNK)
        if not data:
            await _send(target, held, way)
            target.write_eof()
            return Ending.HALF_CLOSE
        await asyncio.sleep(way.delay_s)
        data, held = held + data, b""
        if way.end_before:
            at = data.find(way.end_before)
            over = at >= 0
            keep = at if over else len(data) - _overlap(data, way.end_before)
            data, held = data[:keep], data[keep:]
        if way.end_after is not None and passed + len(data) >= way.end_after:
            data = data[: way.end_after - passed]
            over = True
        if way.corrupt is not None and 0 <= way.corrupt - passed < len(data):
            at = way.corrupt - passed
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        await _send(target, data, way)
        passed += len(data)
    if way.ending is Ending.STALL:
        await asyncio.Event().wait()  # until it is cut
    if way.ending is Ending.HALF_CLOSE:
        target.write_eof()
    return way.ending


def _overlap(data: bytes, word: bytes) -> int:
    """How many bytes at the end of `data` may be the beginning of `word`."""
    return next((n for n in range(len(word) - 1, 0, -1) if data.endswith(word[:n])), 0)


async def _send(target: asyncio.StreamWriter, data: bytes, way: Way) -> None:
    step = way.split or len(data)
    if way.rate:
        step = min(step, max(1, way.rate // 50))
    for at in range(0, len(data), step or 1):
        piece = data[at : at + step]
        target.write(piece)
        await target.drain()
        if way.rate:
            await asyncio.sleep(len(piece) / way.rate)


def _end(end: asyncio.StreamWriter, ending: Ending) -> None:
    there = end.get_extra_info("socket")
    if ending is Ending.RESET and there.fileno() >= 0:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()
    else:
        end.close()
