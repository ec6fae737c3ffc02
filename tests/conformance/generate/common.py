"""What the cases are built from: payload objects, envelopes, templates, and the lists of cases."""

import base64
import hashlib
import json
from typing import Any

from .arrow_samples import ARROW, ARROW_COLUMNS

Case = dict[str, Any]
Wire = str | bytes | list[Any]

RECEIVE: list[Case] = []
SEND: list[Case] = []

INVALID = "INVALID_ENVELOPE"
TYPE = "INVALID_PAYLOAD_TYPE"
INTEGRITY = "INTEGRITY_ERROR"
GARBLED = "DESERIALIZATION_ERROR"
TOO_LARGE = "PAYLOAD_TOO_LARGE"
URL = "URL_NOT_ALLOWED"
DOWNLOAD = "DOWNLOAD_FAILED"
ARGUMENT = "INVALID_ARGUMENT"

STRING_KEYS = [
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
]
ENVELOPE_KEYS = [*STRING_KEYS, "metadata", "payloads"]
BYTE_TYPES = ["image", "audio", "video", "binary"]


def compact(value: Any) -> str:
    """The shortest JSON text of `value`, raw UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def pattern(length: int) -> bytes:
    """The documented byte pattern: byte i is the low 8 bits of i xor i>>8 xor i>>16."""
    return bytes((i ^ i >> 8 ^ i >> 16) & 255 for i in range(length))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": sha256(data)}


def direct(
    content: bytes | str = "Hello World", /, kind: str = "text", **changes: Any
) -> dict[str, Any]:
    """A direct payload object as senders write it. A change of `...` drops the key."""
    raw = content.encode() if isinstance(content, str) else content
    return changed(
        {
            "id": "p-1",
            "dataname": "msg",
            "payload_type": kind,
            "transport": "direct",
            "encoding": "base64",
            "size": len(raw),
            "data": b64(raw),
            "metadata": {"payload_bytes": len(raw)},
        },
        changes,
    )


def link(
    content: bytes,
    /,
    kind: str = "binary",
    url: str = "{fileserver}/file/U1/F1/a.bin",
    **changes: Any,
) -> dict[str, Any]:
    """A link payload object as senders write it. A change of `...` drops the key."""
    metadata = {"payload_bytes": len(content), "sha256": sha256(content), "removable": False}
    metadata = changed(metadata, changes.pop("meta", {}))
    return changed(
        {
            "id": "p-1",
            "dataname": "a.bin",
            "payload_type": kind,
            "transport": "link",
            "encoding": "none",
            "size": len(content),
            "data": url,
            "metadata": metadata,
        },
        changes,
    )


def changed(keys: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**keys, **changes}.items() if value is not ...}


def envelope(*payloads: Any, **changes: Any) -> dict[str, Any]:
    """A small envelope around payload objects."""
    return changed({"correlation_id": "c-1", "msg_id": "m-1", "payloads": list(payloads)}, changes)


def wire(*payloads: Any, **changes: Any) -> str:
    return compact(envelope(*payloads, **changes))


def splice(text: str, **parts: Any) -> list[Any]:
    """A template: `@name@` in `text` is replaced by the part of that name."""
    pieces: list[Any] = []
    for i, piece in enumerate(text.split("@")):
        if i % 2:
            pieces.append(parts[piece])
        elif piece:
            pieces.append(piece)
    return pieces


def repeat(text: str, times: int) -> dict[str, Any]:
    return {"repeat": text, "times": times}


def base_case(name: str, why: str, message: Wire, more: dict[str, Any]) -> Case:
    key = {str: "wire", bytes: "wire_base64", list: "wire_template"}[type(message)]
    content = b64(message) if isinstance(message, bytes) else message
    return {"name": name, "why": why, key: content, **more}


def ok(name: str, why: str, message: Wire, payloads: list[Any], **more: Any) -> None:
    """Adds a case that must be received. `fields` goes into its expectation."""
    expect: dict[str, Any] = {}
    if "fields" in more:
        expect["fields"] = more.pop("fields")
    expect["payloads"] = payloads
    RECEIVE.append({**base_case(name, why, message, more), "expect": expect})


def bad(name: str, why: str, code: str | list[str], message: Wire, **more: Any) -> None:
    """Adds a case that must be refused with `code` (a list: any of them)."""
    RECEIVE.append({**base_case(name, why, message, more), "error": code})


HELLO = ["msg", {"text": "Hello World"}, "text"]


def arrow_value(sample: str, columns: dict[str, Any]) -> dict[str, Any]:
    return {"arrow": {"columns": columns, **digest_of(ARROW[sample])}}


FULL = {
    "correlation_id": "abc123",
    "msg_id": "def456",
    "timestamp": "2026-03-13T07:02:50.443Z",
    "send_to": "/chat/user/v1/message",
    "msg_purpose": "chat",
    "sender_name": "sender-app",
    "sender_id": "sender-uuid",
    "receiver_name": "receiver-app",
    "receiver_id": "receiver-uuid",
    "reply_to": "reply.subject",
    "reply_to_msg_id": "msg-0",
    "broker_url": "nats://localhost:4222",
    "metadata": {"room": 7, "tags": ["a", "b"], "deep": {"x": None}},
}

#: type -> (serialized bytes, expected value)
TYPES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "text": ("Grüße, 世界 😀".encode(), {"text": "Grüße, 世界 😀"}),
    "dictionary": (
        '{"k":"v","n":[1,-2.5,true,false,null],"ü":{}}'.encode(),
        {"json": {"k": "v", "n": [1, -2.5, True, False, None], "ü": {}}},
    ),
    "jsontable": (
        b'[{"id":1,"v":"a"},{"id":2,"v":null},{}]',
        {"json": [{"id": 1, "v": "a"}, {"id": 2, "v": None}, {}]},
    ),
    "arrowtable": (ARROW["stream"], arrow_value("stream", ARROW_COLUMNS)),
    **{kind: (pattern(40), {"base64": b64(pattern(40))}) for kind in BYTE_TYPES},
}

AB = {"text": "abc", "as": "bytes"}

GOT = [["a.bin", AB, "binary"]]

PATH = "/file/U1/F1/a.bin"


def ordered(obj: dict[str, Any], order: list[str]) -> dict[str, Any]:
    return {key: obj[key] for key in order if key in obj}


def nested(depth: int) -> str:
    """JSON text with `depth` containers open at once, lists and objects in turn."""
    opening = "".join('{"a":' if i % 2 else "[" for i in range(depth - 1))
    closing = "".join("}" if i % 2 else "]" for i in reversed(range(depth - 1)))
    return opening + ('{"a":1}' if depth % 2 == 0 else "[1]") + closing


def nested_object(depth: int) -> str:
    """As `nested`, the outermost an object."""
    return '{"a":' + nested(depth - 1) + "}"


def redirect(location: str, status: int = 302) -> dict[str, Any]:
    return {"text": "", "status": status, "headers": {"Location": location}}
