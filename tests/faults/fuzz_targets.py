"""What is fuzzed: the parsers of the firmware, on CPython, and those of the host, each with its
seeds. A target raises whatever is not documented; in which pieces an input comes, and what else is
not in it, follows from the input alone."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import aiohttp
import nats.errors

import nats_corpus
import natsbridge
import parsers_device as parsers
import vectors
from mutator import MOST, stored
from natsbridge import broker, http, plik, reader
from natsbridge.client import Msg
from natsbridge.headers import parse_headers

BETWEEN = b"\n====\n"
FILE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nABC"
_rng = random.Random(1)
#: Sizes of pieces; 0: nothing is there yet. Half of all inputs come in one.
SIZES: list[list[int]] = [[] for _ in range(32)]
SIZES += [
    [_rng.randint(0, most) for _ in range(900)] for most in (1, 2, 5, 20, 90) for _ in "123456"
]
SIZES += [[1] * 900, [1, 0] * 450]


def sizes(data: bytes) -> list[int]:
    return SIZES[zlib.crc32(data) & 63]


class Target(NamedTuple):
    """Something that parses: a name for what came of it."""

    run: Callable[[bytes], str]
    seeds: Callable[[], list[bytes]]
    tokens: list[bytes]


# ---------------------------------------------------------------- the firmware


def nats_firmware(data: bytes) -> str:
    """The same events in pieces as whole."""
    events = parsers.nats(data, sizes(data))
    if zlib.crc32(data) & 7 == 7 and parsers.nats(data) != events:
        raise AssertionError(f"{parsers.nats(data)} whole, {events} in pieces")
    return "whole" if events[-1] == ("end", "closed by the server") else "ended"


def envelope_firmware(data: bytes) -> str:
    limit = None if zlib.crc32(data) & 64 else 50
    return kind(parsers.envelope(data, sizes(data), [FILE], limit))


def http_firmware(data: bytes) -> str:
    size = (None, 3, 3, 5)[zlib.crc32(data) >> 6 & 3]
    return kind(parsers.download(data.split(BETWEEN), sizes(data), size))


def upload_firmware(data: bytes) -> str:
    return kind(parsers.upload(data.split(BETWEEN), sizes(data)))


def kind(result: str | bytes) -> str:
    """An error's code, or that there is a result."""
    known = isinstance(result, str) and result.isupper()
    return str(result) if known else "taken"


# ---------------------------------------------------------------- the host

LOOP: asyncio.AbstractEventLoop


def code(work: Any, *codes: str) -> str:
    """What came of a coroutine, whose error may have these codes."""
    try:
        LOOP.run_until_complete(work)
    except natsbridge.NATSBridgeError as e:
        if e.code not in codes:
            raise
        return e.code
    return "taken"


