"""Sending: `smartsend` and `publish_message`.

Nothing is uploaded or published before every argument was checked and the whole message is known
to fit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from natsbridge import http, jetstream, plik
from natsbridge.arguments import Progress, bounded, check_count, check_field, check_timeout
from natsbridge.client import Connection
from natsbridge.dial import connect, peer
from natsbridge.envelope import MAX_PAYLOADS, build_envelope, check_metadata
from natsbridge.errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    UPLOAD_FAILED,
    NATSBridgeError,
)
from natsbridge.log import trace
from natsbridge.outgoing import Message, UploadHandler
from natsbridge.subjects import check_subject, is_subject
from natsbridge.urls import Server, parse_server

__all__ = ["DEFAULT_FILESERVER", "DEFAULT_THRESHOLD", "fileserver", "publish_message", "smartsend"]

#: Bytes from which a payload goes by link (walkthrough, "Step 3").
DEFAULT_THRESHOLD = 500_000
DEFAULT_FILESERVER = "http://localhost:8080"


def fileserver(url: str | None) -> Server:
    """Return the file server: the argument, $FILESERVER_URL or the default; checked."""
    if url is None:
        url = os.environ.get("FILESERVER_URL") or DEFAULT_FILESERVER
    return parse_server(url, "fileserver_url")


def _threshold(size_threshold: int | None) -> int:
    if size_threshold is None:
        text = os.environ.get("SIZE_THRESHOLD")
        if not text:
            return DEFAULT_THRESHOLD
        if not (text.isascii() and text.isdigit()):
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"$SIZE_THRESHOLD must be a number of bytes, not {text!r}"
            )
        return int(text)
    check_count(size_threshold, "size_threshold")
    return size_threshold


def _check_data(data: object) -> list[tuple[str, Any, str]]:
    if not isinstance(data, (list, tuple)):
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"data must be a list of (dataname, data, payload_type), not {type(data).__name__}",
        )
    if len(data) > MAX_PAYLOADS:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{len(data)} payloads are more than the {MAX_PAYLOADS} of a message"
        )
    for i, item in enumerate(data):
        if not isinstance(item, (list, tuple)) or len(item) != 3:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"data[{i}] must be a tuple (dataname, data, payload_type), not {item!r:.80}",
            )
        check_field(item[0], f"the dataname of data[{i}]")
    return [(item[0], item[1], item[2]) for item in data]


async def smartsend(
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
    """Send payloads of any size in one message.

    Args:
        subject: where to.
        data: (dataname, data, payload_type) tuples; none is legal (an ACK). `data` is the type's
            natural value, bytes-like, or a binary stream, which is sent from its position on. An
            arrowtable or jsontable is anything with `__arrow_c_stream__` (pyarrow, pandas, polars,
            DuckDB) or a pandas DataFrame; a jsontable may be a list of dicts as well.
        broker_url: used without `nats_connection`. None: $NATS_URL or nats://localhost:4222.
        fileserver_url: None: $FILESERVER_URL or http://localhost:8080. It may have a login, which
            goes to that server alone (http://user:password@host, with %40 for an @ in it). For
            https the connection's `tls` holds, or else the system's certificate authorities.
        fileserver_upload_handler: called instead of `plik_upload` with (file_server_url, dataname,
            bytes), in a worker thread unless it is a coroutine function.
        size_threshold: bytes from which a payload goes by link. None: $SIZE_THRESHOLD or 500,000.
        correlation_id, msg_id: "" becomes a UUID.
        msg_purpose: for the receiver: ACK, NACK, updateStatus, shutdown, chat, command, event.
        sender_name, sender_id: "" becomes the connection's name and id.
        receiver_name, receiver_id: for one receiver, who may then delete what it fetched.
        reply_to: the subject to answer to; published as the NATS reply subject as well.
        reply_to_msg_id: which message this one answers.
        metadata: a JSON object of at most 4,096 bytes.
        nats_connection: a `Connection`, or a plain nats-py client. None: one for this call.
        on_progress: called on the event loop's thread with (dataname, bytes done, total or None).
        fallback_direct: whether a payload whose upload failed goes inside the message if it fits.
        durable: publish until a stream has stored the message, once, however often that takes.
        timeout: seconds for the whole; None: until no byte moves for 10 s, and 30 s for the stream.

    Returns:
        The env, whose payloads hold the given object or the URL, and the JSON text published.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, `INVALID_PAYLOAD_TYPE`, `PAYLOAD_TOO_LARGE`,
            `UPLOAD_FAILED`, `NATS_CONNECTION_FAILED`, where it is durable `STREAM_FAILED`. Nothing
            was published then, unless the connection was lost in that very moment.
    """
    check_subject(subject)
    items = _check_data(data)
    threshold = _threshold(size_threshold)
    server = fileserver(fileserver_url)
    check_timeout(timeout)
    if fileserver_upload_handler is not None and not callable(fileserver_upload_handler):
        raise NATSBridgeError(INVALID_ARGUMENT, "fileserver_upload_handler must be callable")
    metadata = {} if metadata is None else metadata
    check_metadata(metadata)
    fields = {
        "correlation_id": correlation_id,
        "msg_id": msg_id,
        "send_to": subject,
        "msg_purpose": msg_purpose,
        "sender_name": sender_name,
        "sender_id": sender_id,
        "receiver_name": receiver_name,
        "receiver_id": receiver_id,
        "reply_to": reply_to,
        "reply_to_msg_id": reply_to_msg_id,
        "broker_url": "",
    }
    env = build_envelope(fields, metadata)
    message = Message(env, bool(receiver_id or receiver_name), on_progress)
    phase = [NATS_CONNECTION_FAILED]

    async def work() -> str:
        trace(message.correlation_id, f"Starting smartsend for subject: {subject}")
        for item in items:
            await message.add(*item, threshold)
        if nats_connection is not None:
            return await deliver(peer(nats_connection))
        async with await connect(
            broker_url, name=sender_name, id=sender_id, reconnect=False
        ) as connection:
            return await deliver(connection)

    async def deliver(connection: Connection) -> str:
        async with http.LazySession(server, connection.tls) as session:
            env["sender_name"] = sender_name or connection.name
            env["sender_id"] = sender_id or connection.id
            env["broker_url"] = connection.url
            message.fit(connection.max_payload)
            try:
                if message.has_links:
                    phase[0] = UPLOAD_FAILED
                await message.upload_links(
                    session,
                    fileserver_upload_handler,
                    server,
                    connection.max_payload,
                    fallback_direct,
                )
                phase[0] = NATS_CONNECTION_FAILED
                text = await message.encode()
                raw = text.encode()
                if durable:
                    msg_id = env["msg_id"]
                    stream = await jetstream.publish(connection, subject, raw, msg_id, timeout)
                    if message.has_links:
                        await jetstream.warn_of_age(connection, stream, plik.DEFAULT_TTL)
                else:
                    reply = reply_to if is_subject(reply_to) else ""
                    await connection.publish(subject, raw, reply)
                if nats_connection is None:
                    await connection.flush(http.STALL_S)
            except BaseException:
                await plik.briefly(message.undo(session, server))
                raise
        trace(message.correlation_id, f"Published {len(text)} characters to {subject}")
        return text

    def late() -> NATSBridgeError:
        return NATSBridgeError(phase[0], f"smartsend took longer than timeout={timeout} s")

    try:
        text = await bounded(work(), timeout, late)
    except NATSBridgeError as e:
        e.details.setdefault("correlation_id", message.correlation_id)
        raise
    finally:
        message.close()
    return env, text


async def publish_message(nats: Any, subject: str, msg_json: str, correlation_id: str = "") -> None:
    """Publish an envelope's JSON text (walkthrough, "Step 7").

    Args:
        nats: a `Connection`, a plain nats-py client, or a broker's URL to connect to meanwhile.
        subject: where to.
        msg_json: what `smartsend` or `envelope_to_json` returned.
        correlation_id: for the log.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, `PAYLOAD_TOO_LARGE`, `NATS_CONNECTION_FAILED`.
    """
    check_subject(subject)
    if not isinstance(msg_json, str):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"msg_json must be a str, not {type(msg_json).__name__}"
        )
    try:
        data = msg_json.encode()
    except UnicodeEncodeError:
        raise NATSBridgeError(INVALID_ARGUMENT, "msg_json holds a lone surrogate") from None
    if isinstance(nats, str):
        async with await connect(nats, reconnect=False) as connection:
            await connection.publish(subject, data)
            await connection.flush(http.STALL_S)
    else:
        await peer(nats).publish(subject, data)
    trace(correlation_id, f"Published {len(data)} bytes to {subject}")
