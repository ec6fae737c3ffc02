"""Messages to accept: every type and encoding, and everything at its limit."""

import json
from typing import Any

from .arrow_samples import ARROW, ARROW_COLUMNS
from .common import (
    ENVELOPE_KEYS,
    FULL,
    HELLO,
    STRING_KEYS,
    TYPES,
    arrow_value,
    b64,
    compact,
    digest_of,
    direct,
    link,
    nested,
    nested_object,
    ok,
    pattern,
    repeat,
    splice,
    wire,
)


def received_types() -> None:
    ok(
        "full-envelope",
        "every key present, as in the example of the system's description",
        compact({**FULL, "payloads": [direct()]}),
        [HELLO],
        fields=FULL,
    )
    absent = dict.fromkeys(STRING_KEYS, "")
    ok(
        "only-required-keys",
        "missing optional keys read as empty",
        '{"payloads":[{"dataname":"msg","payload_type":"text","transport":"direct",'
        '"data":"SGVsbG8gV29ybGQ="}]}',
        [HELLO],
        fields={**absent, "metadata": {}},
    )
    ok(
        "null-optional-keys",
        "null for an optional key is the same as its absence",
        compact(
            {
                **dict.fromkeys(ENVELOPE_KEYS),
                "error": None,
                "payloads": [
                    direct(id=None, encoding=None, size=None, metadata=None),
                    direct(
                        metadata={"payload_bytes": None, "sha256": None, "removable": None},
                    ),
                ],
            }
        ),
        [HELLO, HELLO],
        fields={**absent, "metadata": {}},
    )
    ok(
        "no-payloads",
        "an empty list is legal (an ACK)",
        wire(msg_purpose="ACK"),
        [],
        fields={"msg_purpose": "ACK", "correlation_id": "c-1"},
    )
    ok(
        "unknown-purpose",
        "any msg_purpose is passed on",
        wire(direct(), msg_purpose="x-new"),
        [HELLO],
        fields={"msg_purpose": "x-new"},
    )
    for kind, (data, value) in TYPES.items():
        ok(
            f"direct-{kind}",
            f"{kind} in the message",
            wire(direct(data, kind)),
            [["msg", value, kind]],
        )
        ok(
            f"link-{kind}",
            f"{kind} by claim check",
            wire(link(data, kind)),
            [["a.bin", value, kind]],
            files={"/file/U1/F1/a.bin": {"base64": b64(data)}},
        )
        if kind in ("dictionary", "jsontable", "arrowtable"):
            continue
        empty = {"text": ""} if kind == "text" else {"base64": ""}
        ok(f"empty-direct-{kind}", "0 bytes", wire(direct(b"", kind)), [["msg", empty, kind]])
        ok(
            f"empty-link-{kind}",
            "0 bytes by link",
            wire(link(b"", kind)),
            [["a.bin", empty, kind]],
            files={"/file/U1/F1/a.bin": {"base64": ""}},
        )
    for name, text in {
        "object": "{}",
        "list": "[]",
        "null": "null",
        "true": "true",
        "false": "false",
        "zero": "0",
        "number": "-1.5",
        "empty-string": '""',
        "string": '"text"',
        "spaced": ' [ 1 , {"a":\n[ ] } ]\t',
    }.items():
        ok(
            f"dictionary-{name}",
            "a dictionary is any JSON value",
            wire(direct(text, "dictionary")),
            [["msg", {"json": json.loads(text)}, "dictionary"]],
        )
    ok(
        "jsontable-empty",
        "a table without rows",
        wire(direct("[]", "jsontable")),
        [["msg", {"json": []}, "jsontable"]],
    )
    for length in (1, 2, 3, 4, 5, 255, 256, 257):
        ok(
            f"binary-{length}-bytes",
            "every base64 padding",
            wire(direct(pattern(length), "binary")),
            [["msg", {"pattern": length}, "binary"]],
        )
    ok(
        "all-byte-values",
        "bytes 0 to 255",
        wire(direct(bytes(range(256)), "binary")),
        [["msg", {"base64": b64(bytes(range(256)))}, "binary"]],
    )
    ok(
        "base64-trailing-bits",
        "non-zero bits under the padding are ignored",
        wire(direct(b"A", "binary", data="QR=="), direct(b"AB", "binary", data="QUJ=")),
        [["msg", {"base64": "QQ=="}, "binary"], ["msg", {"base64": "QUI="}, "binary"]],
    )
    text = "\ufeffa\x00b\r\nc\u2028d\x7f"
    ok(
        "text-kept-as-it-is",
        "no BOM, NUL or line end is touched",
        wire(direct(text)),
        [["msg", {"text": text}, "text"]],
    )
    names = [
        "",
        "größe.txt",
        "画像 1.png",
        "😀",
        "../../etc/passwd",
        "C:\\a\\b",
        "a\nb",
        "a\x00b",
        'q"q',
    ]
    ok(
        "data-names",
        "a dataname is any string; it is not a path",
        wire(*(direct(dataname=name) for name in names)),
        [[name, {"text": "Hello World"}, "text"] for name in names],
    )
    ok(
        "mixed-payloads",
        "order is kept, direct and link side by side",
        wire(direct(), link(pattern(3000), "image"), direct("[1]", "dictionary", dataname="d")),
        [HELLO, ["a.bin", {"pattern": 3000}, "image"], ["d", {"json": [1]}, "dictionary"]],
        files={"/file/U1/F1/a.bin": {"pattern": 3000}},
    )
    received_arrow()
    received_encodings()
    received_numbers()
    received_errors_response()


