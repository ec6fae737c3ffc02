"""The same calls, synchronous: `from natsbridge import sync as natsbridge`.

A connection has a thread of its own in which an event loop runs; a call without a connection
starts one for its own duration. So these calls work anywhere, also inside a running event loop,
as in Jupyter. Parameters, results and errors are those of the asynchronous calls, where they are
documented. Callbacks (`on_progress`) are called on the loop's thread: keep them short, and do not
call the connection from there.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from nats.aio.msg import Msg as NatsMsg

from natsbridge import client, dial, download, envelope, inbox, plik, receive, send
from natsbridge._version import __version__
from natsbridge.arguments import Progress
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.incoming import DownloadHandler
from natsbridge.loopthread import LoopThread, run_once
from natsbridge.outgoing import UploadHandler
from natsbridge.sink import SinkFunction

__all__ = [
    "NATSBridgeError",
    "__version__",
    "connect",
    "envelope_to_json",
    "fetch_with_backoff",
    "plik_oneshot_upload",
    "plik_upload",
    "publish_message",
    "smartreceive",
    "smartsend",
]

T = TypeVar("T")


class Msg(client.Msg):
    """A received message. `len(msg)` is the size of `data` in bytes."""

    __slots__ = ("_owner",)

    def __init__(self, msg: client.Msg, owner: Connection) -> None:
        super().__init__(
            msg.subject,
            msg.reply,
            msg.data,
            msg.headers,
            msg.status,
            msg.description,
            msg._connection,
        )
        self._owner = owner


class StoredMsg(Msg):
    """A message of an inbox, with what may be said of it; see `natsbridge.inbox.StoredMsg`."""

    __slots__ = ("_stored",)

    def __init__(self, msg: inbox.StoredMsg, owner: Connection) -> None:
        super().__init__(msg, owner)
        self._stored = msg

    def ack(self, timeout: float | None = 5) -> None:
        """It is done with, and does not come again: waits until the server has confirmed that."""
        self._owner._run(self._stored.ack(timeout))

    def nak(self, delay: float = 0) -> None:
        """It can't be done now: it comes again, after `delay` seconds."""
        self._owner._run(self._stored.nak(delay))

    def term(self) -> None:
        """It can never be done: it does not come again."""
        self._owner._run(self._stored.term())

    def in_progress(self) -> None:
        """It takes longer: the time after which it comes again begins anew."""
        self._owner._run(self._stored.in_progress())


class Inbox:
    """What a stream has for a durable consumer; see `natsbridge.inbox.Inbox`."""

    def __init__(self, inbox: inbox.Inbox, owner: Connection) -> None:
        self._inbox = inbox
        self._owner = owner

    def fetch(self, n: int = 1, timeout: float | None = 5) -> list[StoredMsg]:
        """Return up to `n` messages: those that wait, or else those that come first."""
        found = self._owner._run(self._inbox.fetch(n, timeout))
        return [StoredMsg(msg, self._owner) for msg in found]


