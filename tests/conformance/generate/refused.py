"""Messages to refuse: well-formed JSON that is no valid envelope or payload."""

import struct
from typing import Any

from .arrow_samples import ARROW
from .common import (
    BYTE_TYPES,
    ENVELOPE_KEYS,
    FULL,
    GARBLED,
    INTEGRITY,
    INVALID,
    PATH,
    STRING_KEYS,
    TOO_LARGE,
    TYPE,
    b64,
    bad,
    changed,
    compact,
    direct,
    link,
    ordered,
    pattern,
    repeat,
    sha256,
    splice,
    wire,
)


def refused_structure() -> None:
    bad("payloads-missing", "neither payloads nor error", INVALID, '{"correlation_id":"c"}')
    bad("empty-object", "neither payloads nor error", INVALID, "{}")
    no_list: dict[str, Any] = {
        "null": None,
        "object": {},
        "string": "[]",
        "number": 0,
        "true": True,
    }
    for name, value in no_list.items():
        bad(f"payloads-{name}", "payloads is a list", INVALID, wire(payloads=value))
        bad(
            f"payload-is-{name}",
            "a payload is an object",
            INVALID,
            wire("x" if name == "object" else value),
        )
    bad("payload-is-list", "a payload is an object", INVALID, wire([direct()]))
    for key in ("dataname", "payload_type", "transport", "data"):
        bad(f"missing-{key}", "a required key", INVALID, wire(changed(direct(), {key: ...})))
        bad(f"null-{key}", "a required key", INVALID, wire(changed(direct(), {key: None})))
    bad("empty-payload", "required keys", INVALID, wire({}))
    wrong: dict[str, Any] = {"number": 5, "list": ["a"], "object": {}, "false": False}
    for kind, value in wrong.items():
        for key in STRING_KEYS if kind == "number" else ["correlation_id", "reply_to"]:
            bad(f"{key}-is-{kind}", "a string field", INVALID, wire(direct(), **{key: value}))
        for key in ("id", "dataname", "payload_type", "transport", "encoding", "data"):
            bad(f"payload-{key}-is-{kind}", "a string field", INVALID, wire(direct(**{key: value})))
        bad(f"link-data-is-{kind}", "a URL is a string", INVALID, wire(link(b"abc", data=value)))
        bad(
            f"sha256-is-{kind}",
            "a digest is a string",
            INVALID,
            wire(link(b"abc", meta={"sha256": value})),
        )
    for name, meta in {"list": [], "string": "{}", "number": 1, "true": True}.items():
        bad(f"metadata-{name}", "metadata is an object", INVALID, wire(direct(), metadata=meta))
        bad(
            f"payload-metadata-{name}",
            "metadata is an object",
            INVALID,
            wire(direct(metadata=meta)),
        )
    for name, value in {"number": 1, "string": "true", "list": []}.items():
        bad(
            f"removable-{name}",
            "removable is true or false",
            INVALID,
            wire(link(b"abc", meta={"removable": value})),
        )
    for name, value in {
        "empty": "",
        "short": sha256(b"abc")[:-1],
        "long": sha256(b"abc") + "0",
        "not-hex": "g" * 64,
        "prefixed": "0x" + "0" * 62,
    }.items():
        bad(
            f"sha256-{name}",
            "a digest has 64 hexadecimal digits",
            INVALID,
            wire(link(b"abc", meta={"sha256": value})),
        )
    for name, error in {
        "string": "DOWNLOAD_FAILED",
        "list": [],
        "true": True,
        "empty": {},
        "no-code": {"message": "x"},
        "code-number": {"code": 5},
        "code-empty": {"code": ""},
        "message-number": {"code": "X", "message": 5},
        "details-list": {"code": "X", "details": []},
    }.items():
        bad(
            f"error-{name}", "an error object with a code", INVALID, wire(payloads=..., error=error)
        )
    bad(
        "error-and-payloads",
        "an error response carries no payloads",
        INVALID,
        wire(direct(), error={"code": "X"}),
    )
    refused_duplicates()