def received_arrow() -> None:
    samples = {
        "file": ARROW_COLUMNS,
        "two-batches": {"id": [1, 2, 3, 1, 2, 3]},
        "no-rows": {"id": [], "name": []},
    }
    for sample, columns in samples.items():
        ok(
            f"arrow-{sample}",
            "Arrow IPC, stream or file format",
            wire(direct(ARROW[sample], "arrowtable")),
            [["msg", arrow_value(sample, columns), "arrowtable"]],
        )
    ok(
        "encoding-arrow-ipc",
        "base64 under its other name for tables",
        wire(direct(ARROW["stream"], "arrowtable", encoding="arrow-ipc")),
        [["msg", arrow_value("stream", ARROW_COLUMNS), "arrowtable"]],
    )


def received_encodings() -> None:
    for name, encoding in (("absent", ...), ("empty", ""), ("null", None)):
        ok(f"encoding-{name}-direct", "base64 is meant", wire(direct(encoding=encoding)), [HELLO])
        ok(
            f"encoding-{name}-link",
            "none is meant",
            wire(link(b"abc", encoding=encoding)),
            [["a.bin", {"text": "abc", "as": "bytes"}, "binary"]],
            files={"/file/U1/F1/a.bin": {"text": "abc"}},
        )

    def as_json(name: str, why: str, kind: str, data: Any, value: Any, size: Any) -> None:
        spec = {"text": value} if kind == "text" else {"json": value}
        ok(
            f"json-{name}",
            why,
            wire(direct(b"", kind, encoding="json", data=data, size=size)),
            [["msg", spec, kind]],
        )

    rows = [{"a": 1}, {"a": 'ü"'}]
    as_json(
        "dictionary-value",
        "the value itself; size is its compact text",
        "dictionary",
        {"a": [1, {}]},
        {"a": [1, {}]},
        12,
    )
    as_json("dictionary-size-larger", "size is only a limit", "dictionary", {"a": 1}, {"a": 1}, 400)
    as_json("dictionary-size-absent", "no size, no limit", "dictionary", {"a": 1}, {"a": 1}, ...)
    as_json("dictionary-null", "null is a value here", "dictionary", None, None, 4)
    as_json("dictionary-number", "a JSON value of any kind", "dictionary", -12.5, -12.5, 5)
    as_json("dictionary-true", "a JSON value of any kind", "dictionary", True, True, 4)
    as_json("dictionary-text", "a string is JSON text", "dictionary", '{"a":[1]}', {"a": [1]}, 9)
    as_json("dictionary-text-of-string", "JSON text of a string", "dictionary", '"hi"', "hi", 4)
    as_json(
        "dictionary-text-spaces",
        "white space in the text counts",
        "dictionary",
        ' {"a" : 1} ',
        {"a": 1},
        11,
    )
    as_json(
        "jsontable-value",
        "the rows themselves",
        "jsontable",
        rows,
        rows,
        len(compact(rows).encode()),
    )
    as_json(
        "jsontable-text",
        "the rows' JSON text",
        "jsontable",
        compact(rows),
        rows,
        len(compact(rows).encode()),
    )
    as_json("text", "the text itself, not JSON text", "text", '{"a":1}', '{"a":1}', 7)
    as_json("text-unicode", "size counts UTF-8 bytes", "text", "ü😀", "ü😀", 6)
    as_json("text-empty", "0 bytes", "text", "", "", 0)
    ok(
        "json-value-escaped",
        "size is the compact raw UTF-8 text, whatever the message spells",
        '{"payloads":[{"dataname":"msg","payload_type":"dictionary","transport":"direct",'
        '"encoding":"json","size":12,"data": { "\\u00fc" : [ "\\/" ] } }]}',
        [["msg", {"json": {"ü": ["/"]}}, "dictionary"]],
    )


