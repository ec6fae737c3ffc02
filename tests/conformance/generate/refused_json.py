"""Messages to refuse: what is not strict JSON or UTF-8, ends early or nests too deep."""

import json

from .common import (
    FULL,
    GARBLED,
    INTEGRITY,
    INVALID,
    bad,
    compact,
    direct,
    nested,
    nested_object,
    ordered,
    repeat,
    splice,
    wire,
)

#: name -> a value that is not JSON
MALFORMED = {
    "mismatched-brackets": "[1 2}",
    "missing-comma": "[1 2]",
    "wrong-closing": "[1}",
    "trailing-comma-list": "[1,]",
    "trailing-comma-object": '{"a":1,}',
    "leading-comma": "[,1]",
    "double-comma": "[1,,2]",
    "missing-colon": '{"a" 1}',
    "double-colon": '{"a"::1}',
    "missing-value": '{"a":}',
    "missing-key": "{:1}",
    "number-key": "{1:1}",
    "colon-in-list": '["a":1]',
    "comma-for-colon": '{"a",1}',
    "unquoted-key": "{a:1}",
    "single-quotes": "{'a':1}",
    "leading-zero": "01",
    "leading-zeros": "[-00]",
    "plus": "+1",
    "no-fraction": "[1.]",
    "no-integer": "[.5]",
    "no-exponent": "[1e]",
    "no-exponent-digits": "[1e+]",
    "two-fractions": "[1.2.3]",
    "two-signs": "[--1]",
    "minus-alone": "[-]",
    "hexadecimal": "0x10",
    "underscore": "[1_000]",
    "nan": "NaN",
    "infinity": "Infinity",
    "minus-infinity": "[-Infinity]",
    "python-none": "None",
    "capital-true": "True",
    "cut-literal": "tru",
    "long-literal": "[truex]",
    "comment": "[1/*a*/]",
    "line-comment": "[1//a\n]",
    "form-feed": "[\f1]",
    "no-break-space": "[\u00a01]",
    "raw-line-feed": '"a\nb"',
    "raw-tab": '"a\tb"',
    "raw-nul": '"a\x00b"',
    "raw-control": '"a\x1fb"',
    "control-in-key": '{"a\x01":1}',
    "bad-escape": '"\\x41"',
    "bad-escape-capital": '"\\U00e9"',
    "escaped-line-feed": '"\\\n"',
    "short-escape": '"\\u12"',
    "short-escape-then-text": '"\\u12g4"',
    "signed-escape": '"\\u+123"',
    "spaced-escape": '"\\u 123"',
    "lone-high-surrogate": '"\\ud83d"',
    "lone-high-then-text": '"\\ud83dx"',
    "high-high": '"\\ud83d\\ud83d"',
    "high-then-other-escape": '"\\ud83d\\n"',
    "high-then-plain-escape": '"\\ud83d\\u0041"',
    "lone-low-surrogate": '"\\ude00"',
    "surrogate-in-key": '{"\\ud800":1}',
    "number-65-characters": "[" + "1" * 65 + "]",
    "number-65-fraction": "[0." + "1" * 63 + "]",
}

#: name -> bytes that are not UTF-8, to stand inside a string
NOT_UTF8 = {
    "ff": b"\xff",
    "lone-continuation": b"\x80",
    "cut-2": b"\xc3",
    "cut-3": b"\xe4\xb8",
    "cut-4": b"\xf0\x9f\x98",
    "overlong-nul": b"\xc0\x80",
    "overlong-slash": b"\xe0\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond-unicode": b"\xf4\x90\x80\x80",
    "latin-1": b"gr\xfc\xdfe",
}


