"""headers: what goes out comes in, and nothing can be smuggled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import natsbridge
from natsbridge import sync
from natsbridge.errors import NATSBridgeError
from natsbridge.headers import check_headers

FakeNats = Callable[..., Awaitable[str]]

GOOD: list[dict[str, str]] = [
    {"a": "b"},
    {"Content-Type": "text/plain; charset=utf-8", "X_1.~": ""},
    {"name": "Grüße: 世界 🙂"},
    {"a": "x" * 5000, "A": "another"},
]
BAD: list[Any] = [
    "a: b",
    [("a", "b")],
    5,
    {"": "x"},
    {"a b": "x"},
    {"a:": "x"},
    {"ä": "x"},
    {"a\r\nb": "x"},
    {b"a": "x"},
    {5: "x"},
    {"a": 5},
    {"a": None},
    {"a": b"x"},
    {"a": ["x"]},
    {"a": "x\r\nb: y"},
    {"a": "x\ny"},
    {"a": "x\0"},
    {"a": "x\ty"},
    {"a": "\x7f"},
    {"a": "\ud800"},
]


@pytest.mark.parametrize("headers", BAD)
def test_what_is_refused(headers: Any) -> None:
    with pytest.raises(NATSBridgeError) as e:
        check_headers(headers)
    assert e.value.code == "INVALID_ARGUMENT"
    assert "header" in e.value.message


@pytest.mark.parametrize("headers", GOOD)
def test_the_size_is_that_on_the_wire(headers: dict[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    assert check_headers(headers) == len(f"NATS/1.0\r\n{lines}\r\n".encode())


def test_none_at_all() -> None:
    assert check_headers(None) == check_headers({}) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", GOOD)
async def test_there_and_back(nats_url: str, headers: dict[str, str]) -> None:
    async with await natsbridge.connect(nats_url) as nc:
        sub = await nc.subscribe("h.back")
        await nc.publish("h.back", b"payload", "h.reply", headers)
        msg = await sub.next(1)
        assert msg is not None
        assert (msg.headers, msg.data, msg.reply, len(msg)) == (headers, b"payload", "h.reply", 7)


@pytest.mark.asyncio
async def test_a_message_without(nats_url: str) -> None:
    async with await natsbridge.connect(nats_url) as nc:
        sub = await nc.subscribe("h.none")
        for headers in (None, {}):
            await nc.publish("h.none", b"", headers=headers)
            msg = await sub.next(1)
            assert msg is not None
            assert msg.headers is None
        await nc.publish("h.none", b"", headers={"a": "  blanks at its ends  "})
        msg = await sub.next(1)
        assert msg is not None
        assert msg.headers == {"a": "blanks at its ends"}


@pytest.mark.asyncio
async def test_a_request_and_its_answer(nats_url: str) -> None:
    async with await natsbridge.connect(nats_url) as nc:
        sub = await nc.subscribe("h.ask")
        asking = asyncio.ensure_future(nc.request("h.ask", b"?", 2, {"n": "1"}))
        question = await sub.next(1)
        assert question is not None
        assert question.headers == {"n": "1"}
        await nc.publish(question.reply, b"!", headers={"n": "2"})
        answer = await asking
        assert answer is not None
        assert (answer.data, answer.headers) == (b"!", {"n": "2"})


@pytest.mark.asyncio
async def test_they_count_for_the_size_that_the_broker_takes(nats_url: str) -> None:
    async with await natsbridge.connect(nats_url) as nc:
        sub = await nc.subscribe("h.size")
        headers = {"a": "b"}
        fits = nc.max_payload - check_headers(headers)
        await nc.publish("h.size", b"x" * fits, headers=headers)
        assert await sub.next(2) is not None
        with pytest.raises(NATSBridgeError) as e:
            await nc.publish("h.size", b"x" * (fits + 1), headers=headers)
        assert e.value.code == "PAYLOAD_TOO_LARGE"
        with pytest.raises(NATSBridgeError) as e:
            await nc.request("h.size", b"x" * (fits + 1), headers=headers)
        assert e.value.code == "PAYLOAD_TOO_LARGE"
        await nc.flush()


@pytest.mark.asyncio
async def test_a_server_that_takes_none(fake_nats: FakeNats) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")

    async with await natsbridge.connect(await fake_nats(old)) as nc:
        with pytest.raises(NATSBridgeError) as e:
            await nc.publish("a", b"", headers={"a": "b"})
        assert e.value.code == "INVALID_ARGUMENT"
        await nc.publish("a", b"")


def test_the_synchronous_face(nats_url: str) -> None:
    with sync.connect(nats_url) as nc, nc.subscribe("h.sync") as sub:
        nc.publish("h.sync", b"", headers={"a": "b"})
        msg = sub.next(1)
        assert msg is not None
        assert msg.headers == {"a": "b"}
        with pytest.raises(NATSBridgeError):
            nc.publish("h.sync", b"", headers={"a": "b\n"})
