"""Messages to accept: keys in any order, white space, escapes, unknown keys."""

import json
from collections.abc import Callable
from typing import Any

from .common import (
    ENVELOPE_KEYS,
    FULL,
    HELLO,
    b64,
    compact,
    direct,
    link,
    ok,
    ordered,
    pattern,
    repeat,
    splice,
    wire,
)


def orders(keys: list[str]) -> dict[str, list[str]]:
    """A systematic set of permutations by name; none twice."""
    found: dict[str, list[str]] = {
        "reversed": keys[::-1],
        "alphabetical": sorted(keys),
    }
    for key in keys:
        rest = [other for other in keys if other != key]
        found[f"{key}-first"] = [key, *rest]
        found[f"{key}-last"] = [*rest, key]
    unique: dict[str, list[str]] = {}
    for name, order in found.items():
        if order != keys and order not in unique.values():
            unique[name] = order
    return unique


def received_orders() -> None:
    big = wire(direct(pattern(1500), "binary", data="@data@"))
    parts = {"data": {"pattern_base64": 1500}}
    template = json.loads(big)["payloads"][0]
    for name, order in orders(list(direct())).items():
        ok(
            f"order-{name}",
            "payload keys come in any order",
            wire(ordered(direct(), order)),
            [HELLO],
        )
        ok(
            f"order-{name}-big",
            "the same with more than 1 KB of data",
            splice(wire(ordered(template, order)), **parts),
            [["msg", {"pattern": 1500}, "binary"]],
        )
    # What data is stays open until its siblings came: lengths around 1 KB of base64, each encoding.
    for length in (762, 765, 768, 771, 774):
        late = direct(pattern(length), "binary")
        ok(
            f"data-before-all-{length}",
            "data before everything that says what it is",
            wire(ordered(late, ["data", *list(late)])),
            [["msg", {"pattern": length}, "binary"]],
        )
    received_orders_json()
    for name in ("data-first", "data-last", "transport-last", "metadata-first", "size-last"):
        ok(
            f"link-order-{name}",
            "link payloads too",
            wire(ordered(link(b"abc"), orders(list(link(b"")))[name])),
            [["a.bin", {"text": "abc", "as": "bytes"}, "binary"]],
            files={"/file/U1/F1/a.bin": {"text": "abc"}},
        )
    reverse = list(reversed(direct()))
    full = {**FULL, "payloads": [ordered(direct(), reverse), direct("[]", "dictionary")]}
    top = orders(ENVELOPE_KEYS)
    for name in (
        "reversed",
        "alphabetical",
        "payloads-first",
        "metadata-first",
        "receiver_id-last",
    ):
        ok(
            f"envelope-order-{name}",
            "envelope keys come in any order",
            compact(ordered(full, top[name])),
            [HELLO, ["msg", {"json": []}, "dictionary"]],
            fields=FULL,
        )


def received_orders_json() -> None:
    """encoding json where the data comes first, below and above 1 KB."""
    for size, count in (("small", 2), ("big", 400)):
        words = ["ab"] * count
        rows = [{"a": "b"}] * count
        cases: list[tuple[str, str, Any, Any]] = [
            ("dictionary", "value", {"w": words}, {"json": {"w": words}}),
            ("dictionary", "text", compact(words), {"json": words}),
            ("jsontable", "value", rows, {"json": rows}),
            ("text", "text", "ü" * count, {"text": "ü" * count}),
        ]
        for kind, form, data, value in cases:
            text = data if form == "text" else compact(data)
            late = direct(b"", kind, encoding="json", size=len(text.encode()), data=data)
            ok(
                f"json-{kind}-{form}-data-first-{size}",
                "data before its encoding",
                wire(ordered(late, ["data", *list(late)])),
                [["msg", value, kind]],
            )


def spaced(value: Any, gap: str) -> str:
    """JSON text with `gap` wherever white space may stand."""
    if isinstance(value, dict):
        inner = ",".join(f"{gap}{compact(k)}{gap}:{spaced(v, gap)}" for k, v in value.items())
        return f"{gap}{{{inner or gap}}}{gap}"
    if isinstance(value, list):
        return f"{gap}[{','.join(spaced(v, gap) for v in value) or gap}]{gap}"
    return f"{gap}{compact(value)}{gap}"


def escaped(text: str, form: Callable[[str], str]) -> str:
    return '"' + "".join(form(char) for char in text) + '"'


