"""What a connection delivers: messages, and the subscriptions that queue them."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

import nats.errors
from nats.aio.subscription import Subscription as NatsSubscription

from natsbridge.broker import Arrival
from natsbridge.errors import INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, NATSBridgeError

if TYPE_CHECKING:
    from natsbridge.client import Connection

__all__ = ["Msg", "Subscription"]

#: Messages and bytes that one subscription holds until they are taken: nats-py's own limits, a
#: second or more at full speed. Further ones are dropped, and `next` says so.
MAX_QUEUED_MESSAGES = 512 << 10
MAX_QUEUED_BYTES = 128 << 20


class Msg:
    """A received message. `len(msg)` is the size of `data` in bytes.

    Attributes:
        subject: what it was published to.
        reply: where an answer is expected, or "".
        data: the payload.
    """

    __slots__ = ("_connection", "data", "reply", "subject")

    def __init__(
        self, subject: str, reply: str, data: bytes, connection: Connection | None = None
    ) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self._connection = connection

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True  # also when it is empty

    def __repr__(self) -> str:
        return f"<Msg {self.subject!r} {len(self.data)} bytes>"


class _Gap:
    """Stands in a queue where messages were dropped."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 1


class Subscription:
    """Messages of one subject: `await sub.next()`, `async for msg in sub`, `async with sub`."""

    def __init__(self, connection: Connection, subject: str, queue: str) -> None:
        self.subject = subject
        self.queue = queue
        self._connection = connection
        self._nats: NatsSubscription | None = None
        self._waiting: deque[Arrival | _Gap] = deque()
        self._bytes = 0
        self._open = True

    async def _arrived(self, msg: Arrival) -> None:
        full = len(self._waiting) >= MAX_QUEUED_MESSAGES
        if full or (self._waiting and self._bytes + len(msg.data) > MAX_QUEUED_BYTES):
            last = self._waiting[-1]
            if isinstance(last, _Gap):
                last.count += 1
            else:
                self._waiting.append(_Gap(msg.number))
        else:
            self._waiting.append(msg)
            self._bytes += len(msg.data)
        self._connection._wake()

    def _pop(self) -> Msg:
        first = self._waiting.popleft()
        if isinstance(first, _Gap):
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"{first.count} messages on {self.subject!r} were dropped here because"
                f" {MAX_QUEUED_MESSAGES} messages or {MAX_QUEUED_BYTES} bytes waited: call next()"
                " more often, or share the work in a queue group",
                {"dropped": first.count},
            )
        self._bytes -= len(first.data)
        return Msg(first.subject, first.reply, first.data, self._connection)

    async def next(self, timeout: float | None = None) -> Msg | None:
        """Return the next message, or None when none came within `timeout` seconds.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED` when the connection is closed or lost,
                `PAYLOAD_TOO_LARGE` once where messages were dropped, `INVALID_ARGUMENT` after
                `unsubscribe`.
        """
        if not self._open:
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"the subscription to {self.subject!r} has ended: subscribe again"
            )
        return await self._connection._take(lambda: [self], timeout)

    async def unsubscribe(self) -> None:
        """End the subscription; messages that wait are dropped. Can be called twice."""
        if not self._open:
            return
        self._open = False
        self._waiting.clear()
        self._connection._subscriptions.discard(self)
        self._connection._wake()
        with contextlib.suppress(nats.errors.Error, OSError):  # nothing to end any more
            if self._nats is not None:
                await self._nats.unsubscribe()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Msg:
        while self._open and not self._connection._closed:
            try:
                msg = await self.next()
            except NATSBridgeError:
                if not self._open or self._connection._closed:
                    break  # by us, meanwhile
                raise
            if msg is not None:
                return msg
        raise StopAsyncIteration

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.unsubscribe()