def received_numbers() -> None:
    text = (
        "[0,-0.5,1.5e3,1E+2,25e-1,0.1,-1e-7,123456789,-2147483648,4294967296,9007199254740991,"
        "1e20,2.5e-10]"
    )
    ok(
        "numbers",
        "every form of a number",
        wire(direct(text, "dictionary")),
        [["msg", {"json": json.loads(text)}, "dictionary"]],
    )
    big = "[9223372036854775808,-18446744073709551616,1000000000000000000000000000001]"
    ok(
        "numbers-big",
        "whole numbers beyond 64 bits stay exact where the language can",
        wire(direct(big, "dictionary")),
        [["msg", {"json": json.loads(big)}, "dictionary"]],
        needs=["bigint"],
    )
    ok(
        "number-doubles",
        "a float's full precision and range",
        wire(direct("[1e300,-1.25e-300]", "dictionary")),
        [["msg", {"json": [1e300, -1.25e-300]}, "dictionary"]],
        needs=["float64"],
    )
    longest = "0." + "1" * 62
    ok(
        "number-64-characters",
        "the longest number",
        wire(direct(f"[{longest}]", "dictionary")),
        [["msg", {"json": [float(longest)]}, "dictionary"]],
    )
    ok(
        "unknown-number",
        "an unknown key's number needs only be well formed",
        '{"x":[1e400,-0,' + longest + '],"payloads":[]}',
        [],
    )
    twice = '{"a":1,"a":2}'
    ok(
        "keys-twice-in-a-dictionary",
        "of equal keys in the application's objects, the last counts",
        wire(direct(twice, "dictionary")),
        [["msg", {"json": {"a": 2}}, "dictionary"]],
    )
    ok(
        "keys-twice-in-metadata",
        "of equal keys in the application's objects, the last counts",
        wire(direct(), metadata=["@"]).replace('["@"]', twice),
        [HELLO],
        fields={"metadata": {"a": 2}},
    )
    ok(
        "keys-twice-unknown",
        "unknown keys are skipped with whatever they hold",
        wire(direct()).replace("{", f'{{"x":{twice},"x":1,', 1),
        [HELLO],
    )
    ok(
        "direct-other-sha256",
        "in a direct payload it has no effect",
        wire(direct(metadata={"sha256": "0" * 64, "removable": True})),
        [HELLO],
    )
    ok(
        "unknown-number-in-payload-metadata",
        "an unknown key's number needs only be well formed",
        wire(direct(metadata=["@"])).replace('["@"]', '{"x":1e400}'),
        [HELLO],
    )
    for name, number in {"exponent": "1e2", "short-exponent": "1e-7", "capital": "1E2"}.items():
        ok(
            f"json-number-{name}",
            "size counts numbers as the sender spells them",
            wire(
                direct(b"", "dictionary", encoding="json", data=["@"], size=len(number) + 2)
            ).replace('["@"]', f"[{number}]"),
            [["msg", {"json": [float(number)]}, "dictionary"]],
        )


def received_errors_response() -> None:
    details = {"url": "http://localhost:8080/file/U/F/n", "attempts": 5}
    error = {"code": "DOWNLOAD_FAILED", "message": "after 5 attempts", "details": details}
    head = {key: FULL[key] for key in ("correlation_id", "msg_id", "timestamp", "send_to")}
    ok(
        "error-response",
        "an error instead of payloads",
        compact({**head, "error": error}),
        [],
        fields={**head, "error": error, "metadata": {}, "reply_to": ""},
    )
    ok(
        "error-first",
        "in any order, unknown keys inside",
        compact({"error": {"x": [1], "details": details, **error}, **head}),
        [],
        fields={"error": error},
    )
    ok(
        "error-empty-payloads",
        "an empty list beside it is tolerated",
        compact({"payloads": [], "error": error}),
        [],
        fields={"error": error},
    )
    ok(
        "error-code-only",
        "message and details may be missing",
        '{"error":{"code":"X_NEW"}}',
        [],
        fields={"error": {"code": "X_NEW", "message": "", "details": {}}},
    )
    ok(
        "error-null-details",
        "null is absence",
        '{"error":{"code":"X","message":null,"details":null}}',
        [],
        fields={"error": {"code": "X", "message": "", "details": {}}},
    )
    ok(
        "error-null-payloads",
        "null is absence",
        '{"payloads":null,"error":{"code":"X"}}',
        [],
        fields={"error": {"code": "X", "message": "", "details": {}}},
    )
    ok("error-null", "null is absence", wire(direct(), error=None), [HELLO])
    longest = {"code": "@c@", "message": "@m@", "details": {"k": "@d@"}}
    ok(
        "error-at-its-limits",
        "each has its own limit, also all of them together",
        splice(
            compact({"error": longest}),
            c=repeat("c", 1024),
            m=repeat("m", 1024),
            d=repeat("d", 4088),
        ),
        [],
        fields={"error": {"code": "c" * 1024, "message": "m" * 1024, "details": {"k": "d" * 4088}}},
    )
    ok(
        "error-long-unknown-key",
        "an unknown key's value has no limit",
        splice('{"error":{"x":"@x@","code":"X"}}', x=repeat("x", 5000)),
        [],
        fields={"error": {"code": "X", "message": "", "details": {}}},
    )