def refused_duplicates() -> None:
    whole = compact({**FULL, "payloads": [direct()]})
    for key in ENVELOPE_KEYS:
        value = compact({**FULL, "payloads": []}[key])
        bad(
            f"duplicate-{key}",
            "a known key appears once",
            INVALID,
            f"{whole[:-1]},{compact(key)}:{value}}}",
        )
    bad(
        "duplicate-error",
        "a known key appears once",
        INVALID,
        '{"error":{"code":"X"},"error":{"code":"X"}}',
    )
    for key, value in {"code": '"X"', "message": '"a"', "details": "{}"}.items():
        bad(
            f"duplicate-error-{key}",
            "a known key appears once",
            INVALID,
            f'{{"error":{{"code":"X","message":"a","details":{{}},"{key}":{value}}}}}',
        )
    for key, value in direct().items():
        bad(
            f"duplicate-payload-{key}",
            "a known key appears once",
            INVALID,
            wire(direct())[:-3] + f",{compact(key)}:{compact(value)}}}]}}",
        )
    bad(
        "duplicate-escaped",
        "keys are compared after unescaping",
        INVALID,
        wire(direct())[:-3] + ',"da\\u0074a":"SGVsbG8gV29ybGQ="}]}',
    )
    twice: dict[str, Any] = {"sha256": sha256(b"abc"), "removable": False}
    for key, value in twice.items():
        bad(
            f"duplicate-{key}",
            "a known key appears once",
            INVALID,
            wire(link(b"abc"))[:-4] + f",{compact(key)}:{compact(value)}}}}}]}}",
        )


def refused_fields() -> None:
    for name, kind in {
        "empty": "",
        "capital": "Text",
        "capitals": "TEXT",
        "trailing-space": "text ",
        "unknown": "json",
    }.items():
        bad(f"type-{name}", "an unknown payload_type", TYPE, wire(direct(kind=kind)))
    for name, transport in {
        "empty": "",
        "capital": "Direct",
        "capitals": "LINK",
        "trailing-space": "direct ",
        "unknown": "file",
    }.items():
        bad(
            f"transport-{name}",
            "an unknown transport",
            "INVALID_TRANSPORT",
            wire(direct(transport=transport)),
        )
    bad(
        "type-before-transport",
        "payload_type is checked first",
        TYPE,
        wire(direct(kind="x", transport="y", encoding="z", size=-1)),
    )
    bad(
        "transport-before-encoding",
        "then transport",
        "INVALID_TRANSPORT",
        wire(direct(transport="y", encoding="z")),
    )
    for encoding in ("Base64", "gzip", "hex", "base64url", "none", "arrow-ipc"):
        bad(
            f"encoding-{encoding}-direct",
            "not an encoding of a direct text",
            INVALID,
            wire(direct(encoding=encoding)),
        )
    for encoding in ("base64", "json", "arrow-ipc", "None", "gzip"):
        bad(
            f"encoding-{encoding}-link",
            "a link has no encoding",
            INVALID,
            wire(link(b"abc", encoding=encoding)),
        )
    for kind in [*BYTE_TYPES, "arrowtable"]:
        bad(
            f"encoding-json-{kind}",
            "bytes are not JSON",
            INVALID,
            wire(direct("abc", kind, encoding="json", data="abc")),
        )
    for kind in [*BYTE_TYPES, "dictionary", "jsontable"]:
        bad(
            f"encoding-arrow-ipc-{kind}",
            "arrow-ipc is for arrowtable",
            INVALID,
            wire(direct("[]", kind, encoding="arrow-ipc")),
        )
    for name, value in {"object": {"a": 1}, "list": [], "number": 1, "null": None}.items():
        bad(
            f"json-text-{name}",
            "a text is a string",
            INVALID,
            wire(direct(encoding="json", size=..., data=value)),
        )
    for name, text in {
        "-1": "-1",
        "fraction": "11.5",
        "zero-fraction": "11.0",
        "exponent": "1e3",
        "exponent-capital": "11E0",
        "string": '"11"',
        "true": "true",
        "list": "[11]",
        "object": "{}",
        "above-2^53": "9007199254740993",
        "2^63": "9223372036854775808",
        "2^64+11": "18446744073709551627",
    }.items():
        bad(
            f"size-{name}",
            "a size is digits, at most 2^53",
            INVALID,
            wire(direct()).replace('"size":11', f'"size":{text}'),
        )
        bad(
            f"link-size-{name}",
            "a size is digits, at most 2^53",
            INVALID,
            wire(link(b"abc")).replace('"size":3', f'"size":{text}'),
            files={PATH: {"text": "abc"}},
        )
    refused_lengths()


