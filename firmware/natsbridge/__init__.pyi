"""The public interface of the firmware, for editors and type checkers. Sizes are bytes, time-outs
seconds, delays milliseconds."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

class _Readable(Protocol):
    def readinto(self, buf: bytearray | memoryview, /) -> int | None: ...

class _Writable(Protocol):
    def write(self, data: bytes | bytearray | memoryview, /) -> int | None: ...

_Bytes = bytes | bytearray | memoryview
_Payload = tuple[str, Any, str]
_Tls = bool | dict[str, Any] | None
_Progress = Callable[[str, int, int | None], None]
_Sink = str | Callable[[str, str, int | None], _Writable | None]

__version__: str

class NATSBridgeError(Exception):
    code: str
    message: str
    details: dict[str, Any]
    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None: ...
    def to_dict(self, send_to: str = "") -> dict[str, Any]: ...

class Msg:
    subject: str
    reply: str
    headers: dict[str, str] | None
    status: int
    description: str
    @property
    def data(self) -> _Bytes: ...
    def __len__(self) -> int: ...
    def rewind(self) -> None: ...
    def readinto(self, buf: bytearray | memoryview, n: int) -> int: ...

class StoredMsg(Msg):
    def ack(self, timeout: float | None = 5) -> None: ...
    def nak(self, delay: float = 0) -> None: ...
    def term(self) -> None: ...
    def in_progress(self) -> None: ...

class Inbox:
    def fetch(self, n: int = 1, timeout: float | None = 5) -> Iterator[StoredMsg]: ...

class Subscription:
    subject: str
    queue: str
    def next(self, timeout: float | None = None) -> Msg | None: ...
    def unsubscribe(self, limit: int = 0) -> None: ...
    def drain(self) -> None: ...
    def __iter__(self) -> Iterator[Msg]: ...
    def __next__(self) -> Msg: ...
    def __enter__(self) -> Subscription: ...
    def __exit__(self, *exc: object) -> None: ...

class EnvelopeJSON:
    def __len__(self) -> int: ...
    def write_to(self, stream: _Writable) -> None: ...

class Connection:
    name: str
    id: str
    url: str
    max_payload: int
    connected: bool
    pending: int
    tls: _Tls
    def publish(
        self,
        subject: str,
        payload: _Bytes | str | EnvelopeJSON,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None: ...
    def subscribe(self, subject: str, queue: str = "") -> Subscription: ...
    def next(self, timeout: float | None = None) -> Msg | None: ...
    def request(
        self,
        subject: str,
        payload: _Bytes | str,
        timeout: float | None = 5,
        headers: dict[str, str] | None = None,
    ) -> Msg | None: ...
    def inbox(self, stream: str, name: str, subject: str = "", ack_wait: int = 30) -> Inbox: ...
    def flush(self, timeout: float | None = 5) -> None: ...
    def drain(self, timeout: float | None = 5) -> None: ...
    def poll(self) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> Connection: ...
    def __exit__(self, *exc: object) -> None: ...

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
    sign: Callable[[bytes], _Bytes] | None = None,
    tls: _Tls = None,
    reconnect: bool = True,
    base_delay: float = 100,
    max_delay: float = 5000,
    ping_interval: float = 60,
    pending_size: int = 0,
    qos: int = 1,
    will: tuple[str, Sequence[_Payload]] | None = None,
    session: bool = False,
    max_payload: int = 1048576,
    on_idle: Callable[[], object] | None = None,
    timeout: float | None = 5,
) -> Connection: ...
def smartsend(
    subject: str,
    data: Sequence[_Payload],
    *,
    broker_url: str | None = None,
    fileserver_url: str | None = None,
    fileserver_upload_handler: Callable[[str, str, _Bytes], dict[str, Any]] | None = None,
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
    nats_connection: Connection | None = None,
    on_progress: _Progress | None = None,
    fallback_direct: bool = True,
    durable: bool = False,
    timeout: float | None = None,
) -> tuple[dict[str, Any], EnvelopeJSON]: ...
def smartreceive(
    msg: Msg,
    *,
    fileserver_url: str | None = None,
    fileserver_download_handler: Callable[[str, int, int, int, str], _Bytes] | None = None,
    max_retries: int = 5,
    base_delay: int = 100,
    max_delay: int = 5000,
    sink: _Sink | None = None,
    spool_dir: str | None = None,
    max_payload_size: int | None = None,
    allowed_urls: Sequence[str] = (),
    nats_connection: Connection | None = None,
    nack: bool = False,
    nack_subjects: Sequence[str] = (),
    on_progress: _Progress | None = None,
    timeout: float | None = None,
) -> dict[str, Any]: ...
def plik_upload(
    file_server_url: str,
    dataname: str,
    data: _Bytes | _Readable,
    *,
    ttl: int = 86400,
    removable: bool = False,
    headers: dict[str, str] | None = None,
    tls: dict[str, Any] | None = None,
    correlation_id: str = "",
    on_progress: _Progress | None = None,
    timeout: float | None = None,
) -> dict[str, Any]: ...
def plik_oneshot_upload(
    file_server_url: str, dataname: str, data: _Bytes | _Readable
) -> dict[str, Any]: ...
def fetch_with_backoff(
    url: str,
    max_retries: int = 5,
    base_delay: int = 100,
    max_delay: int = 5000,
    correlation_id: str = "",
) -> bytes: ...
def envelope_to_json(env: dict[str, Any]) -> EnvelopeJSON: ...
def publish_message(
    nats: Connection | str,
    subject: str,
    msg_json: _Bytes | str | EnvelopeJSON,
    correlation_id: str = "",
) -> None: ...