def refused_json() -> None:
    for name, text in MALFORMED.items():
        bad(
            f"json-{name}",
            "strict JSON, also where the key is unknown",
            INVALID,
            f'{{"x":{text},"payloads":[]}}',
        )
        bad(
            f"payload-json-{name}",
            "strict JSON inside a dictionary",
            GARBLED,
            wire(direct(text, "dictionary")),
        )
    for name, raw in NOT_UTF8.items():
        bad(f"utf8-{name}", "the envelope is UTF-8", INVALID, b'{"x":"' + raw + b'","payloads":[]}')
        bad(
            f"utf8-dataname-{name}",
            "the envelope is UTF-8",
            INVALID,
            wire(direct(dataname="@")).encode().replace(b"@", raw),
        )
        bad(f"text-not-utf8-{name}", "text is UTF-8", GARBLED, wire(direct(b"a" + raw)))
        bad(
            f"dictionary-not-utf8-{name}",
            "a dictionary's JSON is UTF-8",
            GARBLED,
            wire(direct(b'"' + raw + b'"', "dictionary")),
        )
    whole = wire(direct())
    for name, text in {
        "empty-message": "",
        "only-white-space": " \n",
        "null": "null",
        "number": "1",
        "string": '"{}"',
        "list": "[]",
        "list-of-envelope": f"[{whole}]",
        "trailing-brace": whole + "}",
        "trailing-object": whole + "{}",
        "trailing-nul": whole + "\x00",
        "trailing-comma": whole + ",",
        "trailing-text": whole + " x",
        "bom": "\ufeff" + whole,
        "not-json": "Hello World",
        "missing-brace": whole[:-1],
    }.items():
        bad(f"message-{name}", "a message is one JSON object and nothing else", INVALID, text)
    bad("message-utf16", "a message is UTF-8", INVALID, whole.encode("utf-16"))
    # size is last here, so that only the truncation is at fault
    order = ["id", "dataname", "payload_type", "metadata", "transport", "encoding", "data", "size"]
    full = compact({**FULL, "payloads": [ordered(direct(dataname="a\\u00fcb"), order)]})
    full = full.replace("\\\\u", "\\u")
    for i in range(1, 25):
        bad(
            f"truncated-{i}",
            "a message that ends early is never delivered",
            INVALID,
            full[: len(full) * i // 25],
        )
    bad(
        "truncated-in-data",
        "the size already says that data is missing",
        [INVALID, INTEGRITY],
        full[: full.index('"data"')] + '"size":11,"data":"SGVsbG8g',
    )
    refused_depth()


def refused_depth() -> None:
    bad("depth-33-unknown", "33 containers", INVALID, f'{{"x":{nested(32)},"payloads":[]}}')
    bad(
        "depth-33-metadata",
        "33 containers",
        INVALID,
        f'{{"metadata":{nested_object(32)},"payloads":[]}}',
    )
    bad(
        "depth-33-json-value",
        "a value stands at depth 4",
        INVALID,
        wire(direct(encoding="json", kind="dictionary", size=..., data=json.loads(nested(30)))),
    )
    bad("depth-33-dictionary", "33 containers", GARBLED, wire(direct(nested(33), "dictionary")))
    bad(
        "depth-33-jsontable",
        "33 containers",
        GARBLED,
        wire(direct(f"[{nested_object(32)}]", "jsontable")),
    )
    bad(
        "depth-33-json-text",
        "33 containers",
        GARBLED,
        wire(direct(encoding="json", kind="dictionary", size=..., data=nested(33))),
    )
    for name, opening, closing in (("lists", "[", "]"), ("objects", '{"a":', "}")):
        bad(
            f"depth-10000-{name}",
            "nesting must not exhaust a stack",
            INVALID,
            splice(
                '{"x":@a@1@b@,"payloads":[]}', a=repeat(opening, 10_000), b=repeat(closing, 10_000)
            ),
        )
        bad(
            f"depth-10000-{name}-unclosed",
            "nesting must not exhaust a stack",
            INVALID,
            splice('{"x":@a@', a=repeat(opening, 10_000)),
        )
    bad(
        "depth-9999-dictionary",
        "nesting must not exhaust a stack",
        GARBLED,
        splice(
            wire(direct(b"", "dictionary", size=19_998, data="@a@@b@")),
            a=repeat("W1tb", 3333),
            b=repeat("XV1d", 3333),
        ),
    )
    bad(
        "number-5000-digits",
        "a number has at most 64 characters",
        INVALID,
        splice('{"x":@n@,"payloads":[]}', n=repeat("1", 5000)),
    )
    bad(
        "number-5000-digits-size",
        "a number has at most 64 characters",
        INVALID,
        splice(wire(direct()).replace('"size":11', '"size":@n@'), n=repeat("1", 5000)),
    )
    bad(
        "number-overflow-dictionary",
        "a float that would be infinite",
        GARBLED,
        wire(direct("[1e400]", "dictionary")),
    )
    bad(
        "number-overflow-metadata",
        "a float that would be infinite",
        INVALID,
        '{"metadata":{"a":-1e400},"payloads":[]}',
    )


def add_cases() -> None:
    """Adds every case of this module."""
    refused_json()