def refused_lengths() -> None:
    bad("payloads-65", "at most 64 payloads", INVALID, wire(*[direct("x")] * 65))
    for key in STRING_KEYS:
        bad(f"long-{key}", "1025 bytes", INVALID, splice(wire(**{key: "@f@"}), f=repeat("a", 1025)))
    for key in ("id", "dataname"):
        bad(
            f"long-payload-{key}",
            "1025 bytes",
            INVALID,
            splice(wire(direct(**{key: "@f@"})), f=repeat("a", 1025)),
        )
    bad(
        "long-utf8",
        "bytes count, not characters",
        INVALID,
        splice(wire(direct(dataname="a@f@")), f=repeat("ü", 512)),
    )
    bad(
        "long-field",
        "a field that never ends",
        INVALID,
        splice(wire(direct(), sender_name="@f@"), f=repeat("a", 200_000)),
    )
    bad(
        "longer-url",
        "1025 bytes and more",
        INVALID,
        splice(wire(link(b"abc", url="{fileserver}/@f@")), f=repeat("a", 1025)),
    )
    bad(
        "long-error-message",
        "1025 bytes",
        INVALID,
        splice('{"error":{"code":"X","message":"@f@"}}', f=repeat("a", 1025)),
    )
    bad(
        "long-metadata",
        "4097 bytes",
        INVALID,
        splice(wire(metadata={"k": "@f@"}), f=repeat("a", 4089)),
    )
    bad(
        "long-metadata-numbers",
        "4097 bytes and more",
        INVALID,
        splice(wire(metadata=["@"]).replace('["@"]', '{"a":[@n@0]}'), n=repeat("1,", 2100)),
    )
    bad(
        "long-error-details",
        "4097 bytes",
        INVALID,
        splice('{"error":{"code":"X","details":{"k":"@f@"}}}', f=repeat("a", 4089)),
    )


