"""Which NATS subjects may go on the wire.

A server that is not pedantic lets `PUB a..b` vanish silently and delivers `PUB a.*` (FACTS,
"NATS"), and a line break in a subject would start a new command: so every subject is checked
here. Subjects are otherwise used as given: `/chat/user/v1/message` is one legal token.
"""

from __future__ import annotations

import re

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = ["MAX_SUBJECT", "check_queue", "check_subject", "is_subject", "matches"]

#: UTF-8 bytes. The server's control line is 4,096 bytes by default and has to hold the
#: subject, the reply subject, an id and a size.
MAX_SUBJECT = 1024

#: White space is whatever `str.isspace` takes for it.
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")


def _fault(subject: object, wildcards: bool) -> str:
    """Return what is wrong with `subject`, or ""."""
    if not isinstance(subject, str):
        return f"must be a str, not {type(subject).__name__}"
    if not subject:
        return "is empty"
    if _BLANK.search(subject):
        return "contains white space or a control character"
    try:
        if len(subject.encode()) > MAX_SUBJECT:
            return f"is longer than {MAX_SUBJECT} bytes"
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    tokens = subject.split(".")
    if "" in tokens:
        return "has an empty token (a dot at an end, or two in a row)"
    if not wildcards and ("*" in tokens or ">" in tokens):
        return "has a wildcard token, and messages go to exact subjects"
    if ">" in tokens[:-1]:
        return 'has ">" before its end'
    return ""


def check_subject(subject: object, wildcards: bool = False) -> None:
    """Refuse an invalid subject.

    Args:
        subject: the subject.
        wildcards: whether the tokens `*` and (last) `>` are legal, as in a subscription.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, saying what is wrong with it.
    """
    fault = _fault(subject, wildcards)
    if fault:
        shown = ascii(subject)[:80]
        raise NATSBridgeError(INVALID_ARGUMENT, f"the subject {shown} {fault}")


def is_subject(subject: object) -> bool:
    """Tell whether a message can be published to `subject`."""
    return not _fault(subject, False)


def check_queue(queue: object) -> None:
    """Refuse an invalid queue group name ("" is no group) with `INVALID_ARGUMENT`."""
    if queue != "" and _fault(queue, True):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"the queue group {ascii(queue)[:80]} {_fault(queue, True)}"
        )


def matches(pattern: str, subject: str) -> bool:
    """Tell whether `subject` is one that a subscription to `pattern` receives."""
    wanted = pattern.split(".")
    tokens = subject.split(".")
    for i, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > i
        if i >= len(tokens) or (token != "*" and token != tokens[i]):
            return False
    return len(tokens) == len(wanted)