def received_limits() -> None:
    for length in (99_999, 499_999):
        message = wire(direct(pattern(1), "binary", size=length, data="@data@"))
        ok(
            f"direct-{length}",
            "as large as the default thresholds allow",
            splice(message, data={"pattern_base64": length}),
            [["msg", digest_of(pattern(length)), "binary"]],
            options={"max_payload_size": 500_000},
        )
    message = wire(direct(b"", "text", size=99_999, data="@data@"))
    ok(
        "direct-text-99999",
        "a long text",
        splice(message, data=repeat("YWJj", 33_333)),
        [["msg", {"repeat": "abc", "times": 33_333}, "text"]],
    )
    for length in (100_000, 500_000, 2_000_000):
        data = pattern(length)
        ok(
            f"link-{length}",
            "large by link",
            wire(link(data, "video")),
            [["a.bin", digest_of(data), "video"]],
            files={"/file/U1/F1/a.bin": {"pattern": length}},
            options={"max_payload_size": 2_000_000},
        )

    ok(
        "limit-depth-envelope",
        "32 containers open at once",
        f'{{"x":{nested(31)},"metadata":{nested_object(31)},"payloads":[]}}',
        [],
        fields={"metadata": json.loads(nested_object(31))},
    )
    ok(
        "limit-depth-dictionary",
        "a dictionary's own text counts by itself",
        wire(direct(nested(32), "dictionary"), direct(f"[{nested_object(31)}]", "jsontable")),
        [
            ["msg", {"json": json.loads(nested(32))}, "dictionary"],
            ["msg", {"json": [json.loads(nested_object(31))]}, "jsontable"],
        ],
    )
    ok(
        "limit-depth-json-text",
        "so does JSON text in a string",
        wire(direct(encoding="json", kind="dictionary", size=..., data=nested(32))),
        [["msg", {"json": json.loads(nested(32))}, "dictionary"]],
    )
    ok(
        "limit-depth-json-value",
        "a value under encoding json begins at depth 4",
        wire(direct(encoding="json", kind="dictionary", size=..., data=json.loads(nested(29)))),
        [["msg", {"json": json.loads(nested(29))}, "dictionary"]],
    )
    ok(
        "limit-payloads",
        "64 payloads",
        wire(*[direct("x")] * 64),
        [["msg", {"text": "x"}, "text"]] * 64,
    )
    longest = "ü" * 512
    ok(
        "limit-fields",
        "1024 bytes of UTF-8 in every string field",
        splice(
            compact(
                {
                    **dict.fromkeys(STRING_KEYS, "@f@"),
                    "payloads": [direct(dataname="@f@", id="@f@")],
                }
            ),
            f=repeat("ü", 512),
        ),
        [[longest, HELLO[1], "text"]],
        fields=dict.fromkeys(STRING_KEYS, longest),
    )
    ok(
        "limit-field-escaped",
        "counted after unescaping",
        splice('{"sender_name":"@f@","payloads":[]}', f=repeat("\\u00fc", 512)),
        [],
        fields={"sender_name": longest},
    )
    fat = {"k": "a" * 4088}
    ok(
        "limit-metadata",
        "4096 bytes of compact JSON; white space does not count",
        splice(
            '{"metadata":@s@{@s@"k"@s@:@s@"@a@"@s@},"payloads":[]}',
            a=repeat("a", 4088),
            s=repeat(" ", 9),
        ),
        [],
        fields={"metadata": fat},
    )
    name = "n" * (1024 - len("http://127.0.0.1:65535/file/U1/F1/?") - 2)
    ok(
        "long-url",
        "a URL of nearly 1024 bytes, with a query",
        wire(link(b"abc", url="{fileserver}/file/U1/F1/a?" + name)),
        [["a.bin", {"text": "abc", "as": "bytes"}, "binary"]],
        files={"/file/U1/F1/a": {"text": "abc"}},
    )
    ok(
        "limit-max-payload-size",
        "exactly as large as the receiver allows",
        wire(direct("0123456789"), direct("0123456789", size=...)),
        [["msg", {"text": "0123456789"}, "text"]] * 2,
        options={"max_payload_size": 10},
    )
    ok("size-absent", "direct without size is not counted", wire(direct(size=...)), [HELLO])


def add_cases() -> None:
    """Adds every case of this module."""
    received_types()
    received_limits()
