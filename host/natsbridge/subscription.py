"""What a connection delivers: messages, and the subscriptions that queue them."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

import nats.errors
from nats.aio.msg import Msg as NatsMsg
from nats.aio.subscription import Subscription as NatsSubscription

from natsbridge.arguments import check_count
from natsbridge.broker import Arrival, Receiver
from natsbridge.errors import INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, NATSBridgeError
from natsbridge.headers import parse_headers

if TYPE_CHECKING:
    from natsbridge.client import Connection

__all__ = ["Msg", "Subscription"]

#: Messages and bytes that one subscription holds until they are taken: nats-py's limits, a second
#: or more at full speed. Further ones are dropped, and `next` says so.
MAX_QUEUED_MESSAGES = 512 << 10
MAX_QUEUED_BYTES = 128 << 20
#: Seconds that draining one subscription may take.
DRAIN_S = 5.0


class Msg:
    """A received message. `len(msg)` is the size of `data` in bytes.

    Attributes:
        subject: what it was published to.
        reply: where an answer is expected, or "".
        data: the payload.
        headers: names and values, or None where it has none.
        status: the server's, as 503: nobody listens; or 0.
        description: what it says of the status, or "".
    """

    __slots__ = (
        *("_connection", "_number", "_place"),
        *("data", "description", "headers", "reply", "status", "subject"),
    )

    def __init__(
        self,
        subject: str,
        reply: str,
        data: bytes,
        headers: dict[str, str] | None = None,
        status: int = 0,
        description: str = "",
        connection: Connection | None = None,
    ) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.headers = headers
        self.status = status
        self.description = description
        self._connection = connection
        self._number = 0  # among those of its connection
        self._place = 0  # among those of its subscription

    @classmethod
    def _of(cls, msg: NatsMsg, connection: Connection) -> Msg:
        """Return a message as nats-py has it as one of ours."""
        if not isinstance(msg, Arrival):
            return cls(msg.subject, msg.reply, msg.data, msg.headers, connection=connection)
        headers, status, description = parse_headers(msg.block)
        return cls(msg.subject, msg.reply, msg.data, headers, status, description, connection)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True  # also when it is empty

    def __repr__(self) -> str:
        return f"<Msg {self.subject!r} {len(self.data)} bytes>"


class _Gap:
    """Stands in a queue where messages were dropped."""

    def __init__(self, number: int, place: int) -> None:
        self._number = number
        self._place = place
        self.count = 1


class Subscription(Receiver):
    """Messages of one subject: `await sub.next()`, `async for msg in sub`, `async with sub`."""

    def __init__(self, connection: Connection, subject: str, queue: str) -> None:
        self.subject = subject
        self.queue = queue
        self._connection = connection
        self._nats: NatsSubscription | None = None
        self._waiting: deque[Msg | _Gap] = deque()
        self._bytes = 0
        self._came = 0  # messages in all
        self._limit = 0  # how many may come, or 0
        self._open = True
        self._ended = False  # nothing more comes

    def _arrived(
        self, number: int, subject: str, reply: str, data: bytes, block: bytes | None
    ) -> None:
        """Queue a message, or note that it was dropped."""
        if self._ended:
            return
        self._came += 1
        full = len(self._waiting) >= MAX_QUEUED_MESSAGES
        if full or (self._waiting and self._bytes + len(data) > MAX_QUEUED_BYTES):
            last = self._waiting[-1]
            if isinstance(last, _Gap):
                last.count += 1
            else:
                self._waiting.append(_Gap(number, self._came))
        else:
            headers = parse_headers(block)
            msg = Msg(subject, reply, data, *headers, connection=self._connection)
            msg._number, msg._place = number, self._came
            self._waiting.append(msg)
            self._bytes += len(data)
        if self._came == self._limit:
            self._finish()
        self._connection._changes.wake()

    def _finish(self) -> None:
        """Note that nothing more comes."""
        self._ended = True
        if not self._waiting:
            self._connection._subscriptions.discard(self)
        self._connection._changes.wake()

    async def _stop(self) -> None:
        """Tell the server to send no more."""
        client = self._connection._client
        if self._nats is None:
            return
        if client.is_connected:
            await client._send_unsubscribe(self._nats._id)
        else:
            client._remove_sub(self._nats._id)  # so that it is not renewed

    def _end(self) -> None:
        """Have nothing more come."""
        if self._nats is not None:
            self._connection._client._remove_sub(self._nats._id)
            self._nats._stop_processing()
        self._finish()

    def _pop(self) -> Msg:
        first = self._waiting.popleft()
        if self._ended and not self._waiting:
            self._connection._subscriptions.discard(self)
        if isinstance(first, _Gap):
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"{first.count} messages on {self.subject!r} were dropped here because"
                f" {MAX_QUEUED_MESSAGES} messages or {MAX_QUEUED_BYTES} bytes waited: call next()"
                " more often, or share the work in a queue group",
                {"dropped": first.count},
            )
        self._bytes -= len(first.data)
        return first

    async def next(self, timeout: float | None = None) -> Msg | None:
        """Return the next message, or None when none came within `timeout` seconds.

        None comes at once when the subscription has ended, by its limit or by `drain`, and nothing
        is left.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED` when the connection is closed, or is lost and
                not back within `timeout` (not with 0: then `Connection.connected` tells);
                `PAYLOAD_TOO_LARGE` once where messages were dropped, `INVALID_ARGUMENT` after
                `unsubscribe`.
        """
        if not self._open:
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"the subscription to {self.subject!r} has ended: subscribe again"
            )
        return await self._connection._take(
            lambda: [self], timeout, lambda: self._ended or not self._open
        )

    async def unsubscribe(self, limit: int = 0) -> None:
        """End the subscription. Can be called twice.

        Args:
            limit: how many messages it may get in all, from its start; those that wait beyond that
                are dropped. 0: no more, and what waits is dropped.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT`.
        """
        check_count(limit, "limit")
        if not self._open or (limit and self._ended):
            return
        if limit:
            self._limit = limit
            while self._waiting and self._waiting[-1]._place > limit:
                last = self._waiting.pop()
                self._bytes -= len(last.data) if isinstance(last, Msg) else 0
            if self._came >= limit:
                self._finish()
        else:
            self._open = False
            self._waiting.clear()
            self._finish()
        with contextlib.suppress(nats.errors.Error, OSError):  # nothing to end any more
            if self._nats is not None:
                await self._nats.unsubscribe(limit)

    async def drain(self) -> None:
        """End the subscription; what the server had sent until then can still be taken.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED` when the connection is lost meanwhile, and
                with it some of that, perhaps.
        """
        if self._ended:
            return
        connection = self._connection
        async with connection._ending([self]):
            if connection._client.is_connected:
                await connection._round_trip(f"draining {self.subject!r}", DRAIN_S)

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
            if msg is None:
                break
            return msg
        raise StopAsyncIteration

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.unsubscribe()
