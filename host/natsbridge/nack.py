"""Telling a sender that its message could not be received (DESIGN, "Errors").

A message says itself where answers go. So that nobody can make this peer publish where it should
not, or start two peers answering each other for ever, a NACK goes only where the rules below
allow, is small, and at most one a second leaves a connection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from nats.aio.client import Client

from natsbridge.client import Connection
from natsbridge.errors import INVALID_ENVELOPE, NATSBridgeError
from natsbridge.jsontext import dumps
from natsbridge.log import trace
from natsbridge.subjects import is_subject, matches

__all__ = ["report"]

#: Bytes of a NACK.
MAX_NACK = 1024
#: Seconds between two NACKs of one connection.
INTERVAL_S = 1.0

#: When each connection last sent one (`time.monotonic`).
_last: WeakKeyDictionary[Client, float] = WeakKeyDictionary()


def _forbidden(
    me: Connection,
    reply: str,
    fields: Mapping[str, Any],
    error: NATSBridgeError,
    nack_subjects: Sequence[str],
) -> str:
    """Return why no NACK may be sent, or ""."""
    target = fields["reply_to"]
    if not target:
        return "the message has no reply_to"
    if error.code == INVALID_ENVELOPE or "error" in fields or fields["msg_purpose"] == "NACK":
        return "a NACK or an invalid envelope is not answered"
    if not is_subject(target) or target.startswith("$"):
        return f"{target!r} is no subject to answer to"
    if target != reply and not any(matches(pattern, target) for pattern in nack_subjects):
        return f"{target!r} is neither the NATS reply subject nor in nack_subjects"
    if any(matches(subject, target) for subject in me.subjects()):
        return f"{target!r} is a subject of our own"
    if time.monotonic() - _last.get(me.client, -INTERVAL_S) < INTERVAL_S:
        return f"one was sent less than {INTERVAL_S:g} s ago"
    return ""


def _text(fields: Mapping[str, Any], error: NATSBridgeError) -> str:
    """Return the error response, cut down to `MAX_NACK` bytes."""
    response = error.to_dict(send_to=fields["reply_to"])
    body = response["error"]
    text = dumps(response)
    if len(text.encode()) > MAX_NACK:
        body["details"] = {}
    while (excess := len((text := dumps(response)).encode()) - MAX_NACK) > 0 and body["message"]:
        body["message"] = body["message"][: -max(1, excess // 4)]
    return text


async def report(
    me: Connection,
    reply: str,
    fields: Mapping[str, Any],
    error: NATSBridgeError,
    nack_subjects: Sequence[str],
) -> None:
    """Publish `error` to the message's `reply_to`, where that is allowed; never raises.

    Args:
        me: the connection to publish on.
        reply: the message's own NATS reply subject.
        fields: the envelope's.
        error: what went wrong.
        nack_subjects: patterns of further subjects that may be told.
    """
    correlation_id = fields["correlation_id"]
    why = _forbidden(me, reply, fields, error, nack_subjects)
    text = "" if why else _text(fields, error)
    if len(text.encode()) > MAX_NACK:
        why = "the message's own fields are too long for it"
    if why:
        trace(correlation_id, f"No NACK: {why}")
        return
    _last[me.client] = time.monotonic()
    try:
        await me.publish(fields["reply_to"], text)
    except NATSBridgeError as e:
        trace(correlation_id, f"No NACK: {e}")
    else:
        trace(correlation_id, f"NACK {error.code} to {fields['reply_to']}")