def refused_payloads() -> None:
    for name, text in {
        "junk": "QU!D",
        "junk-first": "!QUJ",
        "space": "QUJD QUJD",
        "line-feed": "QUJD\nQUJD",
        "final-line-feed": "QUJD\n",
        "url-alphabet": "-_-_",
        "unicode": "QUJDä===",
        "nul": "QUJD\x00\x00\x00\x00",
        "one-character": "Q",
        "five-characters": "QUJDR",
        "missing-padding": "QQ",
        "missing-padding-1": "QUI",
        "half-padding": "QQ=",
        "inner-padding": "QUI=QUJD",
        "inner-padding-2": "QQ==QQ==",
        "too-much-padding": "QUJD====",
        "only-padding": "====",
        "padding-1-of-4": "=QUJ",
        "padding-3": "Q===",
        "padding-then-letter": "QQ=Q",
    }.items():
        bad(
            f"base64-{name}",
            "strict base64",
            GARBLED,
            wire(direct(b"", "binary", data=text, size=...)),
        )
        # The fault late in a long text, where a decoder works in pieces.
        bad(
            f"base64-{name}-late",
            "strict base64 to the end",
            GARBLED,
            splice(wire(direct(b"", "binary", data="@a@" + text, size=...)), a=repeat("QUJD", 700)),
        )
    bad(
        "base64-before-length",
        "bad base64 is named before the length",
        GARBLED,
        wire(direct(b"abc", "binary", data="QU!D")),
    )
    for size in (0, 10, 12):
        bad(f"size-{size}-of-11", "size is the decoded length", INTEGRITY, wire(direct(size=size)))
    for difference in (-1, 1):
        bad(
            f"size-{difference:+}-of-99999",
            "size is the decoded length",
            INTEGRITY,
            splice(
                wire(direct(b"", "binary", size=99_999 + difference, data="@a@")),
                a={"pattern_base64": 99_999},
            ),
        )
    bad("size-of-nothing", "size is the decoded length", INTEGRITY, wire(direct("", size=1)))
    bad("size-base64-length", "size counts before base64", INTEGRITY, wire(direct(size=16)))
    for size in (1_000_000, 2**31, 2**32 + 11, 2**53):
        bad(
            f"size-claims-{size}",
            "nothing is allocated for a size that cannot be true",
            [INTEGRITY, TOO_LARGE],
            wire(direct(size=size)),
        )
        bad(
            f"size-claims-{size}-data-first",
            "the same, data before size",
            [INTEGRITY, TOO_LARGE],
            wire(ordered(direct(size=size), ["data", *list(direct())])),
        )
    bad(
        "json-number-overflow",
        "a float that would be infinite, in a value that stands in the message",
        GARBLED,
        '{"payloads":[{"dataname":"msg","payload_type":"dictionary","transport":"direct",'
        '"encoding":"json","data":[1e400]}]}',
    )
    bad(
        "json-longer-than-size",
        "size limits the compact text",
        INTEGRITY,
        wire(direct(b"", "dictionary", encoding="json", data={"a": 1}, size=6)),
    )
    for name, metadata in {"sha256": {"sha256": "0"}, "removable": {"removable": 1}}.items():
        bad(
            f"direct-bad-{name}",
            "it has its type in a direct payload too",
            INVALID,
            wire(direct(metadata=metadata)),
        )
    spelled = wire(direct(b"", "dictionary", encoding="json", data=["@"], size=5))
    bad(
        "json-number-longer-than-size",
        "size counts numbers as the sender spells them",
        INTEGRITY,
        spelled.replace('["@"]', "[1.50]"),
    )
    bad(
        "json-text-longer-than-size",
        "size limits the text",
        INTEGRITY,
        wire(direct(b"", "jsontable", encoding="json", data="[{}] ", size=4)),
    )
    bad(
        "json-string-longer-than-size",
        "size limits the UTF-8 bytes",
        INTEGRITY,
        wire(direct(encoding="json", data="üü", size=3)),
    )
    for name, data in {"string": "{", "empty": "", "word": "abc", "two": "{} {}"}.items():
        bad(
            f"json-text-{name}-dictionary",
            "not JSON text",
            GARBLED,
            wire(direct(b"", "dictionary", encoding="json", data=data, size=...)),
        )
        bad(f"dictionary-text-{name}", "not JSON text", GARBLED, wire(direct(data, "dictionary")))
        bad(f"jsontable-text-{name}", "not JSON text", GARBLED, wire(direct(data, "jsontable")))
    bad("dictionary-bom", "no byte order mark", GARBLED, wire(direct("\ufeff{}", "dictionary")))
    bad(
        "dictionary-utf16",
        "UTF-8 only",
        GARBLED,
        wire(direct("{}".encode("utf-16-le"), "dictionary")),
    )
    bad("text-utf16", "UTF-8 only", GARBLED, wire(direct("ü€".encode("utf-16"))))
    for name, table in {
        "object": {},
        "scalar": 5,
        "null": None,
        "string": "a",
        "list-of-lists": [[1]],
        "one-scalar-row": [{"a": 1}, 5],
        "null-row": [None],
    }.items():
        bad(
            f"jsontable-{name}",
            "a table is a list of objects",
            GARBLED,
            wire(direct(compact(table), "jsontable")),
        )
        if name != "string":
            bad(
                f"json-jsontable-{name}",
                "a table is a list of objects",
                GARBLED,
                wire(direct(b"", "jsontable", encoding="json", data=table, size=...)),
            )
    refused_data_first()
    refused_arrow()
    refused_sizes()


