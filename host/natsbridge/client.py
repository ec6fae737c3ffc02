"""Connections to NATS, as coroutines.

Differences to nats-py, which does the work: messages of all subscriptions can be taken in the
order in which they came, nothing is dropped silently, every wait is bounded, and every failure is
a `NATSBridgeError` that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client

from natsbridge.arguments import check_field, check_timeout
from natsbridge.broker import check_server, open_broker, server_url
from natsbridge.errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)
from natsbridge.log import logger
from natsbridge.source import bytes_view
from natsbridge.subjects import check_queue, check_subject
from natsbridge.subscription import Msg, Subscription

__all__ = ["DEFAULT_URL", "Connection", "Msg", "Subscription", "connect", "peer"]

DEFAULT_URL = "nats://localhost:4222"
#: Seconds between PINGs: two without an answer, and the link is taken to be dead.
PING_S = 20
#: Seconds that a server which reads nothing can hold up `close`, twice.
CLOSE_S = 2.0
#: Seconds after which nats-py itself gives up on a PONG: longer than anybody waits. Cancelled
#: earlier, its late PONG would end nats-py's reading task.
_FLUSH_S = 86400

T = TypeVar("T")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


class Connection:
    """A connection to a broker. Made by `connect`.

    Attributes:
        name: who this peer is: the default sender name.
        id: which of its name: the default sender id.
    """

    def __init__(self, client: Client | None, name: str, id: str) -> None:
        self.name = name
        self.id = id
        self._client: Client = client  # type: ignore[assignment] # until _open has run
        self._owned = client is None
        self._url = ""
        self._closed = False
        self._refusal = ""
        self._subscriptions: set[Subscription] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._flushes: set[asyncio.Task[None]] = set()

    async def _open(
        self, servers: list[str], timeout: float | None, reconnect: bool, **options: Any
    ) -> None:
        self._client = await open_broker(
            servers,
            timeout,
            reconnect,
            self._on_error,
            name=self.name or None,
            ping_interval=PING_S,
            closed_cb=self._on_closed,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            **options,
        )

    async def _on_error(self, e: Exception) -> None:
        logger.warning("connection to %s: %s", self.url, str(e) or type(e).__name__)
        if "permissions violation" in str(e):
            self._refusal = str(e).removeprefix("nats: ")

    async def _on_closed(self) -> None:
        self._wake()

    async def _on_reconnected(self) -> None:
        logger.info("connected again to %s", self.url)
        self._wake()

    async def _on_disconnected(self) -> None:
        logger.info("the connection to %s is lost", self._url)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

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
        if self._client.connected_url is not None:
            self._url = server_url(self._client.connected_url)
        return self._url

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
            raise NATSBridgeError(
                NATS_CONNECTION_FAILED,
                f"the connection to {self.url} is lost"
                f" ({self._client.last_error or 'closed by the server'}): call connect() again,"
                " with reconnect=True to have it come back by itself",
            )

    async def _call(self, what: str, work: Awaitable[T]) -> T:
        try:
            return await work
        except nats.errors.OutboundBufferLimitError:
            raise self._failed(what, "it is gone, and too much waits for it already") from None
        except (nats.errors.Error, OSError, asyncio.TimeoutError, RuntimeError) as e:
            raise self._failed(what, e) from e

    async def publish(
        self, subject: str, payload: bytes | bytearray | memoryview | str, reply: str = ""
    ) -> None:
        """Publish one message.

        It is written soon, not yet: `flush` waits until the server has it. While the connection
        is lost, up to 2 MiB wait for it to come back.

        Args:
            subject: exact, no wildcards.
            payload: bytes-like, or a str, which is sent as UTF-8.
            reply: the subject to answer to.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT`, `PAYLOAD_TOO_LARGE`, `NATS_CONNECTION_FAILED`.
        """
        data = self._check_message(subject, payload)
        if reply:
            check_subject(reply)
        await self._call(
            f"publishing to {subject!r}", self._client.publish(subject, data, reply=reply)
        )

    def _check_message(self, subject: str, payload: object) -> bytes:
        check_subject(subject)
        view = bytes_view(payload.encode() if isinstance(payload, str) else payload)
        if view is None:
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"payload must be bytes or str, not {type(payload).__name__}"
            )
        self._check_open()
        if len(view) > self.max_payload:
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"the message to {subject!r} has {len(view)} bytes, and {self.url} takes"
                f" {self.max_payload}: send it with smartsend",
                {"size": len(view), "max_payload": self.max_payload},
            )
        return bytes(view)

    async def subscribe(self, subject: str, queue: str = "") -> Subscription:
        """Receive what is published to `subject`, from the moment this returns.

        Args:
            subject: may have the wildcards `*` (one token) and, last, `>` (the rest).
            queue: a group, of whose members each message reaches one.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT`; `NATS_CONNECTION_FAILED`, also where the server
                does not permit it.
        """
        check_subject(subject, wildcards=True)
        check_queue(queue)
        self._check_open()
        subscription = Subscription(self, subject, queue)
        what = f"subscribing to {subject!r}"
        cb: Any = subscription._arrived
        subscription._nats = await self._call(
            what, self._client.subscribe(subject, queue=queue, cb=cb)
        )
        self._subscriptions.add(subscription)
        try:
            if self._client.is_connected:
                await self.flush()
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    async def next(self, timeout: float | None = None) -> Msg | None:
        """Return the next message of any subscription, in the order in which they came.

        Args:
            timeout: seconds after which to return None; None: wait for ever.

        Raises:
            NATSBridgeError: as `Subscription.next`.
        """
        return await self._take(lambda: self._subscriptions, timeout)

    async def _take(
        self, among: Callable[[], Iterable[Subscription]], timeout: float | None
    ) -> Msg | None:
        check_timeout(timeout)
        deadline = _deadline(timeout)
        # Messages that were parsed in one go reach the queues in one turn of the loop, in any
        # order among subscriptions: let that turn end.
        await asyncio.sleep(0)
        while True:
            ready = [s for s in among() if s._waiting]
            if ready:
                return min(ready, key=lambda s: s._waiting[0].number)._pop()
            self._check_open()
            if not all(s._open for s in among()):
                return None
            if not await self._change(deadline):
                return None

    async def _change(
        self, deadline: float | None, *tasks: asyncio.Task[None]
    ) -> set[asyncio.Future[None]]:
        """Wait until something happened here, or to `tasks`; return nothing at the deadline."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        try:
            done, _ = await asyncio.wait(
                {waiter, *tasks},
                timeout=None if deadline is None else max(deadline - loop.time(), 0),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._waiters.discard(waiter)
        return done

    async def request(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview | str,
        timeout: float | None = 5,
    ) -> Msg | None:
        """Publish and return the first answer, or None when none came within `timeout` seconds.

        Raises:
            NATSBridgeError: as `publish`; `NATS_CONNECTION_FAILED` at once where nobody listens.
        """
        check_timeout(timeout)
        data = self._check_message(subject, payload)
        try:
            answer = await self._client.request(
                subject,
                data,
                timeout=timeout,  # type: ignore[arg-type] # None waits for ever
            )
        except nats.errors.NoRespondersError:
            raise NATSBridgeError(
                NATS_CONNECTION_FAILED, f"nobody listens on {subject!r} at {self.url}"
            ) from None
        except asyncio.TimeoutError:
            self._check_open()
            return None
        except (nats.errors.Error, OSError) as e:
            raise self._failed(f"a request to {subject!r}", e) from e
        return Msg(answer.subject, answer.reply, answer.data, self)

    async def flush(self, timeout: float | None = 5) -> None:
        """Wait until the server has taken all that was published.

        Args:
            timeout: seconds.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED`, also with what the server has refused since
                the last flush.
        """
        check_timeout(timeout)
        deadline = _deadline(timeout)
        self._check_open()
        while not self._client.is_connected:  # where nats-py's own flush returns at once
            if not await self._change(deadline):
                raise self._failed("flushing", f"the connection is lost since {timeout} s or more")
            self._check_open()
        reconnects = self._client.stats["reconnects"]
        task = asyncio.ensure_future(self._client.flush(timeout=_FLUSH_S))
        self._flushes.add(task)
        task.add_done_callback(self._flushed)
        while not task.done():
            if not await self._change(deadline, task):
                raise self._failed("flushing", f"no answer within {timeout} s")
            self._check_open()
            if self._client.stats["reconnects"] != reconnects or not self._client.is_connected:
                raise self._failed(
                    "flushing",
                    "the connection was lost; what was published last may not have arrived",
                )
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        if fault is not None:
            raise self._failed("flushing", fault) from fault
        if self._refusal:
            refusal, self._refusal = self._refusal, ""
            raise self._failed("what was sent", f"the server refused: {refusal}")

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flushes.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it, or has gone

    async def close(self) -> None:
        """Close the connection; what was published is sent first. Can be called twice."""
        if self._closed:
            return
        if self._owned and self._client.is_connected:
            with contextlib.suppress(NATSBridgeError):
                await self.flush(CLOSE_S)
        self._closed = True
        self._wake()
        flushes = list(self._flushes)
        try:
            if self._owned:
                await asyncio.wait_for(self._client.close(), CLOSE_S)
        except (nats.errors.Error, OSError, asyncio.TimeoutError, RuntimeError) as e:
            logger.warning("closing the connection to %s: %s", self.url, e or "no answer")
        finally:
            if self._owned:
                self._client.abort()  # type: ignore[attr-defined] # ours is a Broker
            for task in flushes:
                task.cancel()
        if flushes:
            await asyncio.wait(flushes)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


async def connect(
    servers: str | list[str] | None = None,
    *,
    name: str = "",
    id: str = "",
    user: str = "",
    password: str = "",
    token: str = "",
    reconnect: bool = True,
    timeout: float | None = 5,
) -> Connection:
    """Connect to a broker.

    Args:
        servers: a URL (nats://host:port; tls:// demands TLS) or a list of them, tried in order.
            None: $NATS_URL or nats://localhost:4222.
        name: who this peer is; "" is nobody in particular.
        id: which of that name; "" becomes a UUID.
        user: credentials, with `password`.
        password: credentials, with `user`.
        token: credentials, alone.
        reconnect: whether a lost connection comes back by itself, however long that takes.
        timeout: seconds for the whole.

    Raises:
        NATSBridgeError: `NATS_CONNECTION_FAILED`, `INVALID_ARGUMENT`.
    """
    if servers is None:
        servers = os.environ.get("NATS_URL") or DEFAULT_URL
    if isinstance(servers, str):
        servers = [servers]
    if not isinstance(servers, (list, tuple)) or not servers:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"servers must be a URL or a list of at least one, not {servers!r}"
        )
    urls = [check_server(s) for s in servers]
    for what, value in (("name", name), ("id", id), ("user", user), ("token", token)):
        check_field(value, what)
    check_field(password, "password")
    check_timeout(timeout)
    connection = Connection(None, name, id or str(uuid.uuid4()))
    await connection._open(
        urls,
        timeout,
        reconnect,
        user=user or None,
        password=(password or "") if user else None,
        token=token or None,
    )
    return connection


def peer(nats_connection: object) -> Connection:
    """Return a connection to use: ours as it is, a plain nats-py client wrapped.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` for anything else.
    """
    if isinstance(nats_connection, Connection):
        return nats_connection
    if isinstance(nats_connection, Client):
        name = nats_connection.options.get("name")
        return Connection(nats_connection, name if isinstance(name, str) else "", "")
    raise NATSBridgeError(
        INVALID_ARGUMENT,
        "nats_connection must be what natsbridge.connect() returned or a nats-py client, not a"
        f" {type(nats_connection).__module__}.{type(nats_connection).__qualname__}",
    )
