"""envelope: building, sizing and writing."""

import base64
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsbridge import envelope
from natsbridge.errors import NATSBridgeError

FIELDS = {key: "" for key in envelope.STRING_KEYS if key != "timestamp"}


def env_with(*payloads: tuple[str, Any, str, int]) -> dict[str, Any]:
    env = envelope.build_envelope({**FIELDS, "send_to": "a.b"}, {"room": "ü"})
    for name, data, payload_type, size in payloads:
        env["payloads"].append(envelope.build_payload(name, payload_type, "direct", data, size, {}))
    return env


def test_keys_stand_in_the_order_of_the_walkthrough() -> None:
    env = env_with(("m", "Hello", "text", 5))
    assert list(env) == [*envelope.STRING_KEYS, "metadata", "payloads"]
    assert list(env["payloads"][0]) == [
        "id",
        "dataname",
        "payload_type",
        "transport",
        "encoding",
        "size",
        "data",
        "metadata",
    ]
    assert env["correlation_id"]
    assert env["msg_id"]
    assert env["correlation_id"] != env["msg_id"]


@given(st.lists(st.binary(max_size=50), max_size=5), st.text(max_size=20))
def test_the_size_is_exact_before_anything_is_encoded(datas: list[bytes], name: str) -> None:
    env = env_with(*((name, data, "binary", len(data)) for data in datas))
    pieces = envelope.frame(env)
    size = envelope.frame_size(env, pieces) + sum(envelope.base64_size(len(d)) for d in datas)
    text = envelope.fill(pieces, datas)
    assert len(text.encode()) == size
    sent = json.loads(text)
    assert [base64.b64decode(p["data"]) for p in sent["payloads"]] == datas
    assert sent["metadata"] == {"room": "ü"}
    assert "ü" in text


@pytest.mark.parametrize("key", [k for k in envelope.STRING_KEYS if k != "timestamp"])
def test_fields_are_strings_within_the_limit(key: str) -> None:
    envelope.build_envelope({**FIELDS, key: "x" * 1024}, {})
    for value in ("x" * 1025, "ü" * 513, None, 5, "\ud800"):
        with pytest.raises(NATSBridgeError) as e:
            envelope.build_envelope({**FIELDS, key: value}, {})  # type: ignore[dict-item]
        assert e.value.code == "INVALID_ARGUMENT"
        assert key in e.value.message


@pytest.mark.parametrize("metadata", [[], "x", {1: 2}, {"a": "x" * 4090}, {"a": {1}}])
def test_metadata_is_a_small_json_object(metadata: Any) -> None:
    with pytest.raises(NATSBridgeError) as e:
        envelope.check_metadata(metadata)
    assert e.value.code == "INVALID_ARGUMENT"
    envelope.check_metadata({"a": "x" * 4088})


@pytest.mark.asyncio
async def test_an_env_becomes_json_again_and_streams_are_rewound() -> None:
    stream = io.BytesIO(b"__abc")
    stream.seek(5)  # where smartsend leaves it
    env = env_with(("m", "Hello", "text", 5), ("s", stream, "binary", 3))
    for _ in range(2):
        sent = json.loads(await envelope.envelope_to_json(env))
        assert [p["data"] for p in sent["payloads"]] == ["SGVsbG8=", "YWJj"]


@pytest.mark.asyncio
async def test_an_error_response_becomes_json() -> None:
    response = NATSBridgeError("UPLOAD_FAILED", "x").to_dict()
    assert json.loads(await envelope.envelope_to_json(response)) == response


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "env",
    [
        None,
        {},
        {"payloads": [("m", "Hello", "text")]},
        env_with(("m", "Hello", "text", 4)),
        env_with(("m", b"", "text", 4)),
        {"payloads": [], "x": {1}},
        {"error": {1}},
    ],
)
async def test_what_is_no_env_is_refused(env: Any) -> None:
    with pytest.raises(NATSBridgeError) as e:
        await envelope.envelope_to_json(env)
    assert e.value.code == "INVALID_ARGUMENT"
