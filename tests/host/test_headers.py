"""headers: what goes out comes in, and nothing can be smuggled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import natsbridge
from natsbridge import sync
from natsbridge.client import Msg
from natsbridge.errors import NATSBridgeError
from natsbridge.headers import check_headers, parse_headers

FakeNats = Callable[..., Awaitable[str]]

GOOD: list[dict[str, str]] = [
    {"a": "b"},
    {"Content-Type": "text/plain; charset=utf-8", "X_1.~": ""},
    {"name": "Grüße: 世界 🙂\tand a tab"},
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


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (None, (None, 0, "")),
        (b"", (None, 0, "")),
        (b"junk\r\n\r\n", (None, 0, "")),
        (b"NATS/1.0", ({}, 0, "")),
        (b"NATS/1.0\r\n\r\n", ({}, 0, "")),
        (b"NATS/1.0 503\r\n\r\n", ({}, 503, "")),
        (b"NATS/1.0 404 No Messages\r\na: b\r\n\r\n", ({"a": "b"}, 404, "No Messages")),
        (b"NATS/1.0 4044\r\na: b\r\n\r\n", ({"a": "b"}, 0, "")),
        (b"NATS/1.0 abc\r\na: b\r\n\r\n", ({"a": "b"}, 0, "")),
        ("NATS/1.0 ²²²\r\n\r\n".encode(), ({}, 0, "")),
        (b"NATS/1.0\r\na:b\r\nc:\td \r\n\r\n", ({"a": "b", "c": "d"}, 0, "")),
        (b"NATS/1.0\r\na: 1\r\na: 2\r\n\r\n", ({"a": "2"}, 0, "")),
        (b"NATS/1.0\r\na: b: c\r\nno colon\r\n\r\n", ({"a": "b: c"}, 0, "")),
        (b"NATS/1.0\r\na: \xff\r\n\r\n", ({"a": "\ufffd"}, 0, "")),
        (b"NATS/1.0\r\nStatus: mine\r\n\r\n", ({"Status": "mine"}, 0, "")),
    ],
)
def test_what_others_send(block: bytes | None, expected: Any) -> None:
    assert parse_headers(block) == expected


@pytest.mark.asyncio
@pytest.mark.parametrize("block", [b"N", b"NATS/1.0", b"NATS/1.0 ", b"NATS/1.0 abc\r\n", b"\xff"])
async def test_no_header_ends_the_connection(nats_url: str, block: bytes) -> None:
    async with await natsbridge.connect(nats_url) as nc:
        sub = await nc.subscribe("h.bad")
        _, writer = await asyncio.open_connection("127.0.0.1", int(nats_url.rpartition(":")[2]))
        writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        writer.write(b"HPUB h.bad %d %d\r\n%bx\r\n" % (len(block), len(block) + 1, block))
        writer.write(b"PUB h.bad 5\r\nafter\r\nPING\r\n")
        got = []
        while (msg := await sub.next(1)) is not None:
            got.append(msg.data)
            if msg.data == b"after":
                break
        assert got in ([b"x", b"after"], [])  # where the server refuses it
        await nc.publish("h.bad", b"")
        assert await sub.next(1) is not None
        writer.close()


@pytest.mark.asyncio
async def test_a_status_is_no_header(fake_nats: FakeNats) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":1048576,"headers":true}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                writer.write(b"HMSG s 1 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n")

    async with await natsbridge.connect(await fake_nats(server)) as nc:
        sub = await nc.subscribe("s")
        msg = await sub.next(1)
        assert msg is not None
        assert (msg.headers, msg.status, msg.description) == ({}, 404, "No Messages")
        assert (Msg("a", "", b"").status, Msg("a", "", b"").description) == (0, "")


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
        assert e.value.code == "NATS_CONNECTION_FAILED"
        assert "headers" in e.value.message
        await nc.publish("a", b"")


def test_the_synchronous_face(nats_url: str) -> None:
    with sync.connect(nats_url) as nc, nc.subscribe("h.sync") as sub:
        nc.publish("h.sync", b"", headers={"a": "b"})
        msg = sub.next(1)
        assert msg is not None
        assert msg.headers == {"a": "b"}
        with pytest.raises(NATSBridgeError):
            nc.publish("h.sync", b"", headers={"a": "b\n"})
