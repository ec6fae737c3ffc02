"""What streams keep: publishing that is acknowledged, and requests to JetStream.

A stream takes a message with the same Nats-Msg-Id once within its deduplication window (2 minutes,
unless it was told otherwise), so that publishing again is safe.
"""

import json
import time

from micropython import const

from .errors import NATS_CONNECTION_FAILED, NATSBridgeError, fail
from .log import uuid4
from .stream import passed, until

STREAM_FAILED = "STREAM_FAILED"  # a stream, or its consumer, is not there, or refuses

_ANSWER = const(5)  # s without an answer after which a message is published again
_NOBODY = const(8)  # times that no stream may answer: one that starts just now takes a moment
_LOOK = const(250)  # ms after which to look whether the server that was asked is still there
_PAUSE = const(250)  # ms before a message is published again


def publish(nc, subject, payload, msg_id, deadline):
    """Publish `payload` (see Connection.publish) with this Nats-Msg-Id, and wait until a stream has
    it: the stream's name. deadline: ticks_ms.

    Raises STREAM_FAILED if no stream takes the subject, or the stream refuses it;
    NATS_CONNECTION_FAILED when it is not known whether it is stored.
    """
    headers = {"Nats-Msg-Id": msg_id}
    left = _NOBODY
    while True:
        error = why = None
        try:
            msg = request(nc, subject, payload, deadline, headers)
            if msg:
                left -= 1
                key = "stream"
                why = subject
                if len(msg):  # else nobody listens
                    answer = json.loads(msg.data)
                    if "error" not in answer:
                        return answer.get("stream")
                    answer = answer["error"]
                    key = "store"
                    why = answer.get("description")
                    # It is not available yet, or has no leader (server/errors.json).
                    if answer.get("err_code") not in (10008, 10009):
                        left = 0
        except NATSBridgeError as e:
            again = nc._options["reconnect"] and "memory" not in e.details
            if e.code != NATS_CONNECTION_FAILED or not again:
                raise
            error = e
        if passed(deadline) or not left:
            if why:
                error = fail(STREAM_FAILED, key, subject, why)
            raise error or fail(NATS_CONNECTION_FAILED, "silent", subject)
        wait(nc)


def wait(nc):
    """Wait before the server is asked again."""
    end = until(_PAUSE / 1000)
    while not passed(end):
        nc.serve()
        time.sleep_ms(20)


def ask(nc, name, text):
    """What JetStream answers.

    Raises STREAM_FAILED with what it says, NATS_CONNECTION_FAILED.
    """
    msg = request(nc, "$JS.API.CONSUMER." + name, text, None, None)
    if not msg:
        raise fail(NATS_CONNECTION_FAILED, "mute", nc.url)
    if not len(msg):
        raise fail(STREAM_FAILED, "off", nc.url)
    answer = json.loads(msg.data)
    if "error" in answer:
        raise fail(STREAM_FAILED, "refused", nc.url, answer["error"].get("description"))
    return answer


def request(nc, subject, payload, deadline, headers):
    """Publish, and return the answer, or None: within 5 s, or until `deadline`."""
    end = until(_ANSWER)
    if deadline is not None and time.ticks_diff(deadline, end) < 0:
        end = deadline
    sub = nc._options["inbox"] = listen(nc, nc._options.get("inbox"))
    try:
        while True:  # again where the connection was lost, and the answer with it
            nc.publish(subject, payload, sub.reply, headers)
            moved(sub)
            msg = answer(sub, end)
            if msg or passed(end):
                return msg
    finally:
        close(sub)


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


def listen(nc, sub):
    """Have answers come, by `sub`, or by another subscription where its server is not ours any
    more. Its `reply` is the subject for the next one.

    The server keeps it; here nobody knows it before this and after `close`: what comes late is
    dropped, and next() of the connection does not give it.
    """
    if not sub or moved(sub):
        sub = nc.subscribe("_INBOX." + uuid4() + ".*")
        sub.at = 0
        moved(sub)
    nc._subs[sub._sid] = sub
    sub.at += 1
    sub.reply = sub.subject[:-1] + str(sub.at)
    return sub


def moved(sub):
    """Whether the connection is another one than the last time."""
    before = getattr(sub, "on", None)
    sub.on = sub._nc._stream
    return before is not sub.on or not before


def close(sub):
    """See listen."""
    moved(sub)  # what it has moved to has it
    sub._nc._subs.pop(sub._sid, None)
