"""smartreceive: the envelope first, whatever its size, then the links."""

from . import errors
from .errors import DOWNLOAD_FAILED, INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, NATSBridgeError, fail
from .log import trace
from .sink import Sink
from .stream import until
from .subscription import Msg


def smartreceive(
    msg,
    *,
    fileserver_url=None,
    fileserver_download_handler=None,
    max_retries=5,
    base_delay=100,
    max_delay=5000,
    sink=None,
    spool_dir=None,
    max_payload_size=None,
    allowed_urls=(),
    nats_connection=None,
    nack=False,
    nack_subjects=(),
    on_progress=None,
    timeout=None,
):
    """Read a message: its envelope, with env["payloads"] == [(dataname, data, payload_type), ...].

    fileserver_url, allowed_urls: where links may lead; default $FILESERVER_URL or
        http://localhost:8080.
    max_retries, base_delay, max_delay: attempts of a download, and ms between them.
    sink: None (memory), a folder into which byte types are written (the data is then the path), or
        callable(dataname, payload_type, size) -> a stream to write to, or None for memory.
    spool_dir: a folder for payloads whose data comes before their name, with a callable sink.
    max_payload_size: bytes; default what the free heap allows, and no limit for files and streams.
    nack: answer an error with an error response to the message's reply_to, if that is its own
        NATS reply subject or matches one of `nack_subjects`.
    on_progress: called as on_progress(dataname, done, total), in bytes.
    timeout: s for all of it; None: as long as bytes move.

    An error response has env["error"] and no payloads. After an error nothing is left in the
    folder, and the connection is usable.

    Raises INVALID_ENVELOPE, INVALID_PAYLOAD_TYPE, INVALID_TRANSPORT, DESERIALIZATION_ERROR,
    INTEGRITY_ERROR, PAYLOAD_TOO_LARGE, URL_NOT_ALLOWED, DOWNLOAD_FAILED, INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED.
    """
    if not isinstance(msg, Msg):
        raise fail(INVALID_ARGUMENT, "msg", msg)
    nc = nats_connection or msg.connection
    errors.check_type(nc, fileserver_download_handler)
    deadline = until(timeout)
    errors.check("max_retries", max_retries, 1)
    errors.check("base_delay", base_delay, 0, float)
    errors.check("max_delay", max_delay, 0, float)
    if nack_subjects != ():
        from .nack import check

        check(nack_subjects)
    msg.rewind()
    held = False  # by an inbox: see there
    where = Sink(sink, spool_dir, max_payload_size)
    reader = None
    links = ()
    removable = False
    tries = max_retries, base_delay, max_delay
    env = {}
    before = msg.connection.deadline
    buf = nc.scratch
    nc.scratch = None  # a callback that sends needs another
    errors.working += 1
    try:
        msg.connection.bound(deadline)
        room = errors.make_room(22528, "receive", "reader", "jsonpull", "sink")
        from .reader import EnvelopeReader

        room.clear()
        reader = EnvelopeReader(msg, len(msg), where, on_progress, buf)
        EnvelopeReader = None  # free to be dropped
        env = reader.read()
        reader = None
        msg.connection.bound(before)
        items = env["payloads"]
        trace(env["correlation_id"], "Received %d bytes on %s" % (len(msg), msg.subject))
        links = []
        for item in items:
            if item["transport"] == "link":
                links.append(item)
        if links:
            room = errors.make_room(24576, "receive", "sink", "download", "http")
            held = hasattr(msg, "extend") and msg.extend(nc)
            if held:  # its text is as large as all that a link needs
                msg._data = None
                msg.lost = True
            from .urls import links as parse

            home, prefixes = parse(links, fileserver_url, allowed_urls)
            parse = None  # free to be dropped
            from .download import Claims

            room.clear()
            claims = Claims(nc, env, where, home, prefixes, deadline)
            for item in links:
                claims.check(item["where"], item["data"])
            for item in links:
                claims.fetch(item, fileserver_download_handler, tries, on_progress, buf)
                removable = removable or item["metadata"].get("removable")
            Claims = claims = None  # free to be dropped
            errors.make_room(0, "receive", "sink")
            for item in links:
                item["target"].finish(item["dataname"], item["payload_type"])
        where.commit()
        where = None
        if removable:
            if held:  # only once it can't come again
                msg.claim = nc, env, links, fileserver_url, None
            else:
                try:
                    errors.make_room(12288, "receive", "recover", "http")
                    from .recover import consume

                    consume(nc, env, links, fileserver_url, deadline)
                except MemoryError:
                    pass  # the server forgets them by itself, and they are here
    except BaseException as e:
        if where:
            where.abandon()
        if reader:
            env = reader.env
        if isinstance(e, OSError):
            e = fail(INVALID_ARGUMENT, "sink-io", e)
        elif isinstance(e, MemoryError):
            reader = Claims = claims = None
            e = fail(PAYLOAD_TOO_LARGE, "memory")
        if isinstance(e, NATSBridgeError):
            if held and e.details.get("status") == 404:
                e = fail(DOWNLOAD_FAILED, "lost", msg.reply.split(".")[2])
            e.details.setdefault("correlation_id", env.get("correlation_id", ""))
            if nack:
                from .nack import answer

                answer(nc, msg, env, e, nack_subjects)
        raise e
    finally:
        errors.working -= 1
        nc.scratch = buf
        msg.connection.bound(before)
        if links:
            Claims = claims = consume = None
            if held:
                nc.idle = msg.idle
            errors.make_room(0, "receive", "sink")
    for i in range(len(items)):
        item = items[i]
        items[i] = item["dataname"], item["target"].data, item["payload_type"]
    return env