def u_escape(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join("\\u" + units[i : i + 4] for i in range(0, len(units), 4))


def all_escaped(value: Any, form: Callable[[str], str]) -> str:
    """JSON text in which every character of every string goes through `form`."""
    if isinstance(value, dict):
        pairs = (f"{escaped(k, form)}:{all_escaped(v, form)}" for k, v in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(all_escaped(v, form) for v in value) + "]"
    return escaped(value, form) if isinstance(value, str) else compact(value)


def received_spelling() -> None:
    full = {**FULL, "payloads": [direct(), direct("[]", "dictionary")]}
    expected = [HELLO, ["msg", {"json": []}, "dictionary"]]
    for name, gap in (("spaces", " "), ("mixed", " \t\r\n"), ("many", "\n" * 40)):
        ok(
            f"white-space-{name}",
            "white space between any two tokens",
            spaced(full, gap),
            expected,
            fields=FULL,
        )
    ok(
        "white-space-1-kilobyte",
        "before the first token and after the last",
        splice("@gap@" + wire(direct()) + "@gap@", gap=repeat(" ", 1024)),
        [HELLO],
    )
    ok(
        "escaped-lower-hex",
        "every character as \\uXXXX, keys too",
        all_escaped(full, u_escape),
        expected,
        fields=FULL,
    )
    upper = all_escaped(full, lambda char: "\\u" + u_escape(char)[2:].upper())
    ok("escaped-upper-hex", "hexadecimal digits in capitals", upper, expected, fields=FULL)
    solidus = {**FULL, "payloads": [link(b"abc"), direct(b"\xff\xff\xff\xfe", "binary")]}
    ok(
        "escaped-solidus",
        "\\/ in URLs and base64, \\u003d for the padding",
        compact(solidus).replace("/", "\\/").replace('="', '\\u003d"'),
        [
            ["a.bin", {"text": "abc", "as": "bytes"}, "binary"],
            ["msg", {"base64": "/////g=="}, "binary"],
        ],
        files={"/file/U1/F1/a.bin": {"text": "abc"}},
        fields=FULL,
    )
    ok(
        "escaped-key",
        "a known key may be spelled with escapes",
        wire(direct()).replace('"data"', '"da\\u0074a"').replace('"size"', '"\\u0073ize"'),
        [HELLO],
    )
    text = '"\\/\b\f\n\r\tA\u00e9\ud7ff\ue000\uffff\U00010000\U0010ffff'
    spelled = (
        '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00E9\\uD7ff\\ue000\\uFFFF\\ud800\\udc00\\uDBFF\\uDFFF"'
    )
    ok(
        "every-escape",
        "in a field, a name, metadata, text and values under encoding json",
        '{"sender_name":@,"metadata":{@:@},"payloads":[{"dataname":@,"payload_type":"text",'
        '"transport":"direct","encoding":"json","data":@},{"dataname":@,"payload_type":"dictionary",'
        '"transport":"direct","encoding":"json","data":{@:[@]}}]}'.replace("@", spelled),
        [[text, {"text": text}, "text"], [text, {"json": {text: [text]}}, "dictionary"]],
        fields={"sender_name": text, "metadata": {text: text}},
    )
    ok(
        "short-escapes",
        "a message as short as can be, of escapes that some writers have no short form of",
        wire(direct(dataname="\b\f" * 200)),
        [["\b\f" * 200, HELLO[1], "text"]],
    )
    ok(
        "short-escapes-by-size",
        "size counts the shortest escape, whichever was sent",
        '{"payloads":[{"dataname":"d","payload_type":"dictionary","transport":"direct",'
        '"encoding":"json","size":12,"data":{"a":"\\u0008\\f"}}]}',
        [["d", {"json": {"a": "\b\f"}}, "dictionary"]],
    )
    ok(
        "every-escape-in-payload",
        "the same inside a dictionary's own text",
        wire(direct(f"{{{spelled}:{spelled}}}", "dictionary")),
        [["msg", {"json": {text: text}}, "dictionary"]],
    )
    ok(
        "raw-unicode",
        "raw UTF-8 of every length, DEL, U+2028 and non-characters",
        wire(direct(dataname="\x7f\x80߿ࠀ\u2028\ufffe\U00010000\U0010ffff")),
        [["\x7f\x80߿ࠀ\u2028\ufffe\U00010000\U0010ffff", HELLO[1], "text"]],
    )
    big = wire(direct(pattern(1500), "binary", data="@a@"))
    ok(
        "escapes-across-1-kilobyte",
        "escapes all through more than 1 KB of base64",
        all_escaped(json.loads(big.replace("@a@", b64(pattern(1500)))), u_escape),
        [["msg", {"pattern": 1500}, "binary"]],
    )
    received_unknown()


def received_unknown() -> None:
    junk = {
        "a": [1, -2.5e-3, '}]"\\', None, True, False, {}, [], [[{"b": [{}]}]]],
        "payloads": [{"data": "x"}],
        "data": 5,
        "😀": {"": ""},
    }
    unknown = {"x-new": junk, "Data": 1, "dat": 2, "datas": 3, "payload": [], "Payloads": {}, "": 0}
    for where in ("before", "after"):

        def add(obj: dict[str, Any], where: str = where) -> dict[str, Any]:
            return {**unknown, **obj} if where == "before" else {**obj, **unknown}

        inner = add(direct(metadata=add({"payload_bytes": 11})))
        ok(
            f"unknown-keys-{where}",
            "unknown keys at every level are skipped, nested values and all",
            compact(add({**FULL, "payloads": [inner]})),
            [HELLO],
            fields=FULL,
        )
    ok(
        "unknown-long-string",
        "an unknown string may be longer than any field",
        splice('{"x":"@long@",' + wire(direct())[1:], long=repeat('\\"}]', 2000)),
        [HELLO],
    )
    ok(
        "unknown-many-keys",
        "and there may be many",
        splice("{@keys@" + wire(direct())[1:], keys=repeat('"x":[],', 500)),
        [HELLO],
    )
    ok(
        "payload-bytes-ignored",
        "metadata.payload_bytes is information only",
        wire(direct(metadata={"payload_bytes": "many"}), direct(metadata={})),
        [HELLO, HELLO],
    )
    ok(
        "send-to-ignored",
        "send_to is not compared with the subject",
        wire(direct(), send_to="some.where.else", timestamp="yesterday"),
        [HELLO],
        fields={"send_to": "some.where.else", "timestamp": "yesterday"},
    )


def add_cases() -> None:
    """Adds every case of this module."""
    received_orders()
    received_spelling()
