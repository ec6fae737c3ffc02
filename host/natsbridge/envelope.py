"""The envelope: what a message says about itself and its payloads (walkthrough, "Step 6").

An *env* is the dict that callers see: its payloads hold the objects to send (direct) or URLs
(link). Its *wire form* holds base64 instead of objects. The wire form's size is computed before
anything is encoded, so that a message too large for the broker is never built (DESIGN,
"Transport selection that cannot fail at the broker").
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

import pybase64

from natsbridge import jsontext
from natsbridge.arguments import check_field, surely_fields
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError, new_uuid, utc_timestamp
from natsbridge.payload import make_source
from natsbridge.source import Source, is_stream

__all__ = [
    "MAX_METADATA",
    "MAX_PAYLOADS",
    "STRING_KEYS",
    "base64_size",
    "build_envelope",
    "build_payload",
    "check_metadata",
    "envelope_to_json",
    "fill",
    "frame",
    "frame_size",
]

#: Payloads in one message: a device keeps a line of notes on each.
MAX_PAYLOADS = 64
#: Bytes of a metadata object's JSON text.
MAX_METADATA = 4096
#: What `frame_size` allows for a URL that is not known yet.
URL_ESTIMATE = 512

#: The string fields, in the order senders write them. `metadata` and `payloads` follow.
STRING_KEYS = (
    "correlation_id",
    "msg_id",
    "timestamp",
    "send_to",
    "msg_purpose",
    "sender_name",
    "sender_id",
    "receiver_name",
    "receiver_id",
    "reply_to",
    "reply_to_msg_id",
    "broker_url",
)
#: The JSON text of an env up to its payloads, and of a direct payload around its base64.
_ENV = "{" + "".join(f'"{key}":%s,' for key in STRING_KEYS) + '"metadata":%s,"payloads":['
_DIRECT = (
    '{"id":%s,"dataname":%s,"payload_type":%s,"transport":%s,"encoding":%s,"size":%d,"data":"',
    '","metadata":{"payload_bytes":%d}}',
)
_DIRECT_STRINGS = ("id", "dataname", "payload_type", "transport", "encoding")


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is no JSON object of at most `MAX_METADATA` bytes.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`.
    """
    if not isinstance(metadata, dict):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"metadata must be a dict, not {type(metadata).__name__}"
        )
    if not metadata:
        return
    try:
        jsontext.check(metadata, jsontext.MAX_DEPTH - 1)  # the envelope is the first level
    except ValueError as e:
        raise NATSBridgeError(INVALID_ARGUMENT, f"metadata is not JSON: {e}") from None
    size = len(jsontext.dumps(metadata).encode())
    if size > MAX_METADATA:
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"metadata has {size} bytes of JSON, more than the {MAX_METADATA} allowed:"
            " send it as a payload",
        )


