"""Connections to NATS, as coroutines.

Differences to nats-py, which does the work: messages of all subscriptions can be taken in the
order in which they came, nothing is dropped silently, every wait is bounded, and every failure is
a `NATSBridgeError` that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client

from natsbridge.arguments import check_timeout
from natsbridge.backoff import Backoff
from natsbridge.broker import Broker, open_broker, server_url
from natsbridge.changes import Changes, deadline_of
from natsbridge.errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)
from natsbridge.headers import check_headers
from natsbridge.inbox import Inbox, StoredMsg, open_inbox
from natsbridge.lameduck import leave
from natsbridge.log import logger
from natsbridge.source import bytes_view
from natsbridge.subjects import check_queue, check_subject
from natsbridge.subscription import Msg, Subscription
from natsbridge.tls import Tls

__all__ = ["Connection", "Inbox", "Msg", "StoredMsg", "Subscription"]

#: Seconds that a server which reads nothing can hold up `close`, twice.
CLOSE_S = 2.0
#: Bytes of messages in nats-py from which on `publish` waits for the socket; nats-py's own figure.
_BUFFER = 2 << 20

#: Seconds for which messages that wait can be taken one after the other, nobody else running.
TURN_S = 0.005

_LOST = "the connection was lost; what was published since the last flush may not have arrived"

T = TypeVar("T")


def _gone(timeout: float | None) -> str:
    return f"the connection is lost, and was not back within {timeout} s"


class Connection:
    """A connection to a broker. Made by `connect`.

    Attributes:
        name: who this peer is: the default sender name.
        id: which of its name: the default sender id.
        tls: what `connect` was told about TLS.
    """

    def __init__(
        self,
        client: Client | None,
        name: str,
        id: str,
        *,
        tls: Any = None,
        pending_size: int = 0,
        timeout: float | None = 5,
    ) -> None:
        self.name = name
        self.id = id
        self.tls = tls
        self._client: Client = client  # type: ignore[assignment] # until _open has run
        self._broker: Broker | None = None  # the same, where it is ours
        self._pending_size = pending_size
        self._timeout = timeout
        self._url = ""
        self._closed = False
        self._drained = False
        self._published_in: int | None = None  # which reconnect, first since the last flush
        self._subscriptions: set[Subscription] = set()
        self._looked = 0.0  # when a caller of `next` last let others have their turn
        self._changes = Changes()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False  # a lame duck
        self._ages: dict[str, float] = {}  # seconds for which streams keep messages; 0: for ever

    async def _open(
        self,
        servers: list[str],
        reconnect: bool,
        delays: tuple[float, float],
        tls: Tls | None,
        **options: Any,
    ) -> None:
        self._backoff = Backoff(*delays)
        self._client = self._broker = await open_broker(
            servers,
            self._timeout,
            self._backoff if reconnect else None,
            self._on_error,
            tls=tls,
            name=self.name or None,
            pending_size=max(self._pending_size, _BUFFER),
            closed_cb=self._on_closed,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            lame_duck_mode_cb=self._on_lame_duck,
            **options,
        )

    async def _on_error(self, e: Exception) -> None:
        logger.warning("connection to %s: %s", self.url, str(e) or type(e).__name__)

    async def _on_closed(self) -> None:
        self._changes.wake()

    async def _on_reconnected(self) -> None:
        self._backoff.connected()
        logger.info("connected again to %s", self.url)
        self._changes.wake()

    async def _on_lame_duck(self) -> None:
        if self._broker is not None and not self._leaving:
            self._leaving = True
            self._start(leave(self, self._broker))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task that ends with the connection."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)
        return task

    def _ended_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it, or has gone

    async def _on_disconnected(self) -> None:
        self._leaving = False
        if not self._closed:
            logger.info("the connection to %s is lost", self.url)
        self._changes.wake()

    @property
    def client(self) -> Client:
        """The nats-py client underneath."""
        return self._client

    def subjects(self) -> list[str]:
        """Return the subjects (with wildcards) that arrive on this connection."""
        return [s.subject for s in self._client._subs.values()]

    @property
    def url(self) -> str:
        """The server's URL, without credentials; the last one while reconnecting."""
        if self._client is not None and self._client.connected_url is not None:
            self._url = server_url(self._client.connected_url)
        return self._url

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return not self._closed and self._client.is_connected

    @property
    def pending(self) -> int:
        """Bytes that were published and are not written yet."""
        if self._broker is None:
            return self._client.pending_data_size
        return self._broker.unwritten

    @property
    def max_payload(self) -> int:
        """Bytes that a message may have, as the server announced."""
        return self._client.max_payload

    def _failed(self, what: str, e: object) -> NATSBridgeError:
        why = str(e).removeprefix("nats: ") or type(e).__name__
        return NATSBridgeError(
            NATS_CONNECTION_FAILED, f"{what} at {self.url or 'the broker'} failed: {why}"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise NATSBridgeError(
                NATS_CONNECTION_FAILED,
                f"the connection to {self.url} is closed: call connect() again",
            )
        if self._client.is_closed:
            complaint = "" if self._broker is None else self._broker.complaint
            why = complaint or self._client.last_error or "closed by the server"
            raise NATSBridgeError(
                NATS_CONNECTION_FAILED,
                f"the connection to {self.url} is lost ({why}): call connect() again, with"
                " reconnect=True to have it come back by itself",
            )

    async def _call(self, what: str, work: Awaitable[T]) -> T:
        try:
            return await work
        except nats.errors.BadSubjectError:  # ours are fine, but for one thing
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"{what}: nats-py has * and > as words of their own only"
            ) from None
        except nats.errors.OutboundBufferLimitError:
            raise self._failed(what, "it is gone, and too much waits for it already") from None
        except (nats.errors.Error, OSError, asyncio.TimeoutError, RuntimeError) as e:
            raise self._failed(what, e) from e

    async def _stand(self, what: str, timeout: float | None) -> None:
        """Wait until a lost connection is back."""
        deadline = deadline_of(timeout)
        self._check_open()
        while not self._client.is_connected:
            if not await self._changes.wait(deadline):
                raise self._failed(what, _gone(timeout))
            self._check_open()

    async def publish(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview | str,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish one message.

        It is written soon, not yet: `flush` waits until the server has it. While the connection
        is lost, `pending_size` bytes wait for it to come back, or else this call does.

        Args:
            subject: exact, no wildcards.
            payload: bytes-like, or a str, which is sent as UTF-8.
            reply: the subject to answer to.
            headers: names and values, without line breaks.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT`; `PAYLOAD_TOO_LARGE`, also for `pending_size`;
                `NATS_CONNECTION_FAILED`.
        """
        what = f"publishing to {subject!r}"
        data, size = self._check_message(subject, payload, headers)
        if reply:
            check_subject(reply)
        if not self._client.is_connected:
            line = f"PUB {subject} {reply} {size}\r\n\r\n"
            await self._room(what, size + len(line.encode()))
        if self._published_in is None:  # what waits goes with the next connection, or is lost there
            self._published_in = self._client.stats["reconnects"] + (not self._client.is_connected)
        await self._call(what, self._client.publish(subject, data, reply, headers or None))

    def _check_message(self, subject: str, payload: object, headers: object) -> tuple[bytes, int]:
        """Return the payload, and its size with headers."""
        check_subject(subject)
        data = payload.encode() if isinstance(payload, str) else payload
        if not isinstance(data, bytes):
            view = bytes_view(data)
            if view is None:
                raise NATSBridgeError(
                    INVALID_ARGUMENT, f"payload must be bytes or str, not {type(data).__name__}"
                )
            data = bytes(view)
        size = len(data) + check_headers(headers)
        self._check_open()
        if headers and not self._client._server_info.get("headers"):
            raise self._failed(f"sending headers to {subject!r}", "the server takes none")
        if size > self.max_payload:
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"the message to {subject!r} has {size} bytes, and {self.url} takes"
                f" {self.max_payload}: send it with smartsend",
                {"size": size, "max_payload": self.max_payload},
            )
        return data, size

    async def _room(self, what: str, size: int) -> None:
        """While the connection is lost: refuse what does not fit, or wait until it is back."""
        if self._broker is None or self._client.is_connected:
            return
        if not self._pending_size:
            await self._stand(what, self._timeout)
        elif self.pending + size > self._pending_size:
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"the connection to {self.url} is lost, {self.pending} bytes wait for it already,"
                f" and pending_size is {self._pending_size}",
                {"size": size, "pending": self.pending, "pending_size": self._pending_size},
            )

    async def subscribe(self, subject: str, queue: str = "") -> Subscription:
        """Receive what is published to `subject`, from the moment this returns.

        While the connection is lost, it waits until that is back, as `publish` without
        `pending_size`.

        Args:
            subject: may have the wildcards `*` (one token) and, last, `>` (the rest).
            queue: a group, of whose members each message reaches one.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT`; `NATS_CONNECTION_FAILED`, also where the server
                does not permit it.
        """
        check_subject(subject, wildcards=True)
        check_queue(queue)
        what = f"subscribing to {subject!r}"
        if self._broker is not None:
            await self._stand(what, self._timeout)
        self._check_open()
        subscription = Subscription(self, subject, queue)
        subscription._nats = await self._call(
            what, self._client.subscribe(subject, queue=queue, cb=subscription._called)
        )
        self._subscriptions.add(subscription)
        try:
            if self._client.is_connected:
                await self._round_trip(what, self._timeout)
                self._check_refusal()
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    async def next(self, timeout: float | None = None) -> Msg | None:
        """Return the next message of any subscription, in the order in which they came.

        Args:
            timeout: seconds after which to return None; None: wait for ever, also for a lost
                connection to come back. 0 never waits. After `drain`, None comes at once when
                nothing is left.

        Raises:
            NATSBridgeError: as `Subscription.next`.
        """
        return await self._take(
            lambda: self._subscriptions,
            timeout,
            lambda: self._drained and all(s._ended for s in self._subscriptions),
        )

    async def _take(
        self,
        among: Callable[[], Iterable[Subscription]],
        timeout: float | None,
        over: Callable[[], bool],
    ) -> Msg | None:
        check_timeout(timeout)
        deadline = deadline_of(timeout)
        if asyncio.get_running_loop().time() - self._looked > TURN_S:
            await asyncio.sleep(0)  # however many wait, others have their turn
            self._looked = asyncio.get_running_loop().time()
        while True:
            ready = [s for s in among() if s._waiting]
            if ready:
                return min(ready, key=lambda s: s._waiting[0]._number)._pop()
            if over():
                return None
            self._check_open()
            if not await self._changes.wait(deadline):
                if timeout and not self._client.is_connected:  # that is no silence
                    raise self._failed("waiting for messages", _gone(timeout))
                return None
            self._looked = asyncio.get_running_loop().time()

    async def request(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview | str,
        timeout: float | None = 5,
        headers: dict[str, str] | None = None,
    ) -> Msg | None:
        """Publish and return the first answer, or None when none came within `timeout` seconds.

        Raises:
            NATSBridgeError: as `publish`; `NATS_CONNECTION_FAILED` also at once where nobody
                listens, and where the connection is lost and not back within `timeout`.
        """
        check_timeout(timeout)
        deadline = deadline_of(timeout)
        data, _ = self._check_message(subject, payload, headers)
        what = f"a request to {subject!r}"
        await self._stand(what, timeout)
        left = None if deadline is None else max(deadline - asyncio.get_running_loop().time(), 0)
        try:
            answer = await self._client.request(
                subject,
                data,
                timeout=left,  # type: ignore[arg-type] # None waits for ever
                headers=headers or None,
            )
        except nats.errors.NoRespondersError:
            raise NATSBridgeError(
                NATS_CONNECTION_FAILED, f"nobody listens on {subject!r} at {self.url}"
            ) from None
        except asyncio.TimeoutError:
            self._check_open()
            if not self._client.is_connected:
                raise self._failed(what, _gone(timeout)) from None
            return None
        except (nats.errors.Error, OSError) as e:
            raise self._failed(what, e) from e
        return Msg._of(answer, self)

    async def inbox(self, stream: str, name: str, subject: str = "", ack_wait: int = 30) -> Inbox:
        """Return what a stream keeps for this peer, under the name of a durable consumer.

        The consumer is made if there is none.

        Args:
            stream: its name.
            name: of the consumer.
            subject: only what was published to it; wildcards allowed.
            ack_wait: seconds after which a message comes again that was not acknowledged.

        Raises:
            NATSBridgeError: `STREAM_FAILED`, also where the consumer is there for another subject;
                `INVALID_ARGUMENT`, `NATS_CONNECTION_FAILED`.
        """
        return await open_inbox(self, stream, name, subject, ack_wait)

    async def flush(self, timeout: float | None = 5) -> None:
        """Wait until the server has taken all that was published.

        Args:
            timeout: seconds.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED`, also with what the server has refused since
                the last flush, and where the connection was lost since then and some of what was
                published with it, perhaps.
        """
        check_timeout(timeout)
        await self._round_trip("flushing", timeout, tells=True)
        before, self._published_in = self._published_in, None
        self._check_refusal()
        if before is not None and before != self._client.stats["reconnects"]:
            raise self._failed("publishing", _LOST)

    def _check_refusal(self) -> None:
        if self._broker is not None and self._broker.complaint:
            refusal, self._broker.complaint = self._broker.complaint, ""
            raise self._failed("what was sent", f"the server refused: {refusal}")

    async def _round_trip(self, what: str, timeout: float | None, tells: bool = False) -> None:
        """Wait until the server has taken all that was sent, and all it had sent has come.

        With `tells`, an error is all that is said about what was published before.
        """
        deadline = deadline_of(timeout)
        await self._stand(what, timeout)
        reconnects = self._client.stats["reconnects"]
        task = self._start(self._answer())
        try:
            while not task.done():
                if not await self._changes.wait(deadline, task):
                    raise self._failed(what, f"no answer within {timeout} s")
                self._check_open()
                lost = not self._client.is_connected and not task.done()  # else it answered before
                if lost or self._client.stats["reconnects"] != reconnects:
                    if tells:
                        self._published_in = None
                    raise self._failed(what, _LOST)
        finally:
            task.cancel()
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        if fault is not None:
            raise self._failed(what, fault) from fault

    async def _answer(self) -> None:
        """Send a PING, and wait for its PONG.

        nats-py's own `flush` returns without one where the connection was lost just now.
        """
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._client._send_ping(pong)
        await asyncio.shield(pong)  # nats-py stumbles over one that was cancelled

    async def drain(self, timeout: float | None = 5) -> None:
        """End all subscriptions, but let what came for them be taken, and flush.

        Publishing is possible afterwards, for instance answers; so is subscribing.

        Args:
            timeout: seconds.

        Raises:
            NATSBridgeError: as `flush`.
        """
        check_timeout(timeout)
        self._check_open()
        self._drained = True
        async with self._ending([s for s in self._subscriptions if not s._ended]):
            await self.flush(timeout)

    @contextlib.asynccontextmanager
    async def _ending(self, subscriptions: list[Subscription]) -> AsyncIterator[None]:
        """End subscriptions around a round trip, after which all has come that was sent to them."""
        try:
            for s in subscriptions:
                await s._stop()
            yield
        except BaseException:
            for s in subscriptions:
                await s._stop()  # again: on a new connection it has been renewed
            raise
        finally:
            for s in subscriptions:
                s._end()

    async def close(self) -> None:
        """Close the connection; what was published is sent first. Can be called twice.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED`, once it is closed, where messages waited for
                a lost connection to come back (`pending_size`).
        """
        if self._closed:
            return
        lost = self._pending_size and not self._client.is_connected and self.pending
        if self._broker is not None and self._client.is_connected:
            with contextlib.suppress(NATSBridgeError):
                await self.flush(CLOSE_S)
        self._closed = True
        self._changes.wake()
        tasks = list(self._tasks)
        try:
            if self._broker is not None:
                await self._broker.end(CLOSE_S)
        except (nats.errors.Error, OSError, asyncio.TimeoutError, RuntimeError) as e:
            logger.warning("closing the connection to %s: %s", self.url, e or "no answer")
        finally:
            for task in tasks:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if lost:
            raise self._failed("closing", f"{lost} bytes of messages that waited were not sent")

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, kind: object, *exc: object) -> None:
        # What came first must not be hidden.
        with contextlib.suppress(*(NATSBridgeError,) if kind else ()):
            await self.close()
