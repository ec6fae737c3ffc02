"""What senders must put on the wire, and what they must refuse to send."""

import json
from typing import Any

from .arrow_samples import ARROW, ARROW_COLUMNS
from .common import (
    ARGUMENT,
    BYTE_TYPES,
    ENVELOPE_KEYS,
    FULL,
    SEND,
    TYPE,
    TYPES,
    b64,
    nested,
    nested_object,
    repeat,
)


def sends(name: str, why: str, data: Any, transports: list[str] | None = None, **more: Any) -> None:
    """Adds a send that must arrive. Expectations beside the transports come as keywords."""
    expect: dict[str, Any] = {"transports": transports or ["direct"] * len(data)}
    for key in ("payloads", "fields", "reply", "removable"):
        if key in more:
            expect[key] = more.pop(key)
    SEND.append(
        {
            "name": name,
            "why": why,
            "subject": more.pop("subject", "conformance.send"),
            "data": data,
            **more,
            "expect": expect,
        }
    )


def refuses(name: str, why: str, code: str, data: Any, **more: Any) -> None:
    """Adds a send that must be refused."""
    subject = more.pop("subject", "conformance.send")
    if "lone_surrogate" in json.dumps(data):
        more["needs"] = ["surrogates"]
    SEND.append({"name": name, "why": why, "subject": subject, "data": data, **more, "error": code})


TEXT = ["msg", {"text": "Hello"}, "text"]


def add_cases() -> None:
    """Adds every case of this module."""
    values: dict[str, dict[str, Any]] = {
        **{kind: value for kind, (_, value) in TYPES.items()},
        "arrowtable": {"arrow": {"columns": ARROW_COLUMNS, "base64": b64(ARROW["stream"])}},
    }
    for kind, value in values.items():
        sends(f"direct-{kind}", f"{kind} in the message", [["d", value, kind]])
        sends(
            f"link-{kind}",
            f"{kind} by claim check",
            [["d", value, kind]],
            ["link"],
            options={"size_threshold": 0},
        )
        raw = b64(TYPES[kind][0])
        for form in ("bytes", "stream"):
            spec = {"base64": raw, "as": form}
            sends(
                f"{form}-{kind}",
                "any type may be given as bytes or as a binary stream",
                [["d", spec, kind]],
                payloads=[["d", value, kind]],
            )
        sends(
            f"stream-link-{kind}",
            "a stream by claim check",
            [["d", {"base64": raw, "as": "stream"}, kind]],
            ["link"],
            options={"size_threshold": 1},
            payloads=[["d", value, kind]],
        )
    sends(
        "nothing",
        "an empty list is legal (an ACK)",
        [],
        fields={"msg_purpose": "ACK"},
        options={"msg_purpose": "ACK"},
    )
    sends(
        "mixed",
        "order is kept",
        [TEXT, ["i", {"pattern": 5000}, "image"], ["t", {"json": [{"a": 1}]}, "jsontable"]],
        ["direct", "link", "direct"],
        options={"size_threshold": 5000},
    )
    for threshold in (1, 100, 100_000):
        for size in (threshold - 1, threshold):
            sends(
                f"threshold-{threshold}-size-{size}",
                "size < threshold goes direct",
                [["d", {"pattern": size}, "binary"]],
                ["direct" if size < threshold else "link"],
                options={"size_threshold": threshold},
            )
    sends(
        "threshold-counts-bytes",
        "serialized bytes count, not characters",
        [["a", {"text": "üüü"}, "text"], ["b", {"text": "aaaaa"}, "text"]],
        ["link", "direct"],
        options={"size_threshold": 6},
    )
    for kind in ("text", "binary"):
        spec = {"text": ""} if kind == "text" else {"base64": ""}
        sends(f"empty-{kind}", "0 bytes", [["d", spec, kind]])
        sends(
            f"empty-{kind}-link",
            "0 bytes under a threshold of 0",
            [["d", spec, kind]],
            ["link"],
            options={"size_threshold": 0},
        )
    sends(
        "three-that-do-not-fit",
        "the largest goes by link until the broker takes the message",
        [
            ["a", {"pattern": 300_000}, "binary"],
            ["b", {"pattern": 400_000}, "binary"],
            ["c", {"pattern": 299_999}, "binary"],
        ],
        ["direct", "link", "direct"],
        options={"size_threshold": 500_000},
    )
    sends(
        "direct-499999",
        "as large as the default threshold allows",
        [["d", {"pattern": 499_999, "as": "stream"}, "binary"]],
        payloads=[["d", {"pattern": 499_999}, "binary"]],
        options={"size_threshold": 500_000},
    )
    sends(
        "link-1000000",
        "large",
        [["d", {"pattern": 1_000_000, "as": "stream"}, "video"]],
        ["link"],
        payloads=[["d", {"pattern": 1_000_000}, "video"]],
        options={"size_threshold": 500_000},
    )
    sends(
        "no-file-server",
        "what fits goes direct when the upload fails",
        [["d", {"pattern": 500}, "binary"]],
        options={"size_threshold": 100, "fileserver_url": "http://127.0.0.1:1"},
    )
    refuses(
        "no-file-server-no-fallback",
        "unless the caller forbids it",
        "UPLOAD_FAILED",
        [["d", {"pattern": 500}, "binary"]],
        options={
            "size_threshold": 100,
            "fileserver_url": "http://127.0.0.1:1",
            "fallback_direct": False,
        },
    )
    sent_fields()
    sent_values()
    refused_subjects()
    refused_values()
    refused_arguments()


