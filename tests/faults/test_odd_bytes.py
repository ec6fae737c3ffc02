"""Bytes that anybody may publish, and bytes that no broker should send: the first cost nobody a
message or a connection, the second end the connection at once, and say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

import natsbridge
from conftest import ScriptedHttp
from harness import run_micropython
from natsbridge import plik
from natsbridge.errors import NATSBridgeError

FakeNats = Callable[..., Awaitable[str]]
HELLO = b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n'
#: Messages as a stranger may send them, and the subject and reply that a receiver sees.
ODD = {
    "subject": (b"PUB odd.\xff 2\r\nhi\r\n", "odd.\ufffd", ""),
    "half a character": (b"PUB odd.\xc3 2\r\nhi\r\n", "odd.\ufffd", ""),
    "reply": (b"PUB odd.a r\xfe 2\r\nhi\r\n", "odd.a", "r\ufffd"),
    "subject, with headers": (
        b"HPUB odd.\xff 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        "odd.\ufffd",
        "",
    ),
    "a control character": (b"PUB odd.\x01 2\r\nhi\r\n", "odd.\x01", ""),
}
DEVICE = """
import json, sys
import natsbridge
nc = natsbridge.connect(sys.argv[1], reconnect=False)
sub = nc.subscribe("odd.>")
nc.flush()
nc.publish("ready", b"")
for _ in range(2):
    msg = sub.next(10)
    print(json.dumps([msg.subject, msg.reply, str(bytes(msg.data), "utf-8")]))
"""


def stranger(url: str, data: bytes) -> None:
    """Publish as it stands, and something good after it."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(HELLO + data + b"PUB odd.good 4\r\ngood\r\nPING\r\n")
        seen = b""
        while b"PONG\r\n" not in seen:
            piece = connection.recv(4096)
            assert piece, seen
            seen += piece


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ODD)
async def test_an_odd_message_costs_the_desktop_nothing(nats_url: str, name: str) -> None:
    data, subject, reply = ODD[name]
    async with await natsbridge.connect(nats_url, reconnect=False) as nc:
        sub = await nc.subscribe("odd.>")
        await asyncio.to_thread(stranger, nats_url, data)
        got = [await sub.next(5), await sub.next(5)]
        assert [(m.subject, m.reply, bytes(m.data)) for m in got if m] == [
            (subject, reply, b"hi"),
            ("odd.good", "", b"good"),
        ]
        assert nc.connected


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ODD)
async def test_an_odd_message_costs_the_device_nothing(nats_url: str, name: str) -> None:
    data, subject, reply = ODD[name]
    async with await natsbridge.connect(nats_url) as nc:
        ready = await nc.subscribe("ready")
        device = asyncio.ensure_future(asyncio.to_thread(run_micropython, DEVICE, nats_url))
        assert await ready.next(20) is not None
        await asyncio.to_thread(stranger, nats_url, data)
        got = [json.loads(line) for line in (await device).splitlines()]
    assert got == [[subject, reply, "hi"], ["odd.good", "", "good"]]


@pytest.mark.asyncio
async def test_an_answer_whose_reply_is_no_utf8_is_an_answer(nats_url: str) -> None:
    async with await natsbridge.connect(nats_url, reconnect=False) as nc:

        def answer() -> None:
            with socket.create_connection(("127.0.0.1", int(nats_url.rpartition(":")[2]))) as s:
                s.sendall(HELLO + b"SUB ask 1\r\nPING\r\n")
                seen = b""
                s.settimeout(10)
                while b"MSG ask" not in seen or not seen.endswith(b"\r\n"):
                    seen += s.recv(4096)
                inbox = seen[seen.index(b"MSG ask") :].split(b" ")[3]
                s.sendall(b"PUB %s r\xff 2\r\nhi\r\nPING\r\n" % inbox)
                s.recv(4096)

        task = asyncio.ensure_future(asyncio.to_thread(answer))
        msg = None
        while msg is None:
            with contextlib.suppress(NATSBridgeError):  # it does not listen yet
                msg = await nc.request("ask", b"x", 5)
        assert (bytes(msg.data), msg.reply) == (b"hi", "r\ufffd")
        await task


#: What a broker says after a good message.
NO_NATS = {
    "-ERR without a reason": b"-ERR\r\n",
    "-ERR without quotes": b"-ERR so what\r\n",
    "INFO that is no JSON": b"INFO nonsense\r\n",
    "INFO that is a list": b"INFO []\r\n",
    "INFO that is no UTF-8": b'INFO {"a":"\xff"}\r\n',
    "an unknown operation": b"HELLO\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an id that is no number": b"MSG a x 1\r\na\r\n",
    "a size that is no number": b"MSG a 1 x\r\na\r\n",
    "a size below nothing": b"MSG a 1 -1\r\na\r\n",
    "a size that no server takes": b"MSG a 1 99999999999\r\n" + b"a" * 100,
    "a line without an end": b"x" * 200_000,
    "an INFO without an end": b'INFO {"a":"' + b"x" * 200_000,
    "nothing but zeros": b"\0" * 100_000 + b"\r\n",
}
END = """
import sys, time
import natsbridge
nc = natsbridge.connect(sys.argv[1], reconnect=False)
sub = nc.subscribe("a")
print(str(bytes(sub.next(10).data), "utf-8"))
try:
    print(sub.next(10))
except natsbridge.NATSBridgeError as e:
    print(e.code)
"""


