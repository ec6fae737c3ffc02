"""Every operation that a NATS server sends, and what nats-py's parser makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from nats.protocol.parser import Parser

from natsbridge.headers import parse_headers

#: Servers of an INFO that the firmware uses.
SERVERS = 8

INFO: dict[str, Any] = {
    **{"server_id": "NDAQ", "server_name": "n1", "version": "2.15.1", "proto": 1, "go": "go1.25"},
    **{"host": "0.0.0.0", "port": 4222, "headers": True, "max_payload": 1_048_576},
    **{"jetstream": True, "client_id": 5, "client_ip": "127.0.0.1", "xkey": "XA"},
}
LAME = {**INFO, "ldm": True, "connect_urls": ["10.0.0.1:4222", "[fd00::1]:4222"]}
LONG = {**INFO, "connect_urls": [f"10.0.{i // 250}.{i % 250}:4222" for i in range(460)]}
SECURE = {**INFO, "tls_required": True, "auth_required": True, "nonce": "c-2_f", "max_payload": 64}


def info(what: dict[str, Any]) -> bytes:
    return b"INFO %s \r\n" % json.dumps(what, separators=(",", ":")).encode()


def msg(data: bytes, about: bytes = b"a.b 1 ") -> bytes:
    return b"MSG %s%d\r\n%s\r\n" % (about, len(data), data)


def hmsg(block: bytes, data: bytes = b"", about: bytes = b"a.b 1 ") -> bytes:
    return b"HMSG %s%d %d\r\n%s%s\r\n" % (about, len(block), len(block) + len(data), block, data)


def err(text: str) -> bytes:
    return f"-ERR '{text}'\r\n".encode()


#: Operations after which the connection goes on.
OPERATIONS = {
    "INFO": info(INFO),
    "INFO of a lame duck": info(LAME),
    "INFO with a nonce": info(SECURE),
    "INFO of 8 KiB": info(LONG),
    "INFO of nearly nothing": b"INFO {}\r\n",
    "MSG": msg(b"hello"),
    "MSG, empty": msg(b""),
    "MSG with a reply": msg(b"hello", b"a.b 1 _INBOX.x.1 "),
    "MSG with two spaces": msg(b"hello", b"a.b 1  "),
    "MSG to another": msg(b"hello", b"c.b 2 "),
    "MSG, UTF-8 subject": msg(b"\xff\xfe", "a.é 3 ".encode()),
    "MSG of line ends": msg(b"\r\n\r\n\r\n"),
    "MSG like operations": msg(b"PING\r\nMSG a.b 1 5\r\nhello\r\n"),
    "MSG of 2,048 bytes": msg(bytes(range(256)) * 8),
    "MSG of 2,049 bytes": msg(bytes(range(256)) * 8 + b"\r"),
    "MSG of 5,000 bytes": msg(b"\r\nPING" * 833 + b"\r\n", b"a.b 1 r "),
    "HMSG": hmsg(b"NATS/1.0\r\na: b\r\nc:  d \r\n\r\n", b"hello"),
    "HMSG, empty": hmsg(b"NATS/1.0\r\na: b\r\n\r\n"),
    "HMSG with a reply": hmsg(b"NATS/1.0\r\na:b\r\n\r\n", b"hello", b"a.b 1 _INBOX.x.1 "),
    "HMSG with two spaces": hmsg(b"NATS/1.0\r\na: b\r\n\r\n", b"hello", b"a.b 1  "),
    "HMSG, twice the same": hmsg(b"NATS/1.0\r\na: 1\r\na: 2\r\n\r\n", b"x"),
    "HMSG, no colon": hmsg(b"NATS/1.0\r\nabc\r\nd: e\r\n\r\n", b"x"),
    "HMSG, no UTF-8": hmsg(b"NATS/1.0\r\na: \xff\r\n\r\n", b"x"),
    "HMSG 503": hmsg(b"NATS/1.0 503\r\n\r\n"),
    "HMSG 503, as since 2.12": hmsg(b"NATS/1.0 503 No Responders\r\nNats-Subject: x\r\n\r\n"),
    "HMSG 404": hmsg(b"NATS/1.0 404 No Messages\r\n\r\n"),
    "HMSG 100": hmsg(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n"),
    "HMSG of 3,000 bytes": hmsg(b"NATS/1.0\r\na: b\r\n\r\n", b"0123456789" * 300),
    "PING": b"PING\r\n",
    "PONG": b"PONG\r\n",
    "+OK": b"+OK\r\n",
    **{
        f"-ERR {text}": err(text)
        for text in (
            'Permissions Violation for Publish to "x"',
            'Permissions Violation for Subscription to "no.1"',
            'Permissions Violation for Subscription to "no.2" using queue "q"',
            *("Invalid Subject", "Invalid Publish Subject", "maximum subscriptions exceeded"),
        )
    },
}
#: Those that end it.
LAST = {
    f"-ERR {text}": err(text)
    for text in (
        *("Unknown Protocol Operation", "Maximum Payload Violation", "Stale Connection"),
        *("maximum control line exceeded", "Authentication Timeout", "Authorization Violation"),
        *("maximum connections exceeded", "maximum account active connections exceeded"),
        *("User Authentication Expired", "User Authentication Revoked", "Parser Error"),
        *("Account Authentication Expired", "Secure Connection - TLS Required", "Slow Consumer"),
        *("Invalid Client Protocol", "Attempted To Connect To Route Port", "Connection Throttled"),
        *("message headers not supported", "no responders requires headers support"),
    )
}
ALL = {**OPERATIONS, **LAST}


class Heard:
    """What nats-py's parser calls, as the events of `parsers_device.nats`."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def _process_ping(self) -> None:
        self.events.append(("PING", b"PONG\r\n"))

    async def _process_pong(self) -> None:
        self.events.append(("PONG",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        if "connect_urls" in info:
            info["connect_urls"] = info["connect_urls"][:SERVERS]
        self.events.append(("INFO", info))

    async def _process_err(self, text: str) -> None:
        self.events.append(("-ERR", text.strip("' ")))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, block: bytes | None
    ) -> None:
        headers, status, description = parse_headers(block)
        found = None if headers is None else sorted(headers.items())
        about = (sid, subject.decode(), reply.decode(), (found, status, description))
        self.events.append(("MSG", *about, data))


def heard(pieces: Iterable[bytes]) -> list[Any]:
    """The events of nats-py's parser for bytes that come in these pieces."""
    heard = Heard()
    parser = Parser(heard)  # type: ignore[no-untyped-call]
    for piece in pieces:
        try:
            parser.parse(piece).send(None)
        except StopIteration:
            continue
        raise AssertionError("it waits")
    assert not parser.buf
    return heard.events


def pieces(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` in pieces of these sizes, and the rest."""
    found = []
    at = 0
    for size in sizes:
        if size:
            found.append(data[at : at + size])
            at += size
    return [*found, data[at:]]


def sequence(rng: random.Random) -> bytes:
    """Some operations, one after the other."""
    names = rng.choices(list(OPERATIONS), k=rng.randint(1, 6))
    last = rng.choice(list(LAST.values())) if rng.random() < 0.1 else b""
    return b"".join(map(OPERATIONS.__getitem__, names)) + last


def chunking(rng: random.Random, size: int) -> list[int]:
    """The sizes of random pieces of so many bytes; 0 where nothing is there yet."""
    most = rng.choice((1, 3, 20, 100, 600, 3000))
    sizes: list[int] = []
    left = size
    while left > 0 and len(sizes) < 400:
        sizes.append(rng.randint(0, min(most, left)))
        left -= sizes[-1]
    return sizes
