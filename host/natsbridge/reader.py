"""Reading an envelope: everything a message says is checked before it is used.

`read_envelope` checks the message and its own fields; `check_payload` one payload's, so that a
payload's fault can still be reported to the sender whom the fields name.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pybase64

from natsbridge import jsontext
from natsbridge.arguments import MAX_FIELD, surely_fields
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
    "Cut",
    "Envelope",
    "Payload",
    "check_payload",
    "cut",
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
_ENCODINGS = frozenset(
    (
        *(("none", "link", kind) for kind in TYPES),
        *(("base64", "direct", kind) for kind in TYPES),
        *(("json", "direct", kind) for kind in ("text", "dictionary", "jsontable")),
        ("arrow-ipc", "direct", "arrowtable"),
    )
)
#: Encodings of a direct payload that is base64.
_BASE64 = (None, "", "base64", "arrow-ipc")
_METADATA_KEYS = frozenset(("sha256", "removable"))
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_ERROR_KEYS = frozenset(("code", "message", "details"))

#: What stands before a payload's data. In JSON a string begins with the last quotation mark of it,
#: whatever the first one is: an escaped one, even, makes it the end of another key.
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*"')
#: Bytes from which on base64 is cut out: fewer pass the JSON parser as fast.
_LONG = 2048


class Envelope(NamedTuple):
    """A checked envelope with its payloads still as they came.

    Attributes:
        fields: every string field ("" where missing) and `metadata`; `error` where there is one.
        payloads: the raw payload objects.
        size: bytes of the message.
    """

    fields: dict[str, Any]
    payloads: list[Any]
    size: int


class Payload(NamedTuple):
    """One checked payload. `size` is None where the sender gave none.

    Its data is as it came, or bytes where base64 was decoded already.
    """

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
    if value.repeated and (repeated := sorted(known & value.repeated)):
        raise _invalid(f"{where} has the key {repeated[0]!r} twice")


def _string(value: object, what: str) -> str:
    if value is None:  # null is absence (PROTOCOL.md)
        return ""
    if not isinstance(value, str):
        raise _invalid(f"{what} must be a string, not {type(value).__name__}")
    if len(value.encode()) > MAX_FIELD:
        raise _invalid(f"{what} is longer than {MAX_FIELD} bytes")
    return value


def _strings(source: dict[str, Any], keys: tuple[str, ...], where: str = "") -> dict[str, Any]:
    values = [source.get(key) for key in keys]
    if not surely_fields(values):
        values = [_string(v, key + where) for key, v in zip(keys, values, strict=True)]
    return dict(zip(keys, values, strict=True))


def _metadata(value: object, where: str) -> dict[str, Any]:
    if value is None or value == {}:
        return {}
    if not isinstance(value, dict):
        raise _invalid(f"{where} must be an object, not {type(value).__name__}")
    try:
        size = jsontext.size(value)
    except ValueError as e:
        raise _invalid(f"{where}: {e}") from None
    if size > MAX_METADATA:
        raise _invalid(f"{where} has {size} bytes, more than {MAX_METADATA}")
    result: dict[str, Any] = jsontext.plain(value)
    return result


def _payload_metadata(value: object, where: str) -> dict[str, Any]:
    """Return what a receiver acts on: `sha256` and `removable`."""
    if value is None:
        return {}
    if not isinstance(value, jsontext.Object):
        raise _invalid(f"{where} must be an object, not {type(value).__name__}")
    _check_keys(value, _METADATA_KEYS, where)
    digest, removable = value.get("sha256"), value.get("removable")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise _invalid(f"sha256 in {where} is not 64 hexadecimal digits")
    if removable is not None and not isinstance(removable, bool):
        raise _invalid(f"removable in {where} is neither true nor false")
    return {"sha256": digest, "removable": removable}


class Cut(NamedTuple):
    """A message whose long base64 texts were cut out.

    Attributes:
        whole: the message as it came.
        text: the same with NaN in the place of each such text.
        values: the bytes that these stand for.
    """

    whole: bytes
    text: bytes
    values: list[bytes]


def cut(data: bytes) -> Cut:
    """Decode the long base64 texts of a message without passing them through a JSON parser.

    What replaces a text of nothing but letters between two quotation marks makes valid JSON of
    invalid one as little as the other way round. What is not strictly base64 is left as it is.
    """
    if len(data) < _LONG:
        return Cut(data, data, [])
    view = memoryview(data)
    pieces: list[memoryview | bytes] = []
    values: list[bytes] = []
    done = position = 0
    while found := _DATA.search(data, position):
        start = found.end()
        position = data.find(b'"', start)
        if position < 0:
            break
        if position - start >= _LONG:
            try:
                values.append(decode_base64(view[start:position]))
            except ValueError:
                continue
            pieces += (view[done : start - 1], b"NaN")
            done = position + 1
    if not values:
        return Cut(data, data, values)
    return Cut(data, b"".join((*pieces, view[done:])), values)


def _parse(message: Cut) -> Any:
    if message.values:
        try:
            env = jsontext.loads(message.text, envelope=True, values=message.values)
        except ValueError:
            env = None  # for the reason it would have without the cuts
        if _placed(env) == len(message.values):
            return env
    return jsontext.loads(message.whole, envelope=True)


def _placed(env: Any) -> int:
    """Return how many values of a `Cut` are a direct payload's data, as base64."""
    payloads = env.get("payloads") if isinstance(env, dict) else None
    return sum(
        isinstance(payload, dict)
        and isinstance(payload.get("data"), bytes)
        and payload.get("transport") == "direct"
        and payload.get("encoding") in _BASE64
        for payload in (payloads if isinstance(payloads, list) else [])
    )


