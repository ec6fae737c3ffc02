"""What a connection is rarely asked for: request, unsubscribe, drain; and what was refused."""

import time

from .errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, PAYLOAD_TOO_LARGE, check, fail
from .stream import passed, until


def request(nc, subject, payload, timeout, headers):
    """See Connection.request."""
    from .log import uuid4

    deadline = until(timeout)
    before = nc.deadline
    nc._ready(deadline)
    nc.bound(deadline)
    try:
        with nc.subscribe("_INBOX." + uuid4()) as inbox:
            nc.publish(subject, payload, inbox.subject, headers)
            if deadline is not None:
                timeout = max(0, time.ticks_diff(deadline, time.ticks_ms())) / 1000
            msg = inbox.next(timeout)
    finally:
        nc.bound(before)
    if msg is not None and msg.status == 503:
        raise fail(NATS_CONNECTION_FAILED, "nobody", subject)
    return msg


def unsubscribe(sub, limit):
    """See Subscription.unsubscribe."""
    check("limit", limit)
    nc = sub._nc
    if sub._sid not in nc._subs:
        if not limit:
            sub._limit = -1
        return
    if limit > sub._got:
        sub._limit = limit
    else:
        del nc._subs[sub._sid]
    line = finish(nc, sub, limit > sub._got and limit)
    if not limit:
        sub._limit = -1
    # What is over the limit has come already: the last of those that wait.
    over = sub._got - limit
    for i in range(len(nc._queue) - 1, -1, -1):
        if nc._queue[i].sub is sub and over > 0:
            over -= 1
            nc._queued -= len(nc._queue[i]._data or b"") + 128
            nc._queue.pop(i).lost = True
    if nc._stream and not nc._busy:
        try:
            nc._stream.post(line)  # not bound by a deadline that may be over
        except OSError as e:
            nc._drop(e)  # a new connection is made without this subscription


def finish(nc, sub, limit=0):
    """What ends a subscription, at once or after `limit` messages in all."""
    if nc._options["mqtt"]:
        from .mqttgreet import line

        return b"" if limit else line(nc, sub, 0xA2)
    return ("UNSUB %d %d\r\n" % (sub._sid, limit) if limit else "UNSUB %d\r\n" % sub._sid).encode()


def drain(nc, sids, timeout):
    """See Connection.drain, and Subscription.drain (with no timeout: nothing is waited for)."""
    sids = [sid for sid in sids if sid in nc._subs]
    whole = timeout is not None
    if whole:
        deadline = until(timeout)
        nc._ready(deadline)
    if nc._stream is None:
        for sid in sids:  # nothing can come any more
            del nc._subs[sid]
        return
    if not sids and not whole:
        return
    try:
        lines = b"".join([finish(nc, nc._subs[sid]) for sid in sids])
        nc._stream.write(lines + nc._stream.reader.poll)
        nc._pings += 1
        for sid in sids:
            nc._draining.append([nc._pings, sid])
        if whole:
            nc._draining.append([0, 0])
        # What does not fit the queue is left on the socket, for next().
        while whole and nc._pings and not nc._unread and nc._queued < 4096:
            msg = nc._take()
            if msg:
                msg.keep()
            elif not nc._pings:
                break
            if passed(deadline) or (msg is None and not nc._wait(deadline)):
                raise OSError("no PONG within %s s" % timeout)
        if whole and not nc._pings:
            nc._dirty = False
    except (OSError, ValueError) as e:
        nc._fail(e, "drain")
    if whole and nc._error:
        flush(nc)


def flush(nc):
    """Raise what was refused or lost since the last flush."""
    why = nc._error
    nc._error = ""
    raise fail(NATS_CONNECTION_FAILED, "unsure" if why == nc._why else "refused", why)


def end(nc, sub):
    """Whether nothing more can come of `sub`, or of any. Raises what it has to tell first."""
    for i in range(len(nc._trouble)):
        s = nc._trouble[i]
        if sub is None or s is sub:
            nc._trouble.pop(i)
            n = s._dropped
            if n:
                s._dropped = 0
                raise fail(PAYLOAD_TOO_LARGE, "dropped", n, s.subject, 8192, dropped=n)
            nc._subs.pop(s._sid, None)
            s._limit = -1
            raise fail(NATS_CONNECTION_FAILED, "refused", s._error)
    if sub and sub._limit < 0:
        raise fail(INVALID_ARGUMENT, "unsubbed", sub.subject)
    return sub._sid not in nc._subs if sub else not nc._subs
