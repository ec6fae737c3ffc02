"""Publishing while disconnected: the queue, and how it is written."""

from .errors import NATS_CONNECTION_FAILED, PAYLOAD_TOO_LARGE, NATSBridgeError, fail
from .stream import until


def publish(nc, head, payload, size):
    """Queue a message whose first line, with its headers, is `head`: False if it can be written
    at once.

    Raises PAYLOAD_TOO_LARGE if it does not fit what is left of pending_size.
    """
    if nc._ready(None, False) and not nc.pending:
        return False
    limit = nc._options["pending_size"]
    total = len(head) + len(payload) + 2
    if size > nc.max_payload:
        raise fail(PAYLOAD_TOO_LARGE, "publish", size, nc.url, nc.max_payload, size=size)
    if nc.pending + total > limit:
        raise fail(PAYLOAD_TOO_LARGE, "pending", total, limit, nc.pending, size=total)
    if hasattr(payload, "write_to"):
        from io import BytesIO

        out = BytesIO()
        payload.write_to(out)
        payload = out.getvalue()
    data = head + payload + b"\r\n"
    nc._options["queue"].append((size, data))
    nc.pending += len(data)
    return True


def pump(nc, wait=False):
    """Write what is queued, in its order: all of it with `wait`, else what goes at once. Each stays
    queued until it is written whole, so that a new connection starts with it again.

    Raises OSError.
    """
    stream = nc._stream
    queue = nc._options["queue"]
    while queue:
        size, data = queue[0]
        if size > nc.max_payload:  # another server takes less
            nc._error = "%d bytes, of which %s takes %d" % (size, nc.url, nc.max_payload)
        elif wait:
            stream.write(b"" if nc._posted else data)
        else:
            if not nc._posted:
                stream.post(data)
                nc._posted = True
            stream.post()
            if stream.rest:
                return
        nc._posted = False
        nc._dirty = True
        queue.pop(0)
        nc.pending -= len(data)


def flush(nc, deadline, wait):
    """Write what is queued as soon as there is a connection, before anything else; with `wait`, all
    of it, until `deadline`."""
    while nc._stream and nc.pending:
        try:
            nc._stream.deadline = deadline
            pump(nc, wait)
            nc._stream.deadline = nc.deadline
            return
        except OSError as e:
            nc._drop(e)
            if wait:
                from .greet import connect

                connect(nc, deadline, True)


def close(nc):
    """Before closing: write what is queued, if there is a connection.

    Raises NATS_CONNECTION_FAILED, when it is closed, if some is left.
    """
    try:
        if nc._stream and not nc._busy:
            nc._stream.deadline = until(nc._options["timeout"])
            pump(nc, True)
            nc._stream.write(b"")
    except (OSError, NATSBridgeError):
        pass
    left = nc.pending
    nc.pending = 0
    nc.close()
    if left:
        raise fail(NATS_CONNECTION_FAILED, "unsent", left)
