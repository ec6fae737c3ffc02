"""Inboxes: a durable consumer gives its messages one by one, and has them acknowledged."""

import time

from micropython import const

from .errors import NATS_CONNECTION_FAILED, fail, make_room
from .jetstream import STREAM_FAILED, answer, ask, close, listen, moved, request, wait
from .stream import passed, until

_LONG = const(60)  # s for which a server is asked to wait, where nobody bounds it
_ANSWER = const(5000)  # ms for an answer, once it is due


def inbox(nc, *words):
    """See Connection.inbox."""
    make_room(8192, "inbox", "jetstream")
    from .opening import inbox

    return inbox(nc, *words)


def take(inbox, deadline):
    """The next message, or None when none has come until `deadline` (None: 60 s)."""
    nc = inbox._nc
    subject = "$JS.API.CONSUMER.MSG.NEXT." + inbox._name
    if deadline is None:
        deadline = until(_LONG)
    try:
        while True:
            sub = inbox._sub = listen(nc, inbox._sub)
            sub.inbox = inbox
            left = time.ticks_diff(deadline, time.ticks_ms())
            order = '{"batch":1,"expires":%d000000}' % left
            if left <= 0:
                order = '{"batch":1,"no_wait":true}'
                left = 0
            nc.publish(subject, order, sub.reply)
            moved(sub)
            msg = answer(sub, time.ticks_add(time.ticks_ms(), left + _ANSWER))
            status = 503
            if msg:
                if msg.reply:  # what the server says has none
                    return msg
                status = msg.status
                if status == 503 or (status == 409 and "eleted" not in msg.description):
                    wait(nc)  # there is no leader just now
                elif status not in (0, 404, 408):  # 0: the heap had no room for its headers
                    raise fail(STREAM_FAILED, "refused", nc.url, msg.description)
            if not left or passed(deadline):
                if status == 503:  # or there is no consumer
                    ask(nc, "INFO." + inbox._name, "")
                return None
    finally:
        if inbox._sub:
            close(inbox._sub)


def ack(msg, timeout):
    """See StoredMsg.ack."""
    nc = msg.connection
    answer = request(nc, msg.reply, b"+ACK", until(timeout), None)
    if answer and answer.head:  # nobody listens
        answer = None
        if hasattr(msg.sub, "inbox"):  # else it came in another way
            ask(nc, "INFO." + msg.sub.inbox._name, "")
    if not answer:
        raise fail(NATS_CONNECTION_FAILED, "unconfirmed", msg.subject)
