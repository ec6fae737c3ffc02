"""The helpers that judge results: they must tell right from wrong, whoever is judged."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

import vectors
from vector_server import VectorServer

URL = "http://127.0.0.1:8080"
CASE = {"expect": {"fields": {"msg_id": "m"}, "payloads": [["d", {"text": "abc"}, "text"]]}}
RIGHT = {"fields": {"msg_id": "m"}, "payloads": [["d", {"text": "abc"}, "text"]]}


def test_pattern_is_the_documented_one() -> None:
    for length in (0, 1, 256, 65_536, 65_537, 140_000):
        expected = bytes((i ^ i >> 8 ^ i >> 16) & 255 for i in range(length))
        assert vectors.pattern(length) == expected


def test_placeholders_are_filled_in_at_any_depth() -> None:
    value = {"a": ["{fileserver}/x", {"b": "{authority} {port}"}], "c": 1}
    filled = {"a": [f"{URL}/x", {"b": "127.0.0.1:8080 8080"}], "c": 1}
    assert vectors.place(value, URL) == filled


def test_a_template_is_the_sum_of_its_parts() -> None:
    parts = ["<{port}>", {"repeat": "ü", "times": 3}, {"pattern_base64": 4}]
    assert vectors.wire({"wire_template": parts}, URL) == "<8080>üüüAAECAw==".encode()


@pytest.mark.parametrize(
    ("expected", "found", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (0, None, False),
        (None, None, True),
        (0.1, 0.1 * (1 + 1e-15), True),
        (0.1, 0.1 * (1 + 1e-12), False),
        (2**60, 2**60 + 1, False),
        ("1", 1, False),
        ([], {}, False),
        ([1, [2]], [1, [2]], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"b": True}}, {"a": {"b": 1}}, False),
    ],
)
def test_values_compare_as_json_does(expected: Any, found: Any, equal: bool) -> None:
    assert vectors.same(expected, found) is equal


def test_a_right_result_has_no_problems() -> None:
    assert vectors.receive_problems(CASE, RIGHT, []) == []
    digest = {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    assert vectors.receive_problems(CASE, {**RIGHT, "payloads": [["d", digest, "text"]]}) == []


@pytest.mark.parametrize(
    "result",
    [
        {"error": "INVALID_ENVELOPE", "message": "x"},
        {**RIGHT, "fields": {}},
        {**RIGHT, "payloads": []},
        {**RIGHT, "payloads": RIGHT["payloads"] * 2},
        {**RIGHT, "payloads": [["e", {"text": "abc"}, "text"]]},
        {**RIGHT, "payloads": [["d", {"text": "abc"}, "binary"]]},
        {**RIGHT, "payloads": [["d", {"text": "abd"}, "text"]]},
        {**RIGHT, "payloads": [["d", {"json": "abc"}, "text"]]},
        {**RIGHT, "payloads": [["d", {"not text": "b'abc'"}, "text"]]},
    ],
)
def test_a_wrong_result_has_problems(result: vectors.Result) -> None:
    assert vectors.receive_problems(CASE, result)


def test_deletions_are_compared() -> None:
    assert vectors.receive_problems(CASE, RIGHT, ["/file/U/F/n"])
    assert vectors.receive_problems({**CASE, "deleted": ["/file/U/F/n"]}, RIGHT, [])


def test_an_error_needs_its_code_and_a_message() -> None:
    case = {"error": ["A", "B"]}
    assert vectors.receive_problems(case, {"error": "B", "message": "x"}) == []
    assert vectors.receive_problems(case, {"error": "C", "message": "x"})
    assert vectors.receive_problems(case, {"error": "A", "message": ""})
    assert vectors.receive_problems(case, RIGHT)


def test_a_table_is_compared_by_columns_or_by_its_bytes() -> None:
    spec = {"arrow": {"columns": {"a": [1, None]}, **vectors.describe(b"ipc", "binary")}}
    assert vectors.value_problem(spec, {"arrow": {"a": [1, None]}}) == ""
    assert vectors.value_problem(spec, vectors.describe(b"ipc", "arrowtable")) == ""
    assert vectors.value_problem(spec, {"arrow": {"a": [1, 2]}})
    assert vectors.value_problem(spec, vectors.describe(b"icp", "arrowtable"))


SENT: vectors.Case = {
    "data": [["d", {"text": "abc"}, "text"]],
    "expect": {"transports": ["direct"], "fields": {"send_to": "s"}, "reply": ""},
}


def sent(payload: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """A right message for SENT, with changes to the envelope and its payload."""
    envelope: dict[str, Any] = dict.fromkeys(vectors.ENVELOPE_ORDER.split(), "")
    envelope.update(correlation_id="c", msg_id="m", timestamp="2026-03-13T07:02:50.443Z")
    whole = {
        "id": "p",
        "dataname": "d",
        "payload_type": "text",
        "transport": "direct",
        "encoding": "base64",
        "size": 3,
        "data": base64.b64encode(b"abc").decode(),
        "metadata": {"payload_bytes": 3},
    }
    envelope.update(send_to="s", metadata={}, payloads=[{**whole, **(payload or {})}])
    return json.dumps({**envelope, **changes}).encode()


def no_fetch(url: str) -> bytes:
    raise AssertionError(url)


def test_a_right_message_has_no_problems() -> None:
    assert vectors.send_problems(SENT, sent(), "", no_fetch) == []


@pytest.mark.parametrize(
    "message",
    [
        b"{",
        sent(timestamp="2026-03-13T07:02:50Z"),
        sent(msg_id=""),
        sent(receiver_id=None),
        sent(send_to="t"),
        sent(extra=1),
        sent(broker_url="nats://user:pw@localhost:4222"),
        sent(payloads=[]),
        sent({"size": 4}),
        sent({"size": 3.5}),
        sent({"metadata": {}}),
        sent({"encoding": "none"}),
        sent({"data": "YWJj\n"}),
        sent({"data": "YWJk"}),
        sent({"dataname": "e"}),
        sent({"id": ""}),
    ],
)
def test_a_wrong_message_has_problems(message: bytes) -> None:
    assert vectors.send_problems(SENT, message, "", no_fetch)


def test_an_unwanted_reply_subject_is_a_problem() -> None:
    assert vectors.send_problems(SENT, sent(), "r", no_fetch)


def test_a_link_is_compared_with_its_file() -> None:
    case = {**SENT, "expect": {"transports": ["link"], "removable": True}}
    about = {"payload_bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest(), "removable": True}
    link = {"transport": "link", "encoding": "none", "data": f"{URL}/f", "metadata": about}
    assert vectors.send_problems(case, sent(link), "", lambda url: b"abc") == []
    assert vectors.send_problems(case, sent(link), "", lambda url: b"abd")
    link["metadata"] = {**about, "removable": False}
    assert vectors.send_problems(case, sent(link), "", lambda url: b"abc")


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_server_serves_what_a_case_says() -> None:
    files = {
        "/a ü": {"text": "abc"},
        "/chunked": {"pattern": 3000, "chunked": True},
        "/busy": {"text": "x", "fail_first": 1},
        "/teapot": {"text": "x", "status": 418},
    }
    with VectorServer() as server:
        server.serve(files)
        assert get(server.url + "/b/../a%20%C3%BC?q=1") == (200, b"abc")
        assert get(server.url + "/chunked") == (200, vectors.pattern(3000))
        assert [get(server.url + "/busy")[0] for _ in range(2)] == [503, 200]
        assert get(server.url + "/teapot")[0] == 418
        assert get(server.url + "/none")[0] == 404
        request = urllib.request.Request(server.url + "/a%20%C3%BC", method="DELETE")
        urllib.request.urlopen(request).close()
        assert server.deleted == ["/a ü"]
        server.serve({})
        assert server.deleted == []
