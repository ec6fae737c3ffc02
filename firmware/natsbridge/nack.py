"""Error responses to those who asked for an answer."""

import json
import time

from micropython import const

from .errors import INVALID_ENVELOPE, NATSBridgeError
from .log import timestamp, trace, uuid4
from .payload import check_subject, is_subject

_MAX_SIZE = const(1024)  # bytes of an error response
_INTERVAL = const(1000)  # ms between two of them
_last = None


def response(error, send_to):
    """The error response for `error`, to be sent to the subject `send_to`."""
    return {
        "correlation_id": error.details.get("correlation_id", ""),
        "msg_id": uuid4(),
        "timestamp": timestamp(),
        "send_to": send_to,
        "error": {"code": error.code, "message": error.message, "details": error.details},
    }


def matches(pattern, subject):
    """Whether a subscription to `pattern` receives what is published to `subject`."""
    words = subject.split(".")
    wanted = pattern.split(".")
    for i in range(len(wanted)):
        if wanted[i] == ">":
            return i < len(words)
        if i >= len(words) or wanted[i] not in ("*", words[i]):
            return False
    return len(words) == len(wanted)


def check(subjects):
    """Raise INVALID_ARGUMENT unless they are what smartreceive takes for nack_subjects."""
    for subject in subjects if isinstance(subjects, (list, tuple)) else (None,):
        check_subject(subject, True)


def answer(nc, msg, env, error, nack_subjects):
    """Publish `error` to the message's reply_to, where that can do no harm: it is the message's own
    NATS reply subject or matches `nack_subjects`, no system subject and none that we receive; never
    for an error response or an invalid envelope; at most one a second."""
    global _last
    subject = env.get("reply_to", "")
    if (
        not is_subject(subject)
        or (subject != msg.reply and not any(matches(p, subject) for p in nack_subjects))
        or subject[:1] == "$"
        or error.code == INVALID_ENVELOPE
        or "error" in env
        or env.get("msg_purpose") == "NACK"
        or any(matches(sub.subject, subject) for sub in nc._subs.values())
        or (_last is not None and time.ticks_diff(time.ticks_ms(), _last) < _INTERVAL)
    ):
        return
    nack = response(error, subject)
    text = json.dumps(nack).encode()
    if len(text) > _MAX_SIZE:
        nack["error"] = {"code": error.code, "message": error.message[:200], "details": {}}
        text = json.dumps(nack).encode()
    if len(text) > _MAX_SIZE:
        return  # for the message's own fields
    _last = time.ticks_ms()
    try:
        nc.publish(subject, text)
    except NATSBridgeError as e:
        trace(error.details["correlation_id"], "The error response was not sent: %s" % e)