def sent_fields() -> None:
    chosen = {key: FULL[key] for key in ENVELOPE_KEYS if key in FULL}
    for key in ("timestamp", "send_to", "broker_url"):
        del chosen[key]
    sends(
        "chosen-fields",
        "every field the caller may choose",
        [TEXT],
        options=chosen,
        fields={**chosen, "send_to": "conformance.send"},
        reply="reply.subject",
    )
    sends(
        "default-fields",
        "who sends is the connection; the rest is empty",
        [TEXT],
        sender={"name": "pico", "id": "pico-1"},
        fields={
            "sender_name": "pico",
            "sender_id": "pico-1",
            "receiver_name": "",
            "receiver_id": "",
            "reply_to": "",
            "reply_to_msg_id": "",
            "metadata": {},
            "msg_purpose": "chat",
        },
        reply="",
    )
    sends(
        "own-sender",
        "an argument overrides the connection",
        [TEXT],
        sender={"name": "pico", "id": "pico-1"},
        options={"sender_name": "x", "sender_id": "y"},
        fields={"sender_name": "x", "sender_id": "y"},
    )
    for field in ("receiver_name", "receiver_id"):
        sends(
            f"addressed-by-{field}",
            "a file for one receiver is removable",
            [["d", {"pattern": 50}, "binary"]],
            ["link"],
            removable=True,
            options={"size_threshold": 0, field: "desk"},
        )
    sends(
        "broadcast",
        "a file for everybody is not",
        [["d", {"pattern": 50}, "binary"]],
        ["link"],
        removable=False,
        options={"size_threshold": 0},
    )
    sends(
        "reply-to-not-a-subject",
        "stays in the envelope only",
        [TEXT],
        options={"reply_to": "not a subject"},
        fields={"reply_to": "not a subject"},
        reply="",
    )
    for name, subject in {
        "dotted": "lab.camera.1",
        "one-token": "/chat/user/v1/message",
        "unicode": "größe.世界.😀",
        "star-in-token": "conformance.a*b",
        "greater-in-token": "conformance.a>b",
        "punctuation": "conformance.$a-b_c:d",
    }.items():
        sends(
            f"subject-{name}",
            "a legal subject, used as given",
            [TEXT],
            subject=subject,
            fields={"send_to": subject},
        )
    sends("subject-1024", "the longest subject", [TEXT], subject=repeat("s", 1024))
    sends("limit-payloads", "64 payloads", [["d", {"text": "x"}, "text"]] * 64)
    sends(
        "limit-fields",
        "1024 bytes of UTF-8",
        [[repeat("ü", 512), {"text": "x"}, "text"]],
        options={"correlation_id": repeat("ü", 512), "sender_name": repeat("n", 1024)},
        fields={"correlation_id": "ü" * 512},
    )
    sends(
        "limit-metadata",
        "4096 bytes of compact JSON",
        [TEXT],
        options={"metadata": {"k": repeat("a", 4088)}},
        fields={"metadata": {"k": "a" * 4088}},
    )
    names = ["", "größe.txt", "../../etc/passwd", 'a"b\\c', "a\r\nX-Evil: 1", "a\x00b", "😀"]
    sends("data-names", "a dataname is any string", [[n, {"text": "x"}, "text"] for n in names])
    sends(
        "data-names-link",
        "also in an upload",
        [[n, {"text": "x"}, "text"] for n in names],
        ["link"] * len(names),
        options={"size_threshold": 0},
    )


