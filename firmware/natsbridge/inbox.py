"""Inboxes: a durable consumer is made, gives its messages one by one, has them acknowledged."""

import time

from micropython import const

from .errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    NATSBridgeError,
    check,
    fail,
)
from .jetstream import STREAM_FAILED, ask, close, listen, moved, request, wait
from .payload import check_subject
from .stream import passed, until

_LONG = const(60)  # s for which a server is asked to wait, where nobody bounds it
_LOOK = const(1000)  # ms after which to look whether the server that was asked is still there
_ANSWER = const(5000)  # ms for an answer, once it is due


def inbox(nc, stream, name, subject, ack_wait):
    """See Connection.inbox."""
    for word in (stream, name):
        check_subject(word)
        if "." in word:
            raise fail(INVALID_ARGUMENT, "subject", word)
    if subject:
        check_subject(subject, True)
    check("ack_wait", ack_wait, 1)
    where = stream + "." + name
    text = (
        '{"stream_name":"%s","config":{"durable_name":"%s","ack_policy":"explicit",'
        '"ack_wait":%d000000000,"filter_subject":"%s"},"action":"create"}'
    ) % (stream, name, ack_wait, subject)
    ask(nc, "DURABLE.CREATE." + where, text)
    from .stored import Inbox, StoredMsg

    nc._msg = StoredMsg
    box = Inbox()
    box._nc = nc
    box._name = where
    box._wait = ack_wait
    return box


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


def answer(sub, end):
    """The next message, or what the server says instead; None after `end`, or when it has to be
    asked again, because it is another one."""
    while True:
        left = time.ticks_diff(end, time.ticks_ms())
        try:
            msg = sub.next(max(0, min(left, _LOOK)) / 1000)
        except NATSBridgeError as e:
            if e.code != NATS_CONNECTION_FAILED or left <= _LOOK:
                raise
            msg = None
        if msg and (msg.reply or (msg.subject == sub.reply and msg.status != 100)):
            return msg
        if left <= 0 or moved(sub):
            return None


def ack(msg, timeout):
    """See StoredMsg.ack."""
    answer = request(msg.connection, msg.reply, b"+ACK", until(timeout), None)
    if not answer or answer.head:  # nobody listens
        raise fail(NATS_CONNECTION_FAILED, "unconfirmed", msg.subject)
