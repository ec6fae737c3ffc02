"""nack: who may be told of a failure, and how much."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import natsbridge
from natsbridge import nack
from natsbridge.client import Connection, Msg, Subscription
from natsbridge.errors import NATSBridgeError

pytestmark = pytest.mark.asyncio


class Pair:
    """A receiver's connection, and somebody else who hears what it publishes."""

    def __init__(self, nc: Connection, ear: Subscription, prefix: str) -> None:
        self.nc, self.ear, self.prefix = nc, ear, prefix

    async def fail(self, reply: str = "", nack_subjects: Any = (), **fields: Any) -> Any:
        """Receive a message that fails; return the NACK, or None."""
        payload = {"dataname": "d", "payload_type": "text", "transport": "direct", "data": "?"}
        whole = {"correlation_id": "c", "msg_id": "m", "payloads": [payload], **fields}
        msg = Msg("s", reply, json.dumps(whole).encode())
        with pytest.raises(NATSBridgeError):
            await natsbridge.smartreceive(
                msg, nats_connection=self.nc, nack=True, nack_subjects=nack_subjects
            )
        await self.nc.flush()
        return await self.ear.next(0.05)


@pytest_asyncio.fixture
async def pair(nats_url: str) -> AsyncIterator[Pair]:
    prefix = f"n{uuid.uuid4().hex}"
    async with (
        await natsbridge.connect(nats_url) as nc,
        await natsbridge.connect(nats_url) as other,
    ):
        yield Pair(nc, await other.subscribe(f"{prefix}.>"), prefix)


async def test_the_reply_subject_is_told(pair: Pair) -> None:
    to = f"{pair.prefix}.reply"
    msg = await pair.fail(to, reply_to=to)
    assert msg.subject == to
    response = json.loads(msg.data)
    assert response["correlation_id"] == "c"
    assert response["send_to"] == to
    assert response["error"]["code"] == "DESERIALIZATION_ERROR"
    env = await natsbridge.smartreceive(msg)
    assert env["error"]["code"] == "DESERIALIZATION_ERROR"


async def test_a_subject_that_the_caller_named_is_told(pair: Pair) -> None:
    to = f"{pair.prefix}.errors.x"
    assert await pair.fail("", [f"{pair.prefix}.errors.*"], reply_to=to) is not None


async def test_others_are_not(pair: Pair) -> None:
    to = f"{pair.prefix}.reply"
    assert await pair.fail("", reply_to=to) is None
    assert await pair.fail(f"{pair.prefix}.other", reply_to=to) is None
    assert await pair.fail("", [f"{pair.prefix}.errors.*"], reply_to=to) is None
    assert await pair.fail(to) is None


@pytest.mark.parametrize("to", ["$SYS.x", "a b", "*", "{}.*", "{}..x"])
async def test_odd_subjects_are_not(pair: Pair, to: str) -> None:
    to = to.format(pair.prefix)
    assert await pair.fail(to, [">"], reply_to=to) is None


async def test_never_in_answer_to_a_nack_or_an_invalid_envelope(pair: Pair) -> None:
    to = f"{pair.prefix}.reply"
    assert await pair.fail(to, reply_to=to, msg_purpose="NACK") is None
    assert await pair.fail(to, reply_to=to, payloads=5) is None
    assert await pair.fail(to, reply_to=to, payloads=[5]) is None


async def test_never_to_a_subject_of_our_own(pair: Pair) -> None:
    to = f"{pair.prefix}.mine"
    await pair.nc.subscribe(f"{pair.prefix}.m*".replace("m*", "*"))
    assert await pair.fail(to, reply_to=to) is None


async def test_one_a_second(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    to = f"{pair.prefix}.reply"
    assert await pair.fail(to, reply_to=to) is not None
    assert await pair.fail(to, reply_to=to) is None
    monkeypatch.setattr(nack, "INTERVAL_S", 0.0)
    assert await pair.fail(to, reply_to=to) is not None


async def test_at_most_1_kb(pair: Pair) -> None:
    to = f"{pair.prefix}.reply"
    payload = {"dataname": "ü" * 400, "payload_type": "x" * 1000, "transport": "t", "data": ""}
    msg = await pair.fail(to, reply_to=to, payloads=[payload])
    assert 500 < len(msg.data) <= 1024
    assert json.loads(msg.data)["error"]["code"] == "INVALID_PAYLOAD_TYPE"


async def test_long_fields_get_none(pair: Pair) -> None:
    to = f"{pair.prefix}.reply"
    assert await pair.fail(to, reply_to=to, correlation_id="x" * 1000) is None


async def test_only_when_asked_for(pair: Pair) -> None:
    to = f"{pair.prefix}.reply"
    payload = {"dataname": "d", "payload_type": "x", "transport": "direct", "data": ""}
    bad = json.dumps({"reply_to": to, "payloads": [payload]}).encode()
    with pytest.raises(NATSBridgeError):
        await natsbridge.smartreceive(Msg("s", to, bad), nats_connection=pair.nc)
    assert await pair.ear.next(0.05) is None
