"""Receiving: `smartreceive`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg as NatsMsg

from natsbridge import http, plik
from natsbridge.allowed import Allowed
from natsbridge.arguments import Progress, bounded, check_count, check_timeout
from natsbridge.client import Connection, Msg
from natsbridge.dial import peer
from natsbridge.download import in_thread
from natsbridge.errors import DOWNLOAD_FAILED, INVALID_ARGUMENT, NATSBridgeError
from natsbridge.inbox import StoredMsg
from natsbridge.incoming import FAST, INLINE, DownloadHandler, Incoming
from natsbridge.log import trace
from natsbridge.nack import report
from natsbridge.reader import Envelope, cut, read_envelope
from natsbridge.send import fileserver
from natsbridge.sink import SinkFunction
from natsbridge.subjects import check_subject
from natsbridge.urls import parse_base

__all__ = ["smartreceive"]


def _message(msg: object, nats_connection: object) -> tuple[bytes, str, Connection | None]:
    """Return a message's data and reply subject, and the connection that received it."""
    if msg is None:
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            "msg is None, which next() returns when nothing came: receive what is not None",
        )
    if not isinstance(msg, (Msg, NatsMsg)):
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            "msg must be a message that next() returned or a nats-py Msg, not"
            f" {type(msg).__module__}.{type(msg).__qualname__}",
        )
    if nats_connection is not None:
        return msg.data, msg.reply, peer(nats_connection)
    owner = msg._connection if isinstance(msg, Msg) else msg._client
    return msg.data, msg.reply, peer(owner) if owner is not None else None


async def _read(data: bytes) -> Envelope:
    """Read an envelope, in a worker thread where that is much work."""
    message = cut(data) if len(data) <= FAST else await in_thread(cut, data)
    if len(message.text) <= INLINE:
        return read_envelope(message)
    envelope: Envelope = await in_thread(read_envelope, message)
    return envelope


def _check_sink(sink: object, spool_dir: object) -> None:
    for what, folder in (("sink", sink), ("spool_dir", spool_dir)):
        if folder is None or (what == "sink" and callable(folder)):
            continue
        if not isinstance(folder, (str, os.PathLike)):
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{what} must be a folder{' or a callable' if what == 'sink' else ''},"
                f" not {type(folder).__name__}",
            )
        if folder == "" or not Path(folder).is_dir():  # "" would be the current one
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"{what} {str(folder)!r} is no folder: create it first"
            )


async def smartreceive(
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
    """Receive the payloads of a message.

    Args:
        msg: what `next` returned, or a plain nats-py Msg.
        fileserver_url: links under it may be opened, and those under the download domains that it
            names itself. None: $FILESERVER_URL or http://localhost:8080. A login in it, and TLS,
            as for `smartsend`.
        fileserver_download_handler: called for links instead of the built-in download with (url,
            max_retries, base_delay, max_delay, correlation_id), in a worker thread unless it is a
            coroutine function; returns bytes, which are verified.
        max_retries: attempts for each link, at least 1.
        base_delay: ms before the second attempt; doubled before each further one.
        max_delay: ms at most.
        sink: None: everything to memory. A folder: byte types (image, audio, video, binary,
            arrowtable) become files in it, under safe unique names. A callable, run in a worker
            thread: sink(dataname, payload_type, size or None) returns an object with write(),
            which the caller closes (after an error it may hold a part), or None for memory.
        spool_dir: for the firmware, which may meet a payload's data before it knows what it is;
            here the message is in memory, and the folder is only checked.
        max_payload_size: bytes of any one payload. None: 1 GiB into memory, else no limit.
        allowed_urls: further URLs (or one) under which links may be opened.
        nats_connection: who receives, for consuming and `nack`. None: whoever received `msg`.
        nack: whether to report a failure to the message's `reply_to`, if that is its NATS reply
            subject or matches `nack_subjects`; never for an invalid envelope.
        nack_subjects: subjects, wildcards allowed, that may be told of failures.
        on_progress: called on the event loop's thread with (dataname, bytes done, total or None).
        timeout: seconds for the whole; None: until no byte moves for 10 s, `max_retries` times.

    Returns:
        The envelope's fields ("" where it has none), with "payloads" as a list of (dataname,
        data, payload_type): data is the value, the path in the folder, or the writable. For an
        error response, "error" with "code", "message" and "details", and no payloads.

    Raises:
        NATSBridgeError: `INVALID_ENVELOPE`, `INVALID_PAYLOAD_TYPE`, `INVALID_TRANSPORT`,
            `DESERIALIZATION_ERROR`, `INTEGRITY_ERROR`, `PAYLOAD_TOO_LARGE`, `URL_NOT_ALLOWED`,
            `DOWNLOAD_FAILED`, `INVALID_ARGUMENT`. No file is left behind then.
    """
    data, reply, me = _message(msg, nats_connection)
    server = fileserver(fileserver_url)
    if not isinstance(allowed_urls, (list, tuple)):
        allowed_urls = [allowed_urls]  # type: ignore[list-item] # whatever it is: checked next
    allowed = [server.base, *(parse_base(url, "allowed_urls") for url in allowed_urls)]
    if not isinstance(nack_subjects, (list, tuple)):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"nack_subjects must be a list, not a {type(nack_subjects).__name__}"
        )
    for subject in nack_subjects:
        check_subject(subject, wildcards=True)
    check_count(max_retries, "max_retries", 1)
    http.check_delays(base_delay, max_delay)
    if max_payload_size is not None:
        check_count(max_payload_size, "max_payload_size")
    check_timeout(timeout)
    _check_sink(sink, spool_dir)
    if fileserver_download_handler is not None and not callable(fileserver_download_handler):
        raise NATSBridgeError(INVALID_ARGUMENT, "fileserver_download_handler must be callable")
    if nack and me is None:
        raise NATSBridgeError(INVALID_ARGUMENT, "nack=True needs nats_connection for this msg")
    envelope = await _read(data)
    fields = envelope.fields
    receiver = Incoming(
        envelope,
        Allowed(allowed, server.base),
        sink,
        max_payload_size,
        fileserver_download_handler,
        (max_retries, base_delay, max_delay),
        on_progress,
    )

    tls = me.tls if me is not None else None

    async def work() -> list[tuple[str, Any, str]]:
        trace(receiver.correlation_id, f"Starting smartreceive of {len(data)} bytes")
        async with http.LazySession(server, tls) as session:
            return await receiver.run(session)

    def late() -> NATSBridgeError:
        return NATSBridgeError(
            DOWNLOAD_FAILED, f"smartreceive took longer than timeout={timeout} s"
        )

    stored = msg if isinstance(msg, StoredMsg) else None
    try:
        async with stored._kept() if stored else contextlib.nullcontext():
            payloads = await bounded(work(), timeout, late)
    except NATSBridgeError as e:
        e.details.setdefault("correlation_id", receiver.correlation_id)
        if stored and e.code == DOWNLOAD_FAILED and e.details.get("status") == 404:
            e.message += stored._too_late()
        if nack and me is not None:
            await report(me, reply, fields, e, nack_subjects)
        raise
    trace(receiver.correlation_id, f"Received {len(payloads)} payloads")
    if receiver.consumed:  # the message is complete, whatever comes of this
        if stored:  # but it may come again, until it is acknowledged
            stored._claimed = lambda: plik.briefly(receiver.consume(me, server))
        else:
            await plik.briefly(receiver.consume(me, server))
    return {**fields, "payloads": payloads}
