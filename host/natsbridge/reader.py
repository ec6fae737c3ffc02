"""Reading an envelope: everything a message says is checked before it is used.

`read_envelope` checks the message and its own fields; `check_payload` one payload's, so that a
payload's fault can still be reported to the sender whom the fields name.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from natsbridge import jsontext
from natsbridge.arguments import MAX_FIELD
from natsbridge.envelope import MAX_METADATA, MAX_PAYLOADS, STRING_KEYS
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INTEGRITY_ERROR,
    INVALID_ENVELOPE,
    INVALID_PAYLOAD_TYPE,
    INVALID_TRANSPORT,
    NATSBridgeError,
)
from natsbridge.payload import TYPES

__all__ = [
    "Envelope",
    "Payload",
    "check_payload",
    "decode_base64",
    "decode_direct",
    "read_envelope",
]

#: The largest integer that every JSON implementation keeps exactly.
MAX_SIZE = 1 << 53

_PAYLOAD_STRINGS = ("id", "dataname", "payload_type", "transport", "encoding")
_PAYLOAD_REQUIRED = ("dataname", "payload_type", "transport", "data")
_PAYLOAD_KEYS = frozenset((*_PAYLOAD_STRINGS, "size", "data", "metadata"))
_ENVELOPE_KEYS = frozenset((*STRING_KEYS, "metadata", "payloads", "error"))
_METADATA_KEYS = frozenset(("sha256", "removable"))
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_ERROR_KEYS = frozenset(("code", "message", "details"))


@dataclass(frozen=True)
class Envelope:
    """A checked envelope with its payloads still as they came.

    Attributes:
        fields: every string field ("" where missing) and `metadata`; `error` where there is one.
        payloads: the raw payload objects.
        size: bytes of the message.
    """

    fields: dict[str, Any]
    payloads: list[Any]
    size: int


@dataclass(frozen=True)
class Payload:
    """One checked payload. `size` is None where the sender gave none."""

    dataname: str
    payload_type: str
    transport: str
    encoding: str
    size: int | None
    data: Any
    metadata: dict[str, Any]


def _invalid(why: str) -> NATSBridgeError:
    return NATSBridgeError(INVALID_ENVELOPE, f"the message is no envelope: {why}")


def _check_keys(value: jsontext.Object, known: frozenset[str], where: str) -> None:
    repeated = sorted(known & value.repeated)
    if repeated:
        raise _invalid(f"{where} has the key {repeated[0]!r} twice")


def _string(value: object, what: str) -> str:
    if value is None:  # null is absence (PROTOCOL.md)
        return ""
    if not isinstance(value, str):
        raise _invalid(f"{what} must be a string, not {type(value).__name__}")
    if len(value.encode()) > MAX_FIELD:
        raise _invalid(f"{what} is longer than {MAX_FIELD} bytes")
    return value


def _metadata(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(f"{where} must be an object, not {type(value).__name__}")
    try:
        size = len(jsontext.dumps(value).encode())
    except ValueError as e:
        raise _invalid(f"{where}: {e}") from None
    if size > MAX_METADATA:
        raise _invalid(f"{where} has {size} bytes, more than {MAX_METADATA}")
    result: dict[str, Any] = jsontext.plain(value)
    return result


def _payload_metadata(value: object, where: str) -> dict[str, Any]:
    """Check also what a receiver acts on: `sha256` and `removable`."""
    metadata = _metadata(value, where)
    if isinstance(value, jsontext.Object):
        _check_keys(value, _METADATA_KEYS, where)
    digest, removable = metadata.get("sha256"), metadata.get("removable")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise _invalid(f"sha256 in {where} is not 64 hexadecimal digits")
    if removable is not None and not isinstance(removable, bool):
        raise _invalid(f"removable in {where} is neither true nor false")
    return metadata


def read_envelope(data: bytes) -> Envelope:
    """Parse a message and check its own fields.

    Raises:
        NATSBridgeError: `INVALID_ENVELOPE`.
    """
    try:
        env = jsontext.loads(data, finite=False)
    except ValueError as e:
        raise _invalid(f"it is not JSON ({e})") from None
    if not isinstance(env, jsontext.Object):
        raise _invalid(f"it is a JSON {type(env).__name__}, not an object")
    _check_keys(env, _ENVELOPE_KEYS, "it")
    fields: dict[str, Any] = {key: _string(env.get(key), key) for key in STRING_KEYS}
    fields["metadata"] = _metadata(env.get("metadata"), "metadata")
    payloads = env.get("payloads")
    if env.get("error") is not None:
        fields["error"] = _error(env["error"])
        if payloads not in (None, []):
            raise _invalid("it has an error and payloads as well")
        return Envelope(fields, [], len(data))
    if not isinstance(payloads, list):
        raise _invalid("payloads is missing" if payloads is None else "payloads must be a list")
    if len(payloads) > MAX_PAYLOADS:
        raise _invalid(f"it has {len(payloads)} payloads, more than {MAX_PAYLOADS}")
    return Envelope(fields, payloads, len(data))


def _error(error: object) -> dict[str, Any]:
    if not isinstance(error, jsontext.Object):
        raise _invalid(f"error must be an object, not {type(error).__name__}")
    _check_keys(error, _ERROR_KEYS, "error")
    if not error.get("code"):
        raise _invalid("error has no code")
    return {
        "code": _string(error.get("code"), "error.code"),
        "message": _string(error.get("message"), "error.message"),
        "details": _metadata(error.get("details"), "error.details"),
    }


def check_payload(raw: Any, index: int) -> Payload:
    """Check everything about a payload but its data.

    Args:
        raw: an element of `Envelope.payloads`.
        index: its place, for messages.

    Raises:
        NATSBridgeError: `INVALID_ENVELOPE`, `INVALID_PAYLOAD_TYPE`, `INVALID_TRANSPORT`.
    """
    where = f"payload {index}"
    if not isinstance(raw, jsontext.Object):
        raise _invalid(f"{where} must be an object, not {type(raw).__name__}")
    _check_keys(raw, _PAYLOAD_KEYS, where)
    for key in _PAYLOAD_REQUIRED:
        # A dictionary's value may be null; in the other keys null is absence.
        if key not in raw or (raw[key] is None and key != "data"):
            raise _invalid(f"{where} has no {key}")
    text = {key: _string(raw.get(key), f"{key} of {where}") for key in _PAYLOAD_STRINGS}
    metadata = _payload_metadata(raw.get("metadata"), f"metadata of {where}")
    payload_type, transport = text["payload_type"], text["transport"]
    details = {"dataname": text["dataname"]}
    if payload_type not in TYPES:
        raise NATSBridgeError(
            INVALID_PAYLOAD_TYPE,
            f"{text['dataname']!r} has the unknown type {payload_type!r}: does the sender use a"
            " newer version?",
            details,
        )
    if transport not in ("direct", "link"):
        raise NATSBridgeError(
            INVALID_TRANSPORT,
            f"{text['dataname']!r} has the unknown transport {transport!r}, neither direct nor"
            " link",
            details,
        )
    encoding = text["encoding"] or ("base64" if transport == "direct" else "none")
    _check_encoding(encoding, transport, payload_type, where)
    size = _size(raw, where)
    data = raw["data"]
    if encoding != "json" and not isinstance(data, str):
        raise _invalid(f"data of {where} must be a string, not {type(data).__name__}")
    if transport == "link":
        _string(data, f"data of {where}")
    return Payload(text["dataname"], payload_type, transport, encoding, size, data, metadata)


def _check_encoding(encoding: str, transport: str, payload_type: str, where: str) -> None:
    allowed = {
        "none": transport == "link",
        "base64": transport == "direct",
        "arrow-ipc": transport == "direct" and payload_type == "arrowtable",
        "json": transport == "direct" and payload_type in ("text", "dictionary", "jsontable"),
    }
    if not allowed.get(encoding, False):
        raise _invalid(
            f"{where} has the encoding {encoding!r}, which no {transport} {payload_type} has"
        )


def _size(raw: dict[str, Any], where: str) -> int | None:
    size = raw.get("size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
        raise _invalid(f"size of {where} must be an integer from 0 to {MAX_SIZE}")
    return size


def decode_base64(text: str) -> bytes:
    """Decode padded base64, strictly (bits beyond the last byte may be anything).

    Raises:
        ValueError: for a wrong length, junk, or padding that is missing, excess or not last.
    """
    # b64decode(validate=True) takes "QUJD=" and "QUJD====": so the padding is looked at here.
    if len(text) % 4 or len(text) - len(text.rstrip("=")) > 2:
        raise ValueError("its length or padding is wrong")
    return base64.b64decode(text, validate=True)


def decode_direct(payload: Payload, message_size: int) -> tuple[bytes | None, Any]:
    """Decode a direct payload's data.

    Args:
        payload: checked by `check_payload`.
        message_size: bytes of the message that holds it.

    Returns:
        Its bytes and None, or, with encoding "json", None and the JSON value or text.

    Raises:
        NATSBridgeError: `DESERIALIZATION_ERROR`, `INTEGRITY_ERROR`, `INVALID_ENVELOPE`.
    """
    name, size = payload.dataname, payload.size
    if payload.encoding == "json":
        return None, _decode_json(payload)
    if size is not None and size > message_size:
        raise NATSBridgeError(
            INTEGRITY_ERROR,
            f"{name!r} claims {size} bytes in a message of {message_size}",
            {"dataname": name, "size": size},
        )
    try:
        data = decode_base64(payload.data)
    except (binascii.Error, ValueError) as e:
        raise NATSBridgeError(
            DESERIALIZATION_ERROR, f"the base64 of {name!r} is damaged: {e}", {"dataname": name}
        ) from None
    if size is not None and len(data) != size:
        raise NATSBridgeError(
            INTEGRITY_ERROR,
            f"{name!r} has {len(data)} bytes, and its envelope says {size}",
            {"dataname": name, "size": size, "received": len(data)},
        )
    return data, None


def _decode_json(payload: Payload) -> Any:
    name, value = payload.dataname, payload.data
    if payload.payload_type == "text":
        if not isinstance(value, str):
            raise _invalid(f"the text {name!r} must be a string, not {type(value).__name__}")
        text = value
    else:
        try:
            text = value if isinstance(value, str) else jsontext.dumps(value)
        except ValueError as e:
            raise _damaged(name, e) from None
    if payload.size is not None and len(text.encode()) > payload.size:
        raise NATSBridgeError(
            INTEGRITY_ERROR,
            f"{name!r} has more than the {payload.size} bytes that its envelope says",
            {"dataname": name, "size": payload.size},
        )
    if payload.payload_type == "text" or not isinstance(value, str):
        return value
    try:
        return jsontext.loads(value)
    except ValueError as e:
        raise _damaged(name, e) from None


def _damaged(name: str, e: ValueError) -> NATSBridgeError:
    return NATSBridgeError(
        DESERIALIZATION_ERROR, f"the JSON value of {name!r} is damaged: {e}", {"dataname": name}
    )
