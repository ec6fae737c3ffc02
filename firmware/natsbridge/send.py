"""smartsend: small payloads in the message, large ones by link, any size streamed."""

import gc
import time

from . import errors, log
from .errors import PAYLOAD_TOO_LARGE, NATSBridgeError, fail
from .log import timestamp, trace, uuid4
from .payload import check_subject, is_subject
from .stream import passed, until


def smartsend(
    subject,
    data,
    *,
    broker_url=None,
    fileserver_url=None,
    fileserver_upload_handler=None,
    size_threshold=None,
    correlation_id="",
    msg_id="",
    msg_purpose="chat",
    sender_name="",
    sender_id="",
    receiver_name="",
    receiver_id="",
    reply_to="",
    reply_to_msg_id="",
    metadata=None,
    nats_connection=None,
    on_progress=None,
    fallback_direct=True,
    durable=False,
    timeout=None,
):
    """Send payloads as one message: (env, msg_json).

    data: list of (dataname, value, payload_type); a value is what its type takes, or bytes-like,
        or a binary stream, sent from where it stands to its end.
    size_threshold: bytes from which on a payload goes to the file server; default
        $SIZE_THRESHOLD or 100,000. Likewise if the message would exceed the broker's max_payload.
    nats_connection: default a connection to `broker_url` for this message alone.
    on_progress: called as on_progress(dataname, done, total), in bytes.
    fallback_direct: if an upload fails, send in the message what still fits.
    durable: publish until a stream has stored the message, once, however often that takes.
    timeout: s for all of it; None: as long as bytes move, and 30 s for what is durable.

    Raises INVALID_ARGUMENT, INVALID_PAYLOAD_TYPE, PAYLOAD_TOO_LARGE (before anything is sent),
    UPLOAD_FAILED, NATS_CONNECTION_FAILED, and if it is durable STREAM_FAILED.
    """
    check_subject(subject)
    errors.check_type(nats_connection, fileserver_upload_handler)
    if size_threshold is None:
        from . import setting

        size_threshold = setting("SIZE_THRESHOLD", "100000")
        if size_threshold.isdigit():  # else it is refused, as any other str
            size_threshold = int(size_threshold)
    env = {
        "correlation_id": correlation_id or uuid4(),
        "msg_id": msg_id or uuid4(),
        "timestamp": timestamp(),
        "send_to": subject,
        "msg_purpose": msg_purpose,
        "sender_name": sender_name,
        "sender_id": sender_id,
        "receiver_name": receiver_name,
        "receiver_id": receiver_id,
        "reply_to": reply_to,
        "reply_to_msg_id": reply_to_msg_id,
        "broker_url": "",
        "metadata": {} if metadata is None else metadata,
        "payloads": [],
    }
    deadline = until(timeout)
    nc = nats_connection
    if nc and nc._options["memory"] and not errors.working:
        # The heap had no room for what connects beside the last send: now it has.
        end = until(30 if durable else nc._options["timeout"]) if timeout is None else deadline
        if nc._ready(end, not nc._options["pending_size"]):
            nc._options["memory"] = False
    before = nc and nc.deadline
    buf = links = None
    uploaded = []
    threshold = gc.threshold()
    errors.working += 1
    try:
        later = ("jetstream", "headers") if durable else ()
        room = errors.make_room(
            26624 if durable else 18432, "send", "compose", "source", "envelope", *later
        )
        from .compose import choose_links, compose
        from .envelope import EnvelopeJSON

        if not room:  # all is there, as the last time: nothing that lasts is allocated
            gc.threshold(4 * threshold)
        room.clear()
        sources = compose(env, data, size_threshold)
        msg_json = EnvelopeJSON(env, sources, on_progress)
        if nc is False:  # a spool has it only checked
            return env, msg_json
        if not nc:
            compose = choose_links = None
            errors.make_room(20480, "send", "source", "envelope")
            from .dial import connect

            nc = connect(broker_url, timeout=left(deadline))
            connect = None
            from .compose import choose_links  # noqa: F811

        msg_json.buf = buf = nc.scratch
        nc.scratch = None  # a callback that sends needs another
        env["broker_url"] = nc.url
        env["sender_name"] = sender_name or nc.name
        env["sender_id"] = sender_id or nc.id
        links = choose_links(msg_json, size_threshold, nc.max_payload)
        # Free to be dropped:
        compose = choose_links = None
        if links:
            EnvelopeJSON = msg_json = None
            room = errors.make_room(24576, "send", "source", "upload", "http")
            from .urls import home

            server = home(fileserver_url)
            home = None
            from .upload import upload_links

            room.clear()
            failed = upload_links(
                nc,
                env,
                sources,
                links,
                server,
                fileserver_url,
                fileserver_upload_handler,
                fallback_direct,
                on_progress,
                deadline,
                buf,
                uploaded,
            )
            upload_links = None
            room = errors.make_room(10240, "send", "source", "envelope", *later)
            from .envelope import EnvelopeJSON

            room.clear()
            msg_json = EnvelopeJSON(env, sources, on_progress)
            msg_json.buf = buf
            if failed and len(msg_json) > nc.max_payload:
                raise failed
        elif durable and not msg_json._data:
            errors.make_room(10240, "send", "source", "envelope", *later)
        if log.enabled:  # the length of an envelope costs composing its text
            trace(env["correlation_id"], "Publishing %d bytes to %s" % (len(msg_json), subject))
        nc.bound(deadline)
        if durable:
            stream = publish(nc, subject, msg_json, env["msg_id"], deadline)
            if links and log.enabled:
                from .age import compare

                compare(nc, stream, 86400)
        else:
            nc.publish(subject, msg_json, reply_to if is_subject(reply_to) else "")
        msg_json.buf = msg_json._data = None
        if not nats_connection:
            nc.flush(left(deadline))
    except BaseException as e:
        if uploaded:
            try:
                errors.make_room(8192, "recover", "http")
                from .recover import undo

                undo(nc, fileserver_url, uploaded)
            except MemoryError:
                pass  # the server forgets them by itself, and what went wrong matters more
        short = isinstance(e, MemoryError)
        if short:
            e = fail(PAYLOAD_TOO_LARGE, "memory")
        if nc and (short or isinstance(e, NATSBridgeError) and "memory" in e.details):
            nc._options["memory"] = True
        raise e
    finally:
        gc.threshold(threshold)
        errors.working -= 1
        if links:
            compose = choose_links = upload_links = None
            errors.make_room(0, "send", "source", "envelope")
        if nc:
            nc.bound(before)
            nc.scratch = buf or nc.scratch
            if not nats_connection:
                nc.close()
    return env, msg_json


def publish(nc, subject, msg_json, msg_id, deadline):
    """Publish what is durable: the name of the stream that has it."""
    end = until(30) if deadline is None else deadline
    while True:
        try:
            from .jetstream import publish

            return publish(nc, subject, msg_json, msg_id, end)
        except NATSBridgeError as e:
            if "memory" not in e.details or passed(end):
                raise
        # The connection was lost: what connects again gets the heap of this.
        publish = None
        errors.drop("jetstream")
        errors.drop("headers")
        nc._ready(end)


def left(deadline):
    """The s until then; 5 where there is none."""
    return 5 if deadline is None else max(0, time.ticks_diff(deadline, time.ticks_ms())) / 1000