class Subscription:
    """Messages of one subject: `sub.next()`, `for msg in sub`, `with sub`."""

    def __init__(self, subscription: client.Subscription, owner: Connection) -> None:
        self.subject = subscription.subject
        self.queue = subscription.queue
        self._subscription = subscription
        self._owner = owner

    def next(self, timeout: float | None = None) -> Msg | None:
        """Return the next message, or None when none came within `timeout` seconds.

        A connection that was lost and is not back by then is an error (not with 0).
        """
        return self._owner._message(self._subscription.next(timeout))

    def unsubscribe(self, limit: int = 0) -> None:
        """End the subscription, at once or after `limit` messages in all. Can be called twice."""
        if not self._owner._closed:
            self._owner._run(self._subscription.unsubscribe(limit))

    def drain(self) -> None:
        """End the subscription; what the server had sent until then can still be taken."""
        if not self._owner._closed:
            self._owner._run(self._subscription.drain())

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Msg:
        if self._owner._closed:
            raise StopIteration
        try:
            msg = self._owner._message(self._subscription.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
        if msg is None:
            raise StopIteration
        return msg

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unsubscribe()


class Connection:
    """A connection to a broker, made by `connect`; see `natsbridge.client.Connection`."""

    def __init__(self, connection: client.Connection, thread: LoopThread) -> None:
        self._connection = connection
        self._thread = thread
        self._closed = False

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(work)

    def _message(self, work: Coroutine[Any, Any, client.Msg | None]) -> Msg | None:
        msg = self._run(work)
        return None if msg is None else Msg(msg, self)

    @property
    def name(self) -> str:
        """Who this peer is: the default sender name."""
        return self._connection.name

    @property
    def id(self) -> str:
        """Which of its name: the default sender id."""
        return self._connection.id

    @property
    def url(self) -> str:
        """The server's URL, without credentials."""
        return self._connection.url

    @property
    def tls(self) -> Any:
        """What `connect` was told about TLS."""
        return self._connection.tls

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connection.connected

    @property
    def pending(self) -> int:
        """Bytes that were published and are not written yet."""
        return self._connection.pending

    @property
    def max_payload(self) -> int:
        """Bytes that a message may have, as the server announced."""
        return self._connection.max_payload

    def publish(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview | str,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish one message."""
        self._run(self._connection.publish(subject, payload, reply, headers))

    def subscribe(self, subject: str, queue: str = "") -> Subscription:
        """Receive what is published to `subject`, from the moment this returns."""
        return Subscription(self._run(self._connection.subscribe(subject, queue)), self)

    def next(self, timeout: float | None = None) -> Msg | None:
        """Return the next message of any subscription, in the order in which they came.

        None, and errors, as `Subscription.next`.
        """
        return self._message(self._connection.next(timeout))

    def request(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview | str,
        timeout: float | None = 5,
        headers: dict[str, str] | None = None,
    ) -> Msg | None:
        """Publish and return the first answer, or None when none came within `timeout` seconds."""
        return self._message(self._connection.request(subject, payload, timeout, headers))

    def inbox(self, stream: str, name: str, subject: str = "", ack_wait: int = 30) -> Inbox:
        """Return what a stream keeps for this peer, under the name of a durable consumer."""
        return Inbox(self._run(self._connection.inbox(stream, name, subject, ack_wait)), self)

    def flush(self, timeout: float | None = 5) -> None:
        """Wait until the server has taken all that was published."""
        self._run(self._connection.flush(timeout))

    def drain(self, timeout: float | None = 5) -> None:
        """End all subscriptions, but let what came for them be taken, and flush."""
        self._run(self._connection.drain(timeout))

    def close(self) -> None:
        """Close the connection and end its thread. Can be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._run(self._connection.close())
        finally:
            self._thread.stop()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(*(NATSBridgeError,) if kind else ()):  # what came first counts
            self.close()


def _runner(
    nats_connection: object,
) -> tuple[Callable[[Coroutine[Any, Any, T]], T], client.Connection | None]:
    """Return what runs a coroutine for this connection (None: nobody's), and the connection."""
    if nats_connection is None:
        return run_once, None
    if isinstance(nats_connection, Connection):
        return nats_connection._run, nats_connection._connection
    raise NATSBridgeError(
        INVALID_ARGUMENT,
        "nats_connection must be what natsbridge.sync.connect() returned, not a"
        f" {type(nats_connection).__module__}.{type(nats_connection).__qualname__}",
    )


def connect(
    servers: str | list[str] | None = None,
    *,
    name: str = "",
    id: str = "",
    user: str = "",
    password: str = "",
    token: str = "",
    jwt: str = "",
    nkey: str = "",
    sign: Callable[[bytes], bytes] | None = None,
    tls: bool | dict[str, Any] | ssl.SSLContext | None = None,
    reconnect: bool = True,
    base_delay: float = 100,
    max_delay: float = 5000,
    ping_interval: float = 60,
    pending_size: int = 0,
    timeout: float | None = 5,
) -> Connection:
    """Connect to a broker; see `natsbridge.connect`."""
    thread = LoopThread()
    try:
        connection = thread.run(
            dial.connect(
                servers,
                name=name,
                id=id,
                user=user,
                password=password,
                token=token,
                jwt=jwt,
                nkey=nkey,
                sign=sign,
                tls=tls,
                reconnect=reconnect,
                base_delay=base_delay,
                max_delay=max_delay,
                ping_interval=ping_interval,
                pending_size=pending_size,
                timeout=timeout,
            )
        )
    except BaseException:
        thread.stop()
        raise
    return Connection(connection, thread)


def smartsend(
    subject: str,
    data: Sequence[tuple[str, Any, str]],
    *,
    broker_url: str | None = None,
    fileserver_url: str | None = None,
    fileserver_upload_handler: UploadHandler | None = None,
    size_threshold: int | None = None,
    correlation_id: str = "",
    msg_id: str = "",
    msg_purpose: str = "chat",
    sender_name: str = "",
    sender_id: str = "",
    receiver_name: str = "",
    receiver_id: str = "",
    reply_to: str = "",
    reply_to_msg_id: str = "",
    metadata: dict[str, Any] | None = None,
    nats_connection: Any = None,
    on_progress: Progress | None = None,
    fallback_direct: bool = True,
    durable: bool = False,
    timeout: float | None = None,
) -> tuple[dict[str, Any], str]:
    """Send payloads of any size in one message; see `natsbridge.smartsend`."""
    run, connection = _runner(nats_connection)
    return run(
        send.smartsend(
            subject,
            data,
            broker_url=broker_url,
            fileserver_url=fileserver_url,
            fileserver_upload_handler=_handler(fileserver_upload_handler),
            size_threshold=size_threshold,
            correlation_id=correlation_id,
            msg_id=msg_id,
            msg_purpose=msg_purpose,
            sender_name=sender_name,
            sender_id=sender_id,
            receiver_name=receiver_name,
            receiver_id=receiver_id,
            reply_to=reply_to,
            reply_to_msg_id=reply_to_msg_id,
            metadata=metadata,
            nats_connection=connection,
            on_progress=on_progress,
            fallback_direct=fallback_direct,
            durable=durable,
            timeout=timeout,
        )
    )


def smartreceive(
    msg: Any,
    *,
    fileserver_url: str | None = None,
    fileserver_download_handler: DownloadHandler | None = None,
    max_retries: int = 5,
    base_delay: float = 100,
    max_delay: float = 5000,
    sink: str | os.PathLike[str] | SinkFunction | None = None,
    spool_dir: str | os.PathLike[str] | None = None,
    max_payload_size: int | None = None,
    allowed_urls: Sequence[str] = (),
    nats_connection: Any = None,
    nack: bool = False,
    nack_subjects: Sequence[str] = (),
    on_progress: Progress | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Receive the payloads of a message; see `natsbridge.smartreceive`."""
    owner = nats_connection
    if isinstance(msg, NatsMsg):  # its client belongs to another loop
        msg = client.Msg(msg.subject, msg.reply, msg.data, msg.headers)
    if owner is None and isinstance(msg, Msg) and not msg._owner._closed:
        owner = msg._owner
    run, connection = _runner(owner)
    if isinstance(msg, StoredMsg):
        msg = msg._stored
    return run(
        receive.smartreceive(
            msg,
            fileserver_url=fileserver_url,
            fileserver_download_handler=_handler(fileserver_download_handler),
            max_retries=max_retries,
            base_delay=base_delay,
            max_delay=max_delay,
            sink=sink,
            spool_dir=spool_dir,
            max_payload_size=max_payload_size,
            allowed_urls=allowed_urls,
            nats_connection=connection,
            nack=nack,
            nack_subjects=nack_subjects,
            on_progress=on_progress,
            timeout=timeout,
        )
    )


def plik_upload(
    file_server_url: str,
    dataname: str,
    data: Any,
    *,
    ttl: int = plik.DEFAULT_TTL,
    removable: bool = False,
    headers: Mapping[str, str] | None = None,
    tls: Any = None,
    correlation_id: str = "",
    on_progress: Progress | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Upload one file that any number of receivers can download; see `natsbridge.plik_upload`."""
    return run_once(
        plik.plik_upload(
            file_server_url,
            dataname,
            data,
            ttl=ttl,
            removable=removable,
            headers=headers,
            tls=tls,
            correlation_id=correlation_id,
            on_progress=on_progress,
            timeout=timeout,
        )
    )


def plik_oneshot_upload(file_server_url: str, dataname: str, data: Any) -> dict[str, Any]:
    """Upload one file for a single download; see `natsbridge.plik_oneshot_upload`."""
    return run_once(plik.plik_oneshot_upload(file_server_url, dataname, data))


def fetch_with_backoff(
    url: str,
    max_retries: int = 5,
    base_delay: float = 100,
    max_delay: float = 5000,
    correlation_id: str = "",
) -> bytes:
    """Download a URL into memory; see `natsbridge.fetch_with_backoff`."""
    return run_once(
        download.fetch_with_backoff(url, max_retries, base_delay, max_delay, correlation_id)
    )


def envelope_to_json(env: dict[str, Any]) -> str:
    """Return the JSON text of an env; see `natsbridge.envelope_to_json`."""
    return run_once(envelope.envelope_to_json(env))


def publish_message(nats: Any, subject: str, msg_json: str, correlation_id: str = "") -> None:
    """Publish an envelope's JSON text; see `natsbridge.publish_message`."""
    if isinstance(nats, str):
        run_once(send.publish_message(nats, subject, msg_json, correlation_id))
        return
    run, connection = _runner(nats)
    run(send.publish_message(connection, subject, msg_json, correlation_id))


def _handler(given: Any) -> Any:
    """Return the handler to use: ours, given as one, stream instead of going through bytes."""
    for function, coroutine_function in (
        (plik_upload, plik.plik_upload),
        (plik_oneshot_upload, plik.plik_oneshot_upload),
        (fetch_with_backoff, download.fetch_with_backoff),
    ):
        if given is function:
            return coroutine_function
    return given
