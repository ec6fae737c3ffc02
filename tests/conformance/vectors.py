"""Loads the conformance vectors, expands them, and compares what a side did with what is expected.

Standard library only (CPython 3.10+), and none of the implementations. A runner drives one side:

    for case in vectors.load("receive.json"):
        if not vectors.runs(case, abilities):
            continue
        server.serve(vectors.files(case, server.url))         # vector_server.VectorServer
        publish(vectors.wire(case, server.url))                # the bytes of the NATS message
        options = vectors.receive_options(case, server.url)    # arguments of the receive call
        result = ...                                           # what the side reports
        assert vectors.receive_problems(case, result, server.deleted) == []

A result is a JSON value, so that a device can print it as one line:

    {"payloads": [[dataname, value, payload_type], ...], "fields": {envelope key: value, ...}}
    {"error": CODE, "message": text}

`value` is {"text": str}, {"json": any}, {"size": int, "sha256": hex of the bytes}, or, where the
side decodes Arrow, {"arrow": {column: [values]}}. A text or bytes may always be reported as size
and sha256 (of its UTF-8). `fields` holds at least the keys that the case expects. `describe`
makes `value` from a Python object.

For send.json the side calls its send with `subject(case)`, `data(case, ...)` and
`send_options(case, url)` and reports {"sent": true} or {"error": CODE, "message": text}; the
runner subscribes to the subject and hands the message to `send_problems`.

Abilities a case may need ("needs"): "arrow" decodes Arrow IPC; "float64" has 64-bit floats;
"bigint" has whole numbers of any size; "surrogates" has strings that can hold a lone surrogate;
"redirects" is told where an HTTP redirect leads.
"""

import base64
import binascii
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Case = dict[str, Any]
Result = dict[str, Any]

FOLDER = Path(__file__).parent
ENVELOPE_ORDER = (
    "correlation_id msg_id timestamp send_to msg_purpose sender_name sender_id receiver_name "
    "receiver_id reply_to reply_to_msg_id broker_url metadata payloads"
)
PAYLOAD_ORDER = "id dataname payload_type transport encoding size data metadata"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
#: Relative error allowed for a number that is no integer: a few units in a double's last place,
#: because small libraries round decimal numbers less exactly.
FLOAT_TOLERANCE = 1e-14


# ---------------------------------------------------------------- expanding cases


def load(file_name: str) -> list[Case]:
    """The cases of "receive.json" or "send.json"."""
    cases: list[Case] = json.loads((FOLDER / file_name).read_text(encoding="ascii"))
    return cases


def runs(case: Case, abilities: Iterable[str]) -> bool:
    """True if a side with these abilities must run the case."""
    return set(case.get("needs", ())) <= set(abilities)


def pattern(length: int) -> bytes:
    """The byte pattern: byte i is the low 8 bits of i ^ i >> 8 ^ i >> 16."""
    # 64 KiB rows differ by a constant only, which keeps this fast.
    row = bytes((i ^ i >> 8) & 255 for i in range(min(length, 65_536)))
    rows = []
    for high in range(0, max(length, 1), 65_536):
        table = bytes(value ^ (high >> 16) & 255 for value in range(256))
        rows.append(row.translate(table))
    return b"".join(rows)[:length]


def place(value: Any, url: str) -> Any:
    """`value` with the placeholders of the file server filled in, in every string."""
    if isinstance(value, str):
        parts = urlsplit(url)
        value = value.replace("{fileserver}", url).replace("{authority}", parts.netloc)
        return value.replace("{port}", str(parts.port))
    if isinstance(value, list):
        return [place(item, url) for item in value]
    if isinstance(value, dict):
        return {place(key, url): place(item, url) for key, item in value.items()}
    return value


def expand(value: Any) -> Any:
    """`value` with {"repeat", "times"} and {"special"} objects replaced, at any depth."""
    if isinstance(value, dict):
        if value.keys() == {"repeat", "times"}:
            return value["repeat"] * value["times"]
        if value.keys() == {"special"}:
            return special(value["special"])
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    return value