def sent_values() -> None:
    for name, text in {
        "escapes": 'quote " backslash \\ slash / tab \t line\r\n nul \x00 del \x7f',
        "unicode": "ü€😀\u2028\ufeff\uffff",
    }.items():
        sends(f"text-{name}", "text is kept as it is", [["d", {"text": text}, "text"]])
        sends(
            f"dictionary-{name}",
            "strings are kept, as keys too",
            [["d", {"json": {text: [text]}}, "dictionary"]],
        )
    values: dict[str, Any] = {
        "null": None,
        "true": True,
        "number": -12,
        "float": 2.5,
        "big-number": 9007199254740991,
        "string": "text",
        "empty-list": [],
        "empty-object": {},
        "nested": {"a": [{"b": [None, True, False, 0, -0.5, "x"]}]},
        "limit-depth": json.loads(nested(32)),
    }
    for name, value in values.items():
        sends(
            f"dictionary-{name}",
            "a dictionary is any JSON value",
            [["d", {"json": value}, "dictionary"]],
        )
    sends(
        "dictionary-sequence",
        "a fixed sequence is a list",
        [["d", {"special": "tuple"}, "dictionary"]],
        payloads=[["d", {"json": [1, [2]]}, "dictionary"]],
    )
    sends("jsontable-empty", "a table without rows", [["d", {"json": []}, "jsontable"]])
    sends(
        "text-as-bytes",
        "bytes of a text",
        [["d", {"text": "ü", "as": "bytes"}, "text"]],
        payloads=[["d", {"text": "ü"}, "text"]],
    )
    for length in (1, 2, 3, 766, 767, 768, 769, 5000):
        sends(
            f"stream-{length}",
            "a stream's size is found",
            [["d", {"pattern": length, "as": "stream"}, "binary"]],
            payloads=[["d", {"pattern": length}, "binary"]],
        )


def refused_subjects() -> None:
    for name, subject in {
        "empty": "",
        "space": " ",
        "inner-space": "a b",
        "trailing-space": "a ",
        "tab": "a\tb",
        "line-feed": "a\nb",
        "line-break": "a\r\nPUB b 0\r\n",
        "nul": "a\x00b",
        "control": "a\x1fb",
        "delete": "a\x7fb",
        "star": "*",
        "star-token": "a.*",
        "star-between": "a.*.b",
        "greater": ">",
        "greater-token": "a.>",
        "greater-first": ">.a",
        "dot": ".",
        "leading-dot": ".a",
        "trailing-dot": "a.",
        "two-dots": "a..b",
        "number": 5,
        "null": None,
        "list": ["a"],
        "1025-bytes": repeat("s", 1025),
        "1026-bytes-unicode": repeat("ü", 513),
    }.items():
        refuses(
            f"subject-{name}", "not a subject one can publish to", ARGUMENT, [TEXT], subject=subject
        )