def build_envelope(fields: Mapping[str, str], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return an env without payloads; `timestamp` is now, the ids default to new UUIDs.

    Args:
        fields: every key of `STRING_KEYS` but `timestamp`.
        metadata: a checked JSON object.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` for a field that is no str or too long.
    """
    if not surely_fields(fields.values()):
        for key, value in fields.items():
            check_field(value, key)
    env: dict[str, Any] = dict.fromkeys(STRING_KEYS)
    env.update(fields)
    env["correlation_id"] = fields["correlation_id"] or new_uuid()
    env["msg_id"] = fields["msg_id"] or new_uuid()
    env["timestamp"] = utc_timestamp()
    env["metadata"] = metadata
    env["payloads"] = []
    return env


def build_payload(
    dataname: str, payload_type: str, transport: str, data: Any, size: int, metadata: dict[str, Any]
) -> dict[str, Any]:
    """Return one payload of an env.

    Args:
        dataname: its name.
        payload_type: one of `payload.TYPES`.
        transport: "direct" or "link".
        data: the object to send, or the URL.
        size: serialized bytes before base64.
        metadata: beside `payload_bytes`, which is added.
    """
    return {
        "id": new_uuid(),
        "dataname": dataname,
        "payload_type": payload_type,
        "transport": transport,
        "encoding": "base64" if transport == "direct" else "none",
        "size": size,
        "data": data,
        "metadata": {"payload_bytes": size, **metadata},
    }


def base64_size(size: int) -> int:
    """Return the characters that `size` bytes take as padded base64."""
    return (size + 2) // 3 * 4


def frame(env: Mapping[str, Any]) -> list[str]:
    """Return an env's JSON text, in the pieces between which its direct payloads' base64 belongs.

    So the base64, which may be most of the text, passes no JSON encoder.

    Args:
        env: with every key that `build_envelope` and `build_payload` give, in their order.
    """
    strings = map(encode_basestring, [env[key] for key in STRING_KEYS])
    text = _ENV % (*strings, jsontext.dumps(env["metadata"]) if env["metadata"] else "{}")
    pieces = []
    comma = ""
    for payload in env["payloads"]:
        if payload["transport"] == "direct":
            strings = map(encode_basestring, [payload[key] for key in _DIRECT_STRINGS])
            pieces.append(text + comma + _DIRECT[0] % (*strings, payload["size"]))
            text = _DIRECT[1] % payload["size"]
        else:
            text += comma + jsontext.dumps(payload)
        comma = ","
    pieces.append(text + "]}")
    return pieces


def frame_size(env: Mapping[str, Any], pieces: Sequence[str]) -> int:
    """Return the bytes of an env's `frame`, which is the message without any base64.

    A link whose data is None is taken to have a URL of `URL_ESTIMATE` bytes.
    """
    size = sum([len(piece) if piece.isascii() else len(piece.encode()) for piece in pieces])
    for payload in env["payloads"]:
        if payload["transport"] == "link" and payload["data"] is None:
            size += URL_ESTIMATE + len('""') - len("null")
    return size


def fill(pieces: Sequence[str], direct: Sequence[bytes | memoryview]) -> str:
    """Return the JSON text of a `frame` and the bytes of its direct payloads."""
    text = [pieces[0]]
    for data, piece in zip(direct, pieces[1:], strict=True):
        text += (pybase64.b64encode_as_string(data), piece)
    return "".join(text)


async def envelope_to_json(env: dict[str, Any]) -> str:
    """Return the JSON text of an env as `smartsend` returned it (or of an error response).

    The objects of direct payloads are serialized again; streams are rewound to where they were.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` for what is no such env, or a source that cannot be
            read again; `INVALID_PAYLOAD_TYPE` for a value that does not match its type.
    """
    if not isinstance(env, dict):
        raise NATSBridgeError(INVALID_ARGUMENT, f"env must be a dict, not {type(env).__name__}")
    if "error" in env and "payloads" not in env:
        try:
            jsontext.check(env)
        except ValueError as e:
            raise NATSBridgeError(INVALID_ARGUMENT, f"the error response is not JSON: {e}") from e
        return jsontext.dumps(env)
    payloads = env.get("payloads")
    if not isinstance(payloads, list) or not all(isinstance(p, dict) for p in payloads):
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            'env["payloads"] must be a list of dicts as smartsend returns it'
            " (smartreceive returns tuples, which cannot be sent)",
        )
    direct = [await asyncio.to_thread(_direct_bytes, payload) for payload in payloads]
    try:
        jsontext.check(
            {
                **env,
                "payloads": [
                    p if data is None else {**p, "data": ""}
                    for p, data in zip(payloads, direct, strict=True)
                ],
            }
        )
    except ValueError as e:
        raise NATSBridgeError(INVALID_ARGUMENT, f"the env is not JSON: {e}") from e
    wire = [
        payload if data is None else {**payload, "data": pybase64.b64encode_as_string(data)}
        for payload, data in zip(payloads, direct, strict=True)
    ]
    return jsontext.dumps({**env, "payloads": wire})


def _direct_bytes(payload: dict[str, Any]) -> bytes | memoryview | None:
    if payload.get("transport") == "link":
        return None
    name = str(payload.get("dataname", ""))
    value: Any = payload.get("data")
    size = payload.get("size")
    if is_stream(value) and isinstance(size, int):
        try:
            value.seek(value.seek(0, io.SEEK_END) - size)
        except (AttributeError, OSError, ValueError):
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"the stream of {name!r} cannot be read again: it cannot seek"
            ) from None
    source: Source = make_source(name, value, str(payload.get("payload_type", "")))
    try:
        data = source.read_all()
    finally:
        source.close()
    if isinstance(size, int) and len(data) != size:
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"the source of {name!r} now has {len(data)} bytes, and had {size} when it was sent",
        )
    return data
