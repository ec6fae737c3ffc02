"""reader: nothing a message says is believed. The format's cases are in tests/conformance."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectors
from natsbridge import reader
from natsbridge.errors import CODES, NATSBridgeError

PAYLOAD = {
    "id": "p",
    "dataname": "msg",
    "payload_type": "text",
    "transport": "direct",
    "encoding": "base64",
    "size": 5,
    "data": "SGVsbG8=",
    "metadata": {"payload_bytes": 5},
}


def read(data: bytes) -> list[Any]:
    envelope = reader.read_envelope(data)
    payloads = [reader.check_payload(raw, i) for i, raw in enumerate(envelope.payloads)]
    return [
        reader.decode_direct(p, envelope.size) if p.transport == "direct" else p.data
        for p in payloads
    ]


def message(**changes: Any) -> bytes:
    payload = {k: v for k, v in {**PAYLOAD, **changes}.items() if v is not ...}
    return json.dumps({"payloads": [payload]}).encode()


def code(data: bytes) -> str:
    with pytest.raises(NATSBridgeError) as e:
        read(data)
    return e.value.code


def test_a_whole_envelope_is_read() -> None:
    assert read(message()) == [(b"Hello", None)]
    fields = reader.read_envelope(b'{"payloads":[],"sender_name":"x","extra":[1e999]}').fields
    assert fields["sender_name"] == "x"
    assert fields["reply_to"] == ""
    assert "extra" not in fields


@given(st.integers(0, len(message()) - 1))
def test_a_message_cut_anywhere_is_invalid(cut: int) -> None:
    assert code(message()[:cut]) == "INVALID_ENVELOPE"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_an_envelope_or_an_error(data: bytes) -> None:
    try:
        read(data)
    except NATSBridgeError as e:
        known, said = e.code in CODES, e.message
    else:
        known, said = True, "fine"
    assert known
    assert said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"payload_type": "nope"}, "INVALID_PAYLOAD_TYPE"),
        ({"transport": "pigeon"}, "INVALID_TRANSPORT"),
        ({"payload_type": "nope", "transport": "pigeon"}, "INVALID_PAYLOAD_TYPE"),
        ({"transport": "pigeon", "encoding": "rot13"}, "INVALID_TRANSPORT"),
        ({"encoding": "rot13", "size": -1}, "INVALID_ENVELOPE"),
        ({"dataname": ...}, "INVALID_ENVELOPE"),
        ({"data": ...}, "INVALID_ENVELOPE"),
        ({"data": 5}, "INVALID_ENVELOPE"),
        ({"data": None}, "INVALID_ENVELOPE"),
        ({"size": True}, "INVALID_ENVELOPE"),
        ({"size": 1.0}, "INVALID_ENVELOPE"),
        ({"size": 2**53 + 1}, "INVALID_ENVELOPE"),
        ({"size": 10_000}, "INTEGRITY_ERROR"),
        ({"size": 4}, "INTEGRITY_ERROR"),
        ({"data": "SGVsbG8"}, "DESERIALIZATION_ERROR"),
        ({"encoding": "arrow-ipc"}, "INVALID_ENVELOPE"),
        ({"encoding": "none"}, "INVALID_ENVELOPE"),
        ({"encoding": "json", "payload_type": "binary"}, "INVALID_ENVELOPE"),
        ({"encoding": "json", "data": "longer"}, "INTEGRITY_ERROR"),
        (
            {"encoding": "json", "payload_type": "dictionary", "data": "{", "size": 9},
            "DESERIALIZATION_ERROR",
        ),
        ({"metadata": {"sha256": "x"}}, "INVALID_ENVELOPE"),
        ({"dataname": "x" * 1025}, "INVALID_ENVELOPE"),
        ({"transport": "link", "encoding": "base64"}, "INVALID_ENVELOPE"),
    ],
)
def test_each_fault_has_its_code(changes: dict[str, Any], expected: str) -> None:
    assert code(message(**changes)) == expected


def test_duplicate_known_keys_are_invalid_and_unknown_ones_are_not() -> None:
    assert code(b'{"payloads":[],"payloads":[]}') == "INVALID_ENVELOPE"
    assert read(b'{"payloads":[],"x":1,"x":2}') == []


def test_counts_are_limited() -> None:
    one = message()[len('{"payloads": [') : -2].decode()
    assert len(read(f'{{"payloads":[{",".join([one] * 64)}]}}'.encode())) == 64
    assert code(f'{{"payloads":[{",".join([one] * 65)}]}}'.encode()) == "INVALID_ENVELOPE"


def test_an_error_response_has_no_payloads() -> None:
    envelope = reader.read_envelope(b'{"error":{"code":"X","message":"m","details":{"a":1}}}')
    assert envelope.fields["error"] == {"code": "X", "message": "m", "details": {"a": 1}}
    assert envelope.payloads == []


@pytest.mark.parametrize(
    "text",
    [
        "QUI=QUJD",
        "QQ",
        "QQ=",
        "QQ===",
        "=",
        "====",
        "QUJD\n",
        "QUJD=",
        "QUJD====",
        "QUI==",
        "Q",
        "QU_-",
        "QU JD",
        "QQ==QQ==",
        "A=AA",
        "é===",
        "QUJD\x00",
    ],
)
def test_base64_that_is_not_strict_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        reader.decode_base64(text)


def test_base64_that_is_strict_is_decoded() -> None:
    assert reader.decode_base64("QR==") == b"A"  # bits beyond the last byte may be anything
    assert reader.decode_base64("") == b""


@given(st.binary())
def test_base64_round_trip(data: bytes) -> None:
    assert reader.decode_base64(base64.b64encode(data).decode()) == data


# Long base64 never passes the JSON parser (reader.cut). Whatever else stands in a message, the
# result must be that of the parser alone.
LONG = base64.b64encode(bytes(range(48))).decode()


def result(data: bytes, long: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(reader, "_LONG", long)
    try:
        return read(data)
    except NATSBridgeError as e:
        return e.code


def both(data: bytes) -> Any:
    """Read with everything cut that can be, and with nothing; the results must be the same."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut = result(data, 1, monkeypatch)
        assert cut == result(data, 1 << 60, monkeypatch)
    return cut


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", [(bytes(range(48)), None)]),
        ('"data": ', '"data" \t\n: ', [(bytes(range(48)), None)]),
        ('"data": ', '"data":1,"data": ', "INVALID_ENVELOPE"),  # twice
        ('"data": ', '"\\"data": ', "INVALID_ENVELOPE"),  # another key
        ('"data": ', '"DATA": ', "INVALID_ENVELOPE"),
        ('"data": ', '"x"data": ', "INVALID_ENVELOPE"),
        ('"data": ', "NaN,", "INVALID_ENVELOPE"),
        ('"data": ', '"x": NaN, "data": ', "INVALID_ENVELOPE"),
        ('"data": ', '"x": Infinity, "data": ', "INVALID_ENVELOPE"),
        ('"data": "', '"data": NaN, "x": "', "INVALID_ENVELOPE"),
        ('"base64"', '"none"', "INVALID_ENVELOPE"),
        ('"base64"', '"arrow-ipc"', "INVALID_ENVELOPE"),
        ('"base64"', "null", [(bytes(range(48)), None)]),
        ('"base64"', '"json"', "INVALID_ENVELOPE"),
        ('"size": 48', '"size": 47', "INTEGRITY_ERROR"),
        ('"size": 48', '"size": null', [(bytes(range(48)), None)]),
        ('"direct"', '"link"', "INVALID_ENVELOPE"),
        ('"id": "p"', f'"id": {{"data": "{LONG}"}}', "INVALID_ENVELOPE"),
        ('"metadata": {}', f'"metadata": {{"data": "{LONG}"}}', [(bytes(range(48)), None)]),
        ('"metadata": {}', '"metadata": {"s": "\\ud83d\\ude00"}', [(bytes(range(48)), None)]),
        ('"metadata": {}', '"metadata": {"s": "\\ud83d"}', "INVALID_ENVELOPE"),
        ('"payloads"', f'"data": "{LONG}", "payloads"', [(bytes(range(48)), None)]),
        (LONG, LONG[:-1] + "\\u003d", "INTEGRITY_ERROR"),  # a byte less
        (LONG, LONG[:-4] + "\\u004cS4v", [(bytes(range(48)), None)]),
        (LONG, LONG[:-1] + "é", "DESERIALIZATION_ERROR"),
        (LONG, LONG[:-1] + "\n", "INVALID_ENVELOPE"),
        (LONG, LONG[:-1] + "?", "DESERIALIZATION_ERROR"),
        (LONG, LONG + "====", "DESERIALIZATION_ERROR"),
        (LONG + '"', LONG, "INVALID_ENVELOPE"),
    ],
)
def test_base64_that_is_cut_out_changes_nothing(old: str, new: str, expected: Any) -> None:
    data = message(data=LONG, size=48, payload_type="binary", metadata={}).decode()
    assert both(data.replace(old, new, 1).encode()) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.sampled_from(['"', "\\", ",", ":", "{", "}", "[", "]", "NaN", '"data":"AAAA"', "é"]),
        ),
        max_size=4,
    )
)
def test_nor_does_it_in_damaged_messages(changes: list[tuple[int, str]]) -> None:
    text = message(data=LONG, size=48, payload_type="binary", metadata={}).decode()
    for at, what in changes:
        at %= len(text)
        text = text[:at] + what + text[at + (at % 2) :]
    both(text.encode())


def test_what_looks_like_it_inside_a_value_is_left_there() -> None:
    for value in ({"data": LONG}, [{"data": LONG}], LONG):
        data = message(data=value, size=200, payload_type="dictionary", encoding="json")
        assert both(data) == ("DESERIALIZATION_ERROR" if value == LONG else [(None, value)])


def test_long_base64_is_cut_out_and_does_not_stay_in_the_text() -> None:
    data = message(data="A" * 8192, size=6144, payload_type="binary", metadata={})
    cut = reader.cut(data)
    assert cut.values == [bytes(6144)]
    assert len(cut.text) < 300
    assert read(data) == [(bytes(6144), None)]


def test_all_shared_receive_cases_are_the_same_without_cutting() -> None:
    cases = vectors.load("receive.json")
    for case in cases:
        both(vectors.wire(case, "http://127.0.0.1:9"))
    assert len(cases) > 100