def refused_values() -> None:
    kinds: dict[str, Any] = {
        "empty": "",
        "capital": "Text",
        "trailing-space": "text ",
        "unknown": "json",
        "number": 5,
        "null": None,
        "list": ["text"],
    }
    for name, kind in kinds.items():
        refuses(f"type-{name}", "an unknown type", TYPE, [["d", {"text": "x"}, kind]])
    no_bytes = {"null": None, "number": 5, "path": "path.jpg", "list": [1, 2], "dict": {"a": 1}}
    wrong: dict[str, dict[str, Any]] = {
        "text": {"null": None, "number": 5, "true": True, "list": ["a"], "dict": {"a": 1}},
        "jsontable": {
            "null": None,
            "number": 5,
            "string": "[]",
            "dict": {"a": 1},
            "number-row": [1],
            "second-row": [{"a": 1}, 2],
            "list-row": [[{}]],
            "null-row": [None],
        },
        **dict.fromkeys(BYTE_TYPES, no_bytes),
        "arrowtable": {**no_bytes, "rows": [{"a": 1}]},
    }
    for kind, values in wrong.items():
        for name, value in values.items():
            refuses(
                f"{kind}-of-{name}",
                f"not a value of {kind}",
                TYPE,
                [["d", {"json": value}, kind]],
            )
        refuses(
            f"{kind}-of-object",
            f"not a value of {kind}",
            TYPE,
            [["d", {"special": "object"}, kind]],
        )
    for special in (
        "nan",
        "inf",
        "minus_inf",
        "nested_nan",
        "object",
        "nested_object",
        "int_key",
        "null_key",
        "nested_bytes",
        "set",
        "cycle",
        "lone_surrogate",
    ):
        refuses(
            f"dictionary-{special}",
            "not a JSON value",
            TYPE,
            [["d", {"special": special}, "dictionary"]],
        )
    refuses(
        "dictionary-depth-33",
        "too deep",
        TYPE,
        [["d", {"json": json.loads(nested(33))}, "dictionary"]],
    )
    refuses(
        "jsontable-depth-33",
        "too deep",
        TYPE,
        [["d", {"json": [json.loads(nested_object(32))]}, "jsontable"]],
    )
    for special in ("table_nan", "table_int_key", "table_bytes"):
        refuses(
            f"jsontable-{special}",
            "not a JSON value",
            TYPE,
            [["d", {"special": special}, "jsontable"]],
        )
    refuses(
        "text-lone-surrogate",
        "cannot be UTF-8",
        TYPE,
        [["d", {"special": "lone_surrogate"}, "text"]],
    )
    for kind in ("text", "binary"):
        refuses(
            f"text-stream-{kind}",
            "a stream of characters has no bytes",
            TYPE,
            [["d", {"text": "abc", "as": "text_stream"}, kind]],
        )
    refuses(
        "second-is-wrong",
        "nothing is sent or uploaded before all was checked",
        TYPE,
        [["a", {"pattern": 50}, "binary"], ["b", {"json": 5}, "text"]],
        options={"size_threshold": 0},
    )


def refused_arguments() -> None:
    data: dict[str, Any] = {
        "string": "abc",
        "null": None,
        "number": 5,
        "object": {"a": 1},
        "payload-outside-list": ["d", {"text": "x"}, "text"],
        "two-items": [["d", {"text": "x"}]],
        "four-items": [["d", {"text": "x"}, "text", 1]],
        "payload-null": [None],
        "payload-string": ["abc"],
    }
    for name, value in data.items():
        refuses(f"data-{name}", "data is a list of (dataname, value, type)", ARGUMENT, value)
    names: dict[str, Any] = {
        "number": 5,
        "null": None,
        "list": ["a"],
        "1025-bytes": repeat("n", 1025),
        "lone-surrogate": {"special": "lone_surrogate"},
    }
    for label, dataname in names.items():
        refuses(
            f"dataname-{label}",
            "a dataname is a string of at most 1024 bytes",
            ARGUMENT,
            [[dataname, {"text": "x"}, "text"]],
        )
    refuses("payloads-65", "at most 64", ARGUMENT, [["d", {"text": "x"}, "text"]] * 65)
    thresholds: dict[str, Any] = {
        "negative": -1,
        "fraction": 1.5,
        "string": "5",
        "true": True,
        "list": [1],
    }
    for name, value in thresholds.items():
        refuses(
            f"size-threshold-{name}",
            "a whole number of bytes",
            ARGUMENT,
            [TEXT],
            options={"size_threshold": value},
        )
    metadata: dict[str, Any] = {
        "list": [],
        "string": "{}",
        "number": 5,
        "nan": {"special": "nested_nan"},
        "int-key": {"special": "int_key"},
        "too-long": {"k": repeat("a", 4089)},
        "too-deep": json.loads(nested_object(32)),
    }
    for name, value in metadata.items():
        refuses(
            f"metadata-{name}",
            "a JSON object of at most 4096 bytes",
            ARGUMENT,
            [TEXT],
            options={"metadata": value},
        )
    for key in (
        "correlation_id",
        "msg_id",
        "msg_purpose",
        "sender_name",
        "sender_id",
        "receiver_name",
        "receiver_id",
        "reply_to",
        "reply_to_msg_id",
    ):
        refuses(f"{key}-number", "a string field", ARGUMENT, [TEXT], options={key: 5})
        refuses(
            f"{key}-long", "at most 1024 bytes", ARGUMENT, [TEXT], options={key: repeat("a", 1025)}
        )