def refused_data_first() -> None:
    """Data before its siblings, which turn out to be wrong, below and above 1 KB."""
    for size in (11, 1500):
        payload = direct(pattern(size), "binary")
        for name, code, changes in (
            ("type", TYPE, {"payload_type": "x"}),
            ("transport", "INVALID_TRANSPORT", {"transport": "x"}),
            ("encoding", INVALID, {"encoding": "x"}),
            ("size", INTEGRITY, {"size": size + 1}),
            ("base64", GARBLED, {"data": payload["data"][:-4] + "A-=="}),
            (
                "utf8",
                GARBLED,
                {"payload_type": "text", "data": b64(b"a" * size + b"\xff"), "size": ...},
            ),
            ("json", GARBLED, {"payload_type": "dictionary"}),
        ):
            wrong = changed(payload, changes)
            bad(
                f"data-first-{name}-{size}",
                "what follows data is checked as if it came before",
                code,
                wire(ordered(wrong, ["data", *wrong])),
            )


def refused_arrow() -> None:
    stream, file = ARROW["stream"], ARROW["file"]
    forged = bytearray(stream)
    forged[4:8] = (0x7FFFFFF0).to_bytes(4, "little")
    offsets = struct.pack("<4i", 0, 1, 1, 3)
    assert stream.count(offsets) == 1
    for name, data in {
        "empty": b"",
        "text": b"Hello World",
        "forged-offsets": stream.replace(offsets, struct.pack("<4i", 0, 1, 1, 0x7FFFFFFF)),
        "json": b'[{"a":1}]',
        "zeros": bytes(64),
        "cut": stream[: len(stream) // 2],
        "cut-metadata": stream[:100],
        "file-cut": file[:-20],
        "forged-length": bytes(forged),
        "magic-only": b"ARROW1\x00\x00",
    }.items():
        bad(
            f"arrow-{name}",
            "not Arrow IPC, or not all of it",
            GARBLED,
            wire(direct(data, "arrowtable")),
            needs=["arrow"],
        )


def refused_sizes() -> None:
    limit = {"max_payload_size": 10}
    eleven = "01234567890"
    files = {PATH: {"text": eleven}}
    bad(
        "limit-size",
        "more than the receiver allows",
        TOO_LARGE,
        wire(direct(eleven)),
        options=limit,
    )
    bad(
        "limit-no-size",
        "counted where size is missing",
        TOO_LARGE,
        wire(direct(eleven, size=...)),
        options=limit,
    )
    bad(
        "limit-data-first",
        "data before size",
        TOO_LARGE,
        wire(ordered(direct(eleven), ["data", *list(direct())])),
        options=limit,
    )
    bad(
        "limit-99999",
        "a long one",
        TOO_LARGE,
        splice(wire(direct(b"", "binary", size=99_999, data="@a@")), a={"pattern_base64": 99_999}),
        options={"max_payload_size": 99_998},
    )
    bad(
        "limit-json",
        "the compact text counts",
        TOO_LARGE,
        wire(direct(b"", "dictionary", encoding="json", data={"a": "12345"}, size=...)),
        options=limit,
    )
    bad(
        "limit-json-text",
        "the text counts",
        TOO_LARGE,
        wire(direct(encoding="json", data=eleven, size=...)),
        options=limit,
    )
    bad(
        "limit-link",
        "known before the download",
        TOO_LARGE,
        wire(link(eleven.encode())),
        options=limit,
        files=files,
    )
    bad(
        "limit-link-no-size",
        "known from Content-Length",
        TOO_LARGE,
        wire(link(eleven.encode(), size=...)),
        options=limit,
        files=files,
    )
    bad(
        "limit-link-chunked",
        "counted while downloading",
        TOO_LARGE,
        wire(link(pattern(70_000), size=...)),
        options={"max_payload_size": 60_000},
        files={PATH: {"pattern": 70_000, "chunked": True}},
    )


def add_cases() -> None:
    """Adds every case of this module."""
    refused_structure()
    refused_fields()
    refused_payloads()