def read_envelope(data: bytes | Cut) -> Envelope:
    """Parse a message and check its own fields.

    Raises:
        NATSBridgeError: `INVALID_ENVELOPE`.
    """
    message = data if isinstance(data, Cut) else cut(data)
    try:
        env = _parse(message)
    except ValueError as e:
        raise _invalid(f"it is not JSON ({e})") from None
    if not isinstance(env, jsontext.Object):
        raise _invalid(f"it is a JSON {type(env).__name__}, not an object")
    _check_keys(env, _ENVELOPE_KEYS, "it")
    fields = _strings(env, STRING_KEYS)
    fields["metadata"] = _metadata(env.get("metadata"), "metadata")
    payloads = env.get("payloads")
    if env.get("error") is not None:
        fields["error"] = _error(env["error"])
        if payloads not in (None, []):
            raise _invalid("it has an error and payloads as well")
        return Envelope(fields, [], len(message.whole))
    if not isinstance(payloads, list):
        raise _invalid("payloads is missing" if payloads is None else "payloads must be a list")
    if len(payloads) > MAX_PAYLOADS:
        raise _invalid(f"it has {len(payloads)} payloads, more than {MAX_PAYLOADS}")
    return Envelope(fields, payloads, len(message.whole))


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
    text = _strings(raw, _PAYLOAD_STRINGS, f" of {where}")
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
    if (encoding, transport, payload_type) not in _ENCODINGS:
        raise _invalid(
            f"{where} has the encoding {encoding!r}, which no {transport} {payload_type} has"
        )
    size = _size(raw, where)
    data = raw["data"]
    if encoding != "json" and not isinstance(data, (str, bytes)):
        raise _invalid(f"data of {where} must be a string, not {type(data).__name__}")
    if transport == "link":
        _string(data, f"data of {where}")
    return Payload(text["dataname"], payload_type, transport, encoding, size, data, metadata)


def _size(raw: dict[str, Any], where: str) -> int | None:
    size = raw.get("size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
        raise _invalid(f"size of {where} must be an integer from 0 to {MAX_SIZE}")
    return size


def decode_base64(text: str | memoryview) -> bytes:
    """Decode padded base64, strictly (bits beyond the last byte may be anything).

    Raises:
        ValueError: for a wrong length, junk, or padding that is missing, excess or not last.
    """
    # Not every decoder minds padding that is excess or stands alone.
    if len(text) % 4 or text[-3:] in ("===", b"==="):
        raise ValueError("its length or padding is wrong")
    return pybase64.b64decode(text, validate=True)


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
        data = payload.data if isinstance(payload.data, bytes) else decode_base64(payload.data)
    except ValueError as e:
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
    if payload.payload_type == "text" and not isinstance(value, str):
        raise _invalid(f"the text {name!r} must be a string, not {type(value).__name__}")
    try:
        size = len(value.encode()) if isinstance(value, str) else jsontext.size(value)
    except ValueError as e:
        raise _damaged(name, e) from None
    if payload.size is not None and size > payload.size:
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