def special(name: str) -> Any:
    """A value that JSON cannot state. PROTOCOL.md lists the names."""
    cycle: list[Any] = []
    cycle.append(cycle)
    return {
        "nan": math.nan,
        "inf": math.inf,
        "minus_inf": -math.inf,
        "nested_nan": {"a": [1, math.nan]},
        "object": object(),
        "nested_object": {"a": [object()]},
        "int_key": {1: "a"},
        "null_key": {None: "a"},
        "nested_bytes": ["a", b"b"],
        "set": {1},
        "cycle": cycle,
        "lone_surrogate": "\ud800",
        "tuple": (1, (2,)),
        "table_nan": [{"a": math.nan}],
        "table_int_key": [{1: "a"}],
        "table_bytes": [{"a": b"b"}],
    }[name]


def content(spec: dict[str, Any]) -> bytes:
    """The bytes that a value spec stands for, before base64; JSON in its shortest form."""
    if "text" in spec:
        return str(spec["text"]).encode()
    if "repeat" in spec:
        return str(spec["repeat"] * spec["times"]).encode()
    if "base64" in spec:
        return base64.b64decode(spec["base64"])
    if "pattern" in spec:
        return pattern(spec["pattern"])
    if "arrow" in spec:
        return base64.b64decode(spec["arrow"]["base64"])
    return json.dumps(spec["json"], ensure_ascii=False, separators=(",", ":")).encode()


def wire(case: Case, url: str) -> bytes:
    """The bytes of the NATS message of a receive case, for a file server at `url`."""
    if "wire_base64" in case:
        return base64.b64decode(case["wire_base64"])
    if "wire" in case:
        return str(place(case["wire"], url)).encode()
    pieces = []
    for part in case["wire_template"]:
        if isinstance(part, str):
            pieces.append(place(part, url).encode())
        elif "pattern_base64" in part:
            pieces.append(base64.b64encode(pattern(part["pattern_base64"])))
        else:
            pieces.append((part["repeat"] * part["times"]).encode())
    return b"".join(pieces)


def files(case: Case, url: str) -> dict[str, dict[str, Any]]:
    """What the file server must serve: path -> file spec, placeholders filled in."""
    filled: dict[str, dict[str, Any]] = place(case.get("files", {}), url)
    return filled


def receive_options(case: Case, url: str) -> dict[str, Any]:
    """The arguments of the receive call: those of the case over quick defaults."""
    quick = {"fileserver_url": "{fileserver}", "max_retries": 2, "base_delay": 1, "max_delay": 1}
    options: dict[str, Any] = place({**quick, **case.get("options", {})}, url)
    return options


def send_options(case: Case, url: str) -> dict[str, Any]:
    """The arguments of the send call beside subject and data."""
    options = {"fileserver_url": "{fileserver}", **case.get("options", {})}
    expanded: dict[str, Any] = expand(place(options, url))
    return expanded


def subject(case: Case) -> Any:
    """The subject of a send case; not a string where that is what must be refused."""
    return expand(case["subject"])


def data(case: Case, arrow: Callable[[dict[str, list[Any]]], Any] | None = None) -> Any:
    """The data of a send case as Python values.

    `arrow` makes a table from columns, on a side that sends tables; without it a table is sent
    as its IPC bytes. Data that is not a list of payloads comes as it stands in the case.
    """
    if not isinstance(case["data"], list):
        return case["data"]
    return [_payload(item, arrow) for item in case["data"]]


def _payload(item: Any, arrow: Callable[[dict[str, list[Any]]], Any] | None) -> Any:
    if not isinstance(item, list):
        return item
    return tuple(
        value_of(part, arrow) if i == 1 and isinstance(part, dict) else expand(part)
        for i, part in enumerate(item)
    )


def value_of(
    spec: dict[str, Any], arrow: Callable[[dict[str, list[Any]]], Any] | None = None
) -> Any:
    """The Python value to send for a value spec."""
    form = spec.get("as")
    if form == "stream":
        return io.BytesIO(content(spec))
    if form == "text_stream":
        return io.StringIO(content(spec).decode())
    if form == "bytes" or "base64" in spec or "pattern" in spec:
        return content(spec)
    if "special" in spec:
        return special(spec["special"])
    if "json" in spec:
        return expand(spec["json"])
    if "arrow" in spec and arrow is not None:
        return arrow(spec["arrow"]["columns"])
    return content(spec) if "arrow" in spec else content(spec).decode()