def saying(data: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A broker that says it once somebody has subscribed."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":1048576,"headers":true}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                text = b"MSG a 1 4\r\ngood\r\n" + data
                asyncio.get_running_loop().call_later(0.1, writer.write, text)

    return talk


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NO_NATS)
async def test_what_is_no_nats_ends_the_desktops_connection_at_once(
    fake_nats: FakeNats, name: str
) -> None:
    url = await fake_nats(saying(NO_NATS[name]))
    async with await natsbridge.connect(url, reconnect=False) as nc:
        sub = await nc.subscribe("a")
        msg = await sub.next(10)
        assert msg is not None
        assert msg.data == b"good"
        with pytest.raises(NATSBridgeError) as e:
            await sub.next(10)
        assert e.value.code == "NATS_CONNECTION_FAILED"
        assert not nc.connected


@pytest.mark.asyncio
async def test_the_desktop_comes_back_after_what_is_no_nats(fake_nats: FakeNats) -> None:
    url = await fake_nats(saying(b"-ERR\r\n"))
    async with await natsbridge.connect(url, base_delay=10) as nc:
        sub = await nc.subscribe("a")
        got = [await sub.next(10) for _ in range(3)]  # one from each connection
        assert [msg and msg.data for msg in got] == [b"good"] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", ['"1048576"', "null", "[]", "1e9"])
async def test_a_greeting_whose_max_payload_is_no_number_is_no_nats(
    fake_nats: FakeNats, limit: str
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":%s}\r\n' % limit.encode())
        while await reader.readuntil(b"PING\r\n"):
            writer.write(b"PONG\r\n")

    with pytest.raises(NATSBridgeError) as e:
        await natsbridge.connect(await fake_nats(talk))
    assert e.value.code == "NATS_CONNECTION_FAILED"


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [0, 2, 30])
async def test_closing_in_any_moment_of_coming_back_raises_nothing(
    fake_nats: FakeNats, turns: int
) -> None:
    url = await fake_nats(saying(b"-ERR\r\n"))
    nc = await natsbridge.connect(url, base_delay=10)
    await nc.subscribe("a")
    while await asyncio.sleep(0, nc.connected):
        pass
    for _ in range(turns):
        await asyncio.sleep(0)
    await nc.close()
    assert not nc.connected


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NO_NATS)
async def test_what_is_no_nats_ends_the_devices_connection_at_once(
    fake_nats: FakeNats, name: str
) -> None:
    url = await fake_nats(saying(NO_NATS[name]))
    out = await asyncio.to_thread(run_micropython, END, url)
    assert out.split() == ["good", "NATS_CONNECTION_FAILED"]


#: What follows the first chunk of a file.
NO_CHUNKS = {
    "no size": b"\r\n",
    "no line end behind the size": b"3\nABC\r\n0\r\n\r\n",
    "no hexadecimal size": b"xyz\r\nABC\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"1\r\nABC\r\n0\r\n\r\n",
    "a size of 20 digits": b"1" * 20 + b"\r\nABC\r\n0\r\n\r\n",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NO_CHUNKS)
async def test_chunks_that_are_none_end_a_download_at_once(fake_nats: FakeNats, name: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nAB\r\n")
        await asyncio.sleep(0.1)  # apart: together they never were a problem
        writer.write(NO_CHUNKS[name])
        await reader.read()

    url = (await fake_nats(talk)).replace("nats://", "http://")
    with pytest.raises(NATSBridgeError) as e:
        await asyncio.wait_for(natsbridge.fetch_with_backoff(url + "/a", 1, 0, 0), 8)
    assert e.value.code == "DOWNLOAD_FAILED"


@pytest.mark.asyncio
@pytest.mark.parametrize("token", [r'"a\r\nb: c"', '"a b"', r'"\u0000"', r'"\u00e9"', "5", "[1]"])
async def test_a_token_that_is_no_header_is_an_error_of_the_file_server(
    scripted: ScriptedHttp, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setattr(plik, "BASE_DELAY", 0)
    scripted.answers = [scripted.answer(200, b'{"id":"ab","uploadToken":%s}' % token.encode())]
    with pytest.raises(NATSBridgeError) as e:
        await natsbridge.plik_upload(scripted.url, "a", b"abc")
    assert e.value.code == "UPLOAD_FAILED"
    assert {line for line, _, _ in scripted.requests} == {"POST /upload HTTP/1.1"}