class Server(asyncio.Transport):
    """A connection whose other end answers with the next of `answers`, whatever it is asked."""

    answers: ClassVar[list[bytes]] = []
    sizes: ClassVar[list[int]] = []

    def __init__(self, protocol: http._Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.asked = self.ended = False
        if not self.answers:
            raise ConnectionRefusedError(111, "refused")
        self.data = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def write(self, data: Any) -> None:
        if not self.asked:
            self.asked = True
            LOOP.call_soon(self.answer)

    def answer(self) -> None:
        """Send it, and hang up."""
        for piece in nats_corpus.pieces(self.data, self.sizes):
            if piece and not self.ended:
                self.protocol.data_received(piece)
        if not self.ended:
            self.protocol.eof_received()
        self.close()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            LOOP.call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


async def connect(*_: Any) -> http._Protocol:
    """A connection of aiohttp's to such a server."""
    protocol = http._Protocol(LOOP)
    protocol.connection_made(Server(protocol))
    return protocol


def serve(answers: list[bytes], sizes: list[int]) -> None:
    Server.answers = answers
    Server.sizes = sizes


def alone() -> None:
    """Make this process one that does nothing but fuzzing."""
    global LOOP
    LOOP = asyncio.new_event_loop()
    asyncio.set_event_loop(LOOP)
    aiohttp.TCPConnector._create_connection = connect  # type: ignore[method-assign]
    plik.ATTEMPTS = 2
    plik.BASE_DELAY = 0
    plik.MAX_DELAY = 0


def envelope_host(data: bytes) -> str:
    """The same where all base64 is cut out as where none is."""
    found = []
    for long in (1, 1 << 60) if zlib.crc32(data) & 3 == 3 else (1,):
        reader._LONG = long
        serve([FILE], [])
        options: dict[str, Any] = {"fileserver_url": parsers.FILES, "max_retries": 1}
        limit = 50 if zlib.crc32(data) & 64 else None
        work = natsbridge.smartreceive(Msg("a", "", data), max_payload_size=limit, **options)
        found.append(code(work, *parsers.CODES))
    if len(set(found)) > 1:
        raise AssertionError(f"with base64 cut out {found[0]}, without {found[1]}")
    return found[0]


def http_host(data: bytes) -> str:
    serve(data.split(BETWEEN), sizes(data))
    return code(natsbridge.fetch_with_backoff(parsers.URL, 1, 0, 0), *parsers.CODES)


def upload_host(data: bytes) -> str:
    serve(data.split(BETWEEN), sizes(data))
    return code(natsbridge.plik_upload(parsers.FILES, "a", b"abc"), "UPLOAD_FAILED")


#: What in Latin-1 is a digit to CPython, and not to MicroPython.
DIGITS = frozenset(b"\xb2\xb3\xb9")


def both(data: bytes) -> str:
    """What one side takes the other does, and as the same. (The device knows no Arrow, and its heap
    has an end.)"""
    ours = parsers.envelope(data, (), [FILE])
    theirs = received(data)
    if b"rrow" in data or not DIGITS.isdisjoint(data):
        return kind(ours)
    if "URL_NOT_ALLOWED" in (ours, theirs) and not data.isascii():
        return kind(ours)  # white space beyond ASCII in a URL may be refused
    if "taken" in (kind(ours), kind(theirs)) and ours not in (theirs, "PAYLOAD_TOO_LARGE"):
        raise AssertionError(f"the device: {ours}; the desktop: {theirs}")
    return kind(ours)


def received(data: bytes) -> str:
    """What the desktop makes of a message, as `parsers.envelope`."""
    serve([FILE], [])
    work = natsbridge.smartreceive(Msg("a", "", data), fileserver_url=parsers.FILES, max_retries=1)
    try:
        return str(parsers.found(LOOP.run_until_complete(work)))
    except natsbridge.NATSBridgeError as e:
        if e.code not in parsers.CODES:
            raise
        return e.code


def headers_host(data: bytes) -> str:
    headers, status, _ = parse_headers(data)
    return "none" if headers is None else "status" if status else "taken"


class Ear(broker.Receiver):
    """Takes messages."""

    def _arrived(
        self, number: int, subject: str, reply: str, data: bytes, block: bytes | None
    ) -> None:
        parse_headers(block)


async def listen(pieces: list[bytes]) -> None:
    """What a connection does with what a server sends."""
    it = broker.Broker()

    async def ignore(*_: Any) -> None: ...

    it._error_cb = it._send_command = ignore  # type: ignore[assignment]
    it.options = {"allow_reconnect": False}
    for sid in range(1, 4):
        it._subs[sid] = nats.aio.subscription.Subscription(it, sid, "a", cb=Ear()._called)
    for piece in pieces:
        await it._ps.parse(piece)


def nats_host(data: bytes) -> str:
    try:
        LOOP.run_until_complete(listen(nats_corpus.pieces(data, sizes(data))))
    except (nats.errors.ProtocolError, OSError):
        return "ended"
    return "taken"


# ---------------------------------------------------------------- seeds, and words of each language


def operations() -> list[bytes]:
    return stored("nats") + [data for data in nats_corpus.ALL.values() if len(data) < MOST]


def envelopes() -> list[bytes]:
    """Those of the conformance vectors that are short; more often those that are taken."""
    cases = vectors.load("receive.json")
    cases += [case for case in cases if "error" not in case] * 3
    wires = [vectors.wire(case, parsers.FILES) for case in cases]
    return stored("envelope") + [data for data in wires if len(data) < MOST]


def blocks() -> list[bytes]:
    return stored("headers")


def answers() -> list[bytes]:
    return stored("http")


def uploads() -> list[bytes]:
    return stored("upload")


BYTES = [b"\0", b"\t", b" ", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x7f", b"\x85", b"\xa0", b"\xff"]
BYTES += [b"\xc2\x85", b"\xed\xa0\x80", b"\xf0\x9f\x99\x82", b"\xc0\x80", b'"', b"'", b"\\", b":"]
NATS = (
    b"MSG |HMSG |INFO |-ERR '|+OK|PING\r\n|PONG\r\n|NATS/1.0| 503|a.b |1 |  |{}|no.1|queue".split(
        b"|"
    )
)
NATS += [b'{"connect_urls":["', b'"max_payload":', b'"ldm":true', b'"headers":', *BYTES]
NATS += [b"Permissions Violation for Subscription to ", b"maximum subscriptions exceeded"]
WORDS = "payloads metadata error code message details data id dataname payload_type transport "
WORDS += "encoding size sha256 removable direct link base64 json none arrow-ipc text dictionary "
WORDS += "jsontable binary image arrowtable correlation_id reply_to receiver_id"
JSON = [b'"%s"' % word.encode() for word in WORDS.split()]
JSON += b'{ } [ ] : , " null true false -0 1e5 1e400 0.1 1e-400 NaN -Infinity = == A= / + -'.split()
JSON += [b"\\u0000", b"\\ud83d\\ude42", b"\\ud83d", b"\\ude42", b"\\u003d", b"\\/", b"[" * 31]
JSON += [b'"size":', b'"data":"', b'"http://files:8080/', b"QUJD", b"9" * 64, b'{"":', *BYTES]
HTTP = b"HTTP/1.1 |HTTP/1.0 |200|206|100|204|302|400|503|chunked|identity|gzip|close|bytes ".split(
    b"|"
)
HTTP += b"Content-Length: |Transfer-Encoding: |Location: |Retry-After: |Connection: |ETag: ".split(
    b"|"
)
HTTP += b"Content-Encoding: |Content-Range: |Content-Type: |Set-Cookie: |http://|//|..|%2e".split(
    b"|"
)
HTTP += [b"; charset=utf-7", b"0\r\n\r\n", b"http://files:8080/", BETWEEN, *BYTES]
PLIK = b'{"id":"a"} "id": "uploadToken": "downloadDomain": "fileSize": "fileMd5": "files":['.split()
PLIK += [b'"fileName":', b'"maxTTL":', *HTTP, *JSON[-30:]]

FIRMWARE = {
    "nats": Target(nats_firmware, operations, NATS),
    "envelope": Target(envelope_firmware, envelopes, JSON),
    "http": Target(http_firmware, answers, HTTP),
    "upload": Target(upload_firmware, uploads, PLIK),
    "both": Target(both, envelopes, JSON),
}
HOST = {
    "host nats": Target(nats_host, operations, NATS),
    "host envelope": Target(envelope_host, envelopes, JSON),
    "host headers": Target(headers_host, blocks, NATS),
    "host http": Target(http_host, answers, HTTP),
    "host upload": Target(upload_host, uploads, PLIK),
}
TARGETS = {**FIRMWARE, **HOST}