# ---------------------------------------------------------------- comparing


def describe(value: Any, payload_type: str) -> dict[str, Any]:
    """A received Python value in the form of a result."""
    if payload_type == "text":
        return {"text": value} if isinstance(value, str) else {"not text": repr(value)}
    if payload_type in ("dictionary", "jsontable"):
        return {"json": value}
    if hasattr(value, "to_pydict"):
        return {"arrow": value.to_pydict()}
    if not isinstance(value, bytes | bytearray | memoryview):
        return {"not bytes": repr(value)}
    return {"size": len(value), "sha256": hashlib.sha256(value).hexdigest()}


def same(expected: Any, found: Any) -> bool:
    """True if two JSON values are equal: 1 equals 1.0, True does not equal 1."""
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or found is None:
        return expected is found
    if isinstance(expected, int | float) and isinstance(found, int | float):
        if isinstance(expected, int) and isinstance(found, int):
            return expected == found
        return math.isclose(expected, found, rel_tol=FLOAT_TOLERANCE, abs_tol=0)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(
            same(value, found[key]) for key, value in expected.items()
        )
    return type(expected) is type(found) and bool(expected == found)


def value_problem(spec: dict[str, Any], value: dict[str, Any]) -> str:
    """Why a reported value is not what the spec says; "" if it is."""
    if "json" in spec:
        right = "json" in value and same(spec["json"], value["json"])
        return "" if right else f"expected {_short(spec)}, got {_short(value)}"
    if "arrow" in spec:
        if "arrow" in value:
            right = same(spec["arrow"]["columns"], value["arrow"])
            return "" if right else f"expected {_short(spec)}, got {_short(value)}"
        spec = spec["arrow"]
    wanted = spec if "sha256" in spec else describe(content(spec), "binary")
    if "text" in value:
        value = describe(value["text"].encode(), "binary")
    if value.get("size") == wanted["size"] and value.get("sha256") == wanted["sha256"]:
        return ""
    return f"expected {_short(spec)} ({wanted['size']} bytes), got {_short(value)}"


def receive_problems(case: Case, result: Result, deleted: Iterable[str] | None = None) -> list[str]:
    """What is wrong with the result of a receive case; an empty list if nothing is.

    `deleted`: the paths that the file server was asked to delete, if the runner knows.
    """
    problems = []
    if deleted is not None and sorted(deleted) != sorted(case.get("deleted", ())):
        problems.append(f"deleted {sorted(deleted)}, expected {case.get('deleted', [])}")
    if "error" in case:
        return problems + error_problems(case, result)
    if "error" in result:
        return [*problems, f"refused with {result['error']}: {result.get('message')}"]
    expect = case["expect"]
    for key, value in expect.get("fields", {}).items():
        found = result.get("fields", {}).get(key)
        if not same(value, found):
            problems.append(f"{key}: expected {_short(value)}, got {_short(found)}")
    return problems + payload_problems(expect["payloads"], result["payloads"])


def payload_problems(expected: list[Any], found: list[Any]) -> list[str]:
    """What is wrong with a list of [dataname, value, payload_type]."""
    if len(expected) != len(found):
        return [f"expected {len(expected)} payloads, got {len(found)}"]
    problems = []
    for i, (want, have) in enumerate(zip(expected, found, strict=True)):
        name, payload_type = expand(want[0]), want[2]
        if [name, payload_type] != [have[0], have[2]]:
            problems.append(f"payload {i}: expected {[name, payload_type]}, got {have[::2]}")
        problem = value_problem(want[1], have[1])
        if problem:
            problems.append(f"payload {i}: {problem}")
    return problems


def error_problems(case: Case, result: Result) -> list[str]:
    """What is wrong with the result of a case that must be refused."""
    codes = case["error"] if isinstance(case["error"], list) else [case["error"]]
    if "error" not in result:
        return [f"accepted, expected {' or '.join(codes)}: {_short(result)}"]
    if result["error"] not in codes:
        said = f"{result['error']}: {result.get('message')}"
        return [f"expected {' or '.join(codes)}, got {_short(said)}"]
    return [] if result.get("message") else ["an error without a message"]


