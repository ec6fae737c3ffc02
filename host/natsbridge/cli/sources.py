"""Where `natsbridge receive` has its messages from: what passes by, or what a stream keeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from natsbridge.client import Connection, Msg, StoredMsg, Subscription
from natsbridge.errors import (
    DOWNLOAD_FAILED,
    INVALID_ARGUMENT,
    STREAM_FAILED,
    NATSBridgeError,
)
from natsbridge.inbox import Inbox
from natsbridge.streams import Streams

__all__ = ["Source", "open_source"]

#: Seconds after which a message comes again whose files could not be fetched.
LATER_S = 30
#: The same of what is left as the command ends: what it has asked for is answered until then.
SOON_S = 1

#: Within which a message that has come is in the hand of who waits for it.
TAKEN_S = 0.1

#: Times that a message is acknowledged, with up to 5 s each, until that is confirmed.
ACKS = 6


class Source(Protocol):
    """Where messages come from. last: whether what has failed for good is nowhere else."""

    last: bool

    async def next(self, timeout: float | None) -> Msg | None:
        """Return the next message, or None after `timeout` seconds."""

    def rest(self) -> AsyncIterator[Msg]:
        """End it, and yield what has come already."""

    @property
    def waiting(self) -> int:
        """How many messages have come, and are not taken."""

    async def done(self, msg: Msg) -> None:
        """Say that a message is saved."""

    async def failed(self, msg: Msg, e: NATSBridgeError | None) -> bool:
        """Say that a message is not, and why, or that it was stopped: whether that is its end."""

    async def kept(self, msg: Msg) -> None:
        """Say that a message that has come to its end is in the folder as it came."""

    async def close(self) -> None:
        """End it; what has come and was not taken comes again, if it can."""


class Passing:
    """What passes by."""

    last = False

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def next(self, timeout: float | None) -> Msg | None:
        """Return the next message, or None after `timeout` seconds."""
        return await self._subscription.next(timeout)

    async def rest(self) -> AsyncIterator[Msg]:
        """End it, and yield what has come already."""
        with contextlib.suppress(NATSBridgeError):  # the connection is lost: no more comes
            await self._subscription.drain()
            while msg := await self._subscription.next(0):
                yield msg

    @property
    def waiting(self) -> int:
        """How many messages have come, and are not taken."""
        return len(self._subscription._waiting)

    async def done(self, msg: Msg) -> None:
        """Nobody asks."""

    async def failed(self, msg: Msg, e: NATSBridgeError | None) -> bool:
        """It does not come again."""
        return True

    async def kept(self, msg: Msg) -> None:
        """Nobody asks."""

    async def close(self) -> None:
        """End with the connection."""


class Stored:
    """What a stream keeps until it is acknowledged."""

    last = True
    waiting = 0

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._fetching: asyncio.Task[list[StoredMsg]] | None = None

    async def next(self, timeout: float | None) -> Msg | None:
        """Return the next message, or None after `timeout` seconds."""
        self._fetching = asyncio.create_task(self._inbox.fetch(1, timeout))
        # Where this is cancelled, what just comes is not lost with it.
        found = await asyncio.shield(self._fetching)
        self._fetching = None
        return found[0] if found else None

    async def rest(self) -> AsyncIterator[Msg]:
        """Yield nothing: the rest stays where it is."""
        await self.close()
        nothing: tuple[Msg, ...] = ()
        for msg in nothing:
            yield msg

    async def done(self, msg: Msg) -> None:
        """Acknowledge it, and once more while that is not confirmed: the connection may be lost."""
        assert isinstance(msg, StoredMsg)
        for left in reversed(range(ACKS)):
            try:
                await msg.ack()
                break
            except NATSBridgeError as e:
                if not left or e.code == STREAM_FAILED:
                    raise

    async def failed(self, msg: Msg, e: NATSBridgeError | None) -> bool:
        """Have it come again, if that may help: what this side can't do may succeed later."""
        assert isinstance(msg, StoredMsg)
        if e is not None and e.code not in (DOWNLOAD_FAILED, INVALID_ARGUMENT):
            return True  # it is not said before it is kept: the stream's may be the only one
        with contextlib.suppress(NATSBridgeError):  # the connection is lost: it comes again
            await msg.nak(LATER_S if e is not None and e.code == DOWNLOAD_FAILED else SOON_S)
        return False

    async def kept(self, msg: Msg) -> None:
        """Have it not come again."""
        assert isinstance(msg, StoredMsg)
        with contextlib.suppress(NATSBridgeError):  # the connection is lost: it is kept once more
            await msg.term()

    async def close(self) -> None:
        """End it: what has come, or is coming, and was not taken comes again at once."""
        await self._inbox._leave()
        if self._fetching is None:
            return
        fetching, self._fetching = self._fetching, None
        await asyncio.wait([fetching], timeout=TAKEN_S)
        fetching.cancel()
        await asyncio.wait([fetching])
        if not fetching.cancelled() and fetching.exception() is None:
            for msg in fetching.result():
                with contextlib.suppress(NATSBridgeError):
                    await msg.nak()


async def open_source(nc: Connection, subject: str, queue: str, count: int, durable: str) -> Source:
    """Return what `natsbridge receive` was told to receive.

    Args:
        count: messages after which it ends, 0 for never.
        durable: the consumer's name, or "".

    Raises:
        NATSBridgeError: `STREAM_FAILED`, `INVALID_ARGUMENT`, `NATS_CONNECTION_FAILED`.
    """
    if durable:
        if queue:
            why = "--durable goes without --queue: who uses the same name shares its messages"
            raise NATSBridgeError(INVALID_ARGUMENT, why)
        stream = await Streams(nc).of(subject)
        return Stored(await nc.inbox(stream, durable, subject))
    subscription = await nc.subscribe(subject, queue)
    if count:
        await subscription.unsubscribe(count)  # the others of its queue get the next ones
    await nc.flush()
    return Passing(subscription)