def send_problems(
    case: Case,
    message: bytes,
    reply: str,
    fetch: Callable[[str], bytes],
    arrow: Callable[[bytes], dict[str, list[Any]]] | None = None,
) -> list[str]:
    """What is wrong with a message on the wire.

    `reply` is its NATS reply subject ("" if none), `fetch(url)` gives the bytes of a link, `arrow`
    the columns of Arrow IPC bytes; without it, tables must be the very bytes of the case.
    """
    expect = case["expect"]
    try:
        envelope = json.loads(message.decode())
    except ValueError as error:
        return [f"not JSON: {error}"]
    problems = []
    if " ".join(envelope) != ENVELOPE_ORDER:
        problems.append(f"envelope keys: {list(envelope)}")
    for key in ENVELOPE_ORDER.split()[:12]:
        if not isinstance(envelope.get(key), str):
            problems.append(f"{key} is not a string: {envelope.get(key)!r}")
    if not TIMESTAMP.fullmatch(str(envelope.get("timestamp"))):
        problems.append(f"timestamp: {envelope.get('timestamp')}")
    for key in ("correlation_id", "msg_id"):
        if not envelope.get(key):
            problems.append(f"{key} is empty")
    if "@" in str(envelope.get("broker_url")):
        problems.append("broker_url with credentials")
    for key, value in expand(expect.get("fields", {})).items():
        if not same(value, envelope.get(key)):
            problems.append(f"{key}: expected {_short(value)}, got {_short(envelope.get(key))}")
    if "reply" in expect and reply != expect["reply"]:
        problems.append(f"NATS reply: expected {expect['reply']!r}, got {reply!r}")
    payloads = envelope.get("payloads", [])
    transports = [payload.get("transport") for payload in payloads]
    if transports != expect["transports"]:
        return [*problems, f"transports: expected {expect['transports']}, got {transports}"]
    found = []
    for i, payload in enumerate(payloads):
        raw, wrong = _sent_payload(payload, expect.get("removable"), fetch)
        problems += [f"payload {i}: {problem}" for problem in wrong]
        found.append((payload["dataname"], raw, payload["payload_type"]))
    if problems:
        return problems
    wanted = expect.get("payloads", case["data"])
    decoded = [_decoded(name, raw, kind, arrow) for name, raw, kind in found]
    return payload_problems(wanted, decoded)


def _sent_payload(
    payload: dict[str, Any], removable: bool | None, fetch: Callable[[str], bytes]
) -> tuple[bytes, list[str]]:
    """The bytes of a payload object as sent, and what is wrong with the object."""
    problems = []
    if " ".join(payload) != PAYLOAD_ORDER:
        problems.append(f"keys: {list(payload)}")
    if not payload.get("id") or not isinstance(payload["id"], str):
        problems.append(f"id: {payload.get('id')!r}")
    if payload.get("transport") == "direct":
        encoding = "base64"
        try:
            raw = base64.b64decode(payload["data"], validate=True)
        except binascii.Error as error:
            return b"", [*problems, f"base64: {error}"]
        metadata: dict[str, Any] = {"payload_bytes": len(raw)}
    else:
        encoding = "none"
        raw = fetch(payload["data"])
        metadata = {
            "payload_bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
            "removable": payload["metadata"].get("removable") if removable is None else removable,
        }
    if payload.get("encoding") != encoding:
        problems.append(f"encoding: {payload.get('encoding')!r}")
    if not same(len(raw), payload.get("size")):
        problems.append(f"size: {payload.get('size')!r} of {len(raw)} bytes")
    if not same(metadata, payload.get("metadata")):
        problems.append(f"metadata: expected {metadata}, got {payload.get('metadata')}")
    if not isinstance(metadata.get("removable", False), bool):
        problems.append("metadata.removable is not a boolean")
    return raw, problems


def _decoded(
    name: str,
    raw: bytes,
    payload_type: str,
    arrow: Callable[[bytes], dict[str, list[Any]]] | None,
) -> list[Any]:
    """A sent payload as [dataname, value, payload_type]."""
    if payload_type == "arrowtable" and arrow is not None:
        return [name, {"arrow": arrow(raw)}, payload_type]
    if payload_type in ("dictionary", "jsontable"):
        return [name, {"json": json.loads(raw.decode())}, payload_type]
    return [name, describe(raw, "binary"), payload_type]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters)"
