"""What the firmware receives: whole, cut at every byte, in every two pieces, byte by byte, and with
more behind it. (Its parsers, driven by a byte stream on CPython.)"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vectors
from harness import load_firmware, run_micropython
from test_device_http import DELIMITED
from test_parsers import Memory, as_on_micropython, pieces  # noqa: F401

client = load_firmware("client")
download = load_firmware("download")
errors = load_firmware("errors")
http = load_firmware("http")
reader = load_firmware("reader")
recover = load_firmware("recover")
stream = load_firmware("stream")
subscription = load_firmware("subscription")
urls = load_firmware("urls")

CLOCK = types.SimpleNamespace(
    ticks_ms=lambda: int(time.monotonic() * 1000),
    ticks_add=lambda a, b: a + b,
    ticks_diff=lambda a, b: a - b,
    sleep_ms=lambda ms: None,
)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Modules stay loaded, so that an error costs no import; and a board's clock."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (errors, client):
            patch.setattr(module, "drop", lambda *names: None)
        for module in (client, http, recover, stream, subscription):
            patch.setattr(module, "time", CLOCK)
        yield


# ---------------------------------------------------------------- envelopes

#: Bytes up to which a message is cut at every byte. A longer one is in its first and last 60, at
#: the edges of the buffer (of the first and last 5 that it fills), and at 20 others.
EVERY = 500
BUFFER = 1024
#: What a receiver may say of a message (PROTOCOL.md, section 6) before it fetches its links.
CODES = {
    *("INVALID_ENVELOPE", "INVALID_PAYLOAD_TYPE", "INVALID_TRANSPORT", "PAYLOAD_TOO_LARGE"),
    *("INTEGRITY_ERROR", "DESERIALIZATION_ERROR"),
}
RECEIVE = vectors.load("receive.json")


def read(data: bytes, limit: int | None = None, step: int = 1 << 20) -> Any:
    """What is read of an envelope, links by their URLs; of an error the code."""
    it = reader.EnvelopeReader(
        pieces(data, step), len(data), Memory(None, None, limit), None, bytearray(BUFFER)
    )
    try:
        env = it.read()
    except errors.NATSBridgeError as e:
        return str(e.code)
    found = [
        (i["dataname"], i["payload_type"], i["target"].data if "target" in i else i["data"])
        for i in env["payloads"]
    ]
    return repr((found, {**env, "payloads": None}))


def cuts(data: bytes) -> list[int]:
    if len(data) <= EVERY:
        return list(range(len(data)))
    edges = [BUFFER * i + j for i in range(1, len(data) // BUFFER + 1) for j in (-1, 0, 1)]
    other = random.Random(len(data)).sample(range(len(data)), 20)
    ends = [*range(60), *range(len(data) - 60, len(data))]
    return sorted({i for i in (*ends, *edges[:15], *edges[-15:], *other) if i < len(data)})


def case_id(case: vectors.Case) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", RECEIVE, ids=case_id)
@pytest.mark.parametrize("share", [0.2, pytest.param(1, marks=pytest.mark.long)])
def test_a_message_is_read_whole_or_not_at_all(case: vectors.Case, share: float) -> None:
    """share: how many of the cuts are made. All of them take a while."""
    data = vectors.wire(case, "http://127.0.0.1:1")
    limit = case.get("options", {}).get("max_payload_size")
    whole = read(data, limit)
    if "error" not in case and vectors.runs(case, {"float64", "bigint"}):
        assert whole not in CODES
    assert whole in CODES or whole.startswith("(")
    assert read(data, limit, 1) == whole
    every = cuts(data)
    for cut in random.Random(case["name"]).sample(every, round(share * len(every))):
        got = read(data[:cut], limit)
        if got not in CODES:  # cut off was white space, or what made it bad
            json.loads(data[:cut])
            assert whole == (whole if whole in CODES else got)
    assert read(data + b" \r\n\t", limit) == whole
    for more in (b"x", b"{}", b"\0", b"]", b","):
        assert read(data + more, limit) in ({"INVALID_ENVELOPE"} if whole not in CODES else CODES)


ON_THE_DEVICE = """
import json, sys
from io import BytesIO
from natsbridge.errors import NATSBridgeError
from natsbridge.reader import EnvelopeReader
from natsbridge.sink import Sink
with open(sys.argv[1]) as f:
    for line in f:
        data = json.loads(line).encode()
        verdict = ""
        for cut in range(len(data) + 1):
            it = EnvelopeReader(BytesIO(data[:cut]), cut, Sink(None, None, None))
            try:
                it.read()
                verdict += "."
            except NATSBridgeError:
                verdict += "x"
        print(verdict)
"""


def test_on_the_device_too(tmp_path: Path) -> None:
    """Every twentieth of the small ones, cut at every byte."""
    texts = [case["wire"] for case in RECEIVE if "wire" in case and not case.get("needs")]
    texts = [text for text in texts if text.isascii() and len(text) < 300][::20]
    assert len(texts) > 20
    (tmp_path / "wires").write_text("\n".join(map(json.dumps, texts)))
    found = run_micropython(ON_THE_DEVICE, str(tmp_path / "wires"), heap="128K", timeout=60)
    for text, verdict in zip(texts, found.splitlines(), strict=True):
        data = text.encode()
        pieces_of = (data[:cut] for cut in range(len(data) + 1))
        assert verdict == "".join("x" if read(piece) in CODES else "." for piece in pieces_of)


# ---------------------------------------------------------------- NATS


class Wire:
    """A connection's stream, of which `data` comes in pieces of these sizes, then its end.

    A size of 0: nothing is there yet.
    """

    deadline = None

    def __init__(self, data: bytes, sizes: Iterator[int]) -> None:
        self.reader = stream.Reader(self, 512)
        self.socket = types.SimpleNamespace(readinto=self.recv)
        self.rest: list[bytes] = []
        self.posted = b""
        self._data = data
        self._sizes = sizes
        self._left = 0

    def recv(self, buf: Any, n: int) -> int | None:
        if not self._data:
            return 0
        if not self._left:
            self._left = next(self._sizes)
            if not self._left:
                return None
        n = min(n, self._left, len(self._data))
        buf[:n] = self._data[:n]
        self._data = self._data[n:]
        self._left -= n
        return n

    def readinto(self, buf: Any, n: int, wait: bool = True) -> int | None:
        while (got := self.recv(buf, n)) is None and wait:
            pass
        return got

    def post(self, line: bytes = b"") -> None:
        self.posted += line

    def close(self) -> None:
        pass


class Taken:
    """What a connection takes out of `data`: messages, what it answers and knows, its error."""

    def __init__(self, data: bytes, sizes: Iterator[int] | None = None) -> None:
        self.nc = self.connection(data)
        self.nc._msg = subscription.Msg
        self.nc._stream = wire = self.wire(data, sizes or itertools.repeat(1 << 20))
        self.messages: list[Any] = []
        self.error: Any = None
        for _ in range(10 * len(data) + 10):  # it never takes longer
            try:
                msg = self.nc._take()
                if msg:
                    self.messages.append(self.parts(msg))
            except (OSError, ValueError, errors.NATSBridgeError) as e:
                self.error = e
                break
        assert self.error, "it hangs"
        self.state = wire.posted, *self.known()

    def connection(self, data: bytes) -> Any:
        nc = client.Connection("name", "id")
        server = ("127.0.0.1", 4222, {}, False, "127.0.0.1")
        nc._options = {"servers": [server], "server": server, "found": [], "reconnect": False}
        nc._subs[1] = subscription.Subscription(nc, 1, "a.b", "")
        nc._pings = 9
        return nc

    def wire(self, data: bytes, sizes: Iterator[int]) -> Wire:
        return Wire(data, sizes)

    def parts(self, msg: Any) -> tuple[Any, ...]:
        parts = msg.subject, msg.reply, msg.headers, msg.status, msg.description
        return (*parts, bytes(msg.data))

    def known(self) -> tuple[Any, ...]:
        found = [server[:2] for server in self.nc._options["found"]]
        return self.nc._pings, self.nc.max_payload, self.nc._error, found

    @property
    def cut_off(self) -> bool:
        if isinstance(self.error, errors.NATSBridgeError):  # in a large message
            return bool(self.error.code == "NATS_CONNECTION_FAILED")
        return str(self.error) == "closed by the server"


INFO = {"server_id": "x", "max_payload": 1 << 20, "headers": True}
LONG_INFO = {**INFO, "connect_urls": [f"10.0.{i // 250}.{i % 250}:4222" for i in range(480)]}
HEADERS = b"NATS/1.0\r\na: b\r\nc:  d \r\n\r\n"
NOBODY = b"NATS/1.0 503 No Responders\r\n\r\n"
OPERATIONS = {
    "INFO": b"INFO " + json.dumps(INFO).encode() + b"\r\n",
    "INFO of 8 KiB": b"INFO " + json.dumps(LONG_INFO).encode() + b" \r\n",
    "MSG": b"MSG a.b 1 5\r\nhello\r\n",
    "MSG, empty": b"MSG a.b 1 0\r\n\r\n",
    "MSG, with a reply": b"MSG a.b 1 in.box 5\r\nhello\r\n",
    "MSG, two spaces": b"MSG a.b 1  5\r\nhello\r\n",
    "MSG, like an operation": b"MSG a.b 1 11\r\nMSG a.b 1 5\r\n",
    "MSG of the same": b"MSG a.b 1 5\r\nhello\r\nMSG a.b 1 2\r\nhi\r\nMSG a.b 1 0\r\n\r\n",
    "MSG of 3,000 bytes": b"MSG a.b 1 3000\r\n" + b"0123456789" * 300 + b"\r\nPING\r\n",
    "HMSG": b"HMSG a.b 1 %d %d\r\n%shi\r\n" % (len(HEADERS), len(HEADERS) + 2, HEADERS),
    "HMSG, two spaces": b"HMSG a.b 1  %d %d\r\n%shi\r\n"
    % (len(HEADERS), len(HEADERS) + 2, HEADERS),
    "HMSG 503": b"HMSG a.b 1 %d %d\r\n%s\r\n" % (len(NOBODY), len(NOBODY), NOBODY),
    "HMSG 503, no text": b"HMSG a.b 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    "PING": b"PING\r\n",
    "PONG": b"PONG\r\n",
    "+OK": b"+OK\r\n",
    "-ERR": b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
    "all lower case": b"ping\r\npong\r\n+ok\r\n-err 'invalid subject'\r\n",
    "bare line feeds": b"PING\nPONG\n+OK\n",
}
EXPECTED = {
    "INFO": ([], (b"", 9, 1 << 20, "", [])),
    "INFO of 8 KiB": ([], (b"", 9, 1 << 20, "", [(f"10.0.0.{i}", 4222) for i in range(8)])),
    "PING": ([], (b"PONG\r\n", 9, 0, "", [])),
    "PONG": ([], (b"", 8, 0, "", [])),
    "+OK": ([], (b"", 9, 0, "", [])),
    "MSG, two spaces": ([("a.b", "", None, 0, "", b"hello")], (b"", 9, 0, "", [])),
    "HMSG": ([("a.b", "", {"a": "b", "c": "d"}, 0, "", b"hi")], (b"", 9, 0, "", [])),
    "HMSG 503": ([("a.b", "", {}, 503, "No Responders", b"")], (b"", 9, 0, "", [])),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_taken_whole_or_not_at_all(name: str) -> None:
    data = OPERATIONS[name]
    whole = Taken(data)
    assert whole.cut_off
    if name in EXPECTED:
        assert (whole.messages, whole.state) == EXPECTED[name]
    ways = [itertools.repeat(1), itertools.cycle([1, 0]), itertools.cycle([0, 511, 0, 0, 513])]
    if len(data) < 100:
        for one, two in itertools.combinations(range(1, len(data)), 2):
            ways.append(iter([one, 0, two - one, 0, len(data) - two]))
    for way in ways:
        again = Taken(data, way)
        assert (again.messages, again.state, again.cut_off) == (whole.messages, whole.state, True)
    for cut in range(len(data)):
        part = Taken(data[:cut])
        assert part.messages == whole.messages[: len(part.messages)]
        assert part.cut_off
        if data.count(b"\n") == 1 or (b"MSG" in data and cut <= data.index(b"\n") + 1):
            assert part.messages == []
            assert part.state == Taken(b"").state


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "more", [b"x", b"\r\n", b"\0\0\0\r\n", b"MSG\r\n", b"{}\r\n", b"y" * 70_000]
)
def test_what_follows_an_operation_is_not_taken_for_a_part_of_it(name: str, more: bytes) -> None:
    whole = Taken(OPERATIONS[name])
    got = Taken(OPERATIONS[name] + more)
    assert got.messages == whole.messages
    assert got.state == whole.state
    assert got.cut_off == (more == b"x")


def test_headers_that_do_not_fit_the_heap_cost_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(load_firmware("headers"), "unpack", unpack)
    data = [msg[-1] for msg in Taken(OPERATIONS["HMSG"] + OPERATIONS["MSG"]).messages]
    assert data == [b"hi", b"hello"]


# ---------------------------------------------------------------- HTTP

BODY = b"0123456789abcdef"
ANSWERS = {name: [data] for name, data, status, body in DELIMITED if status == 200}
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /file/other\r\nContent-Length: 2\r\n\r\nno"
ANSWERS |= {
    "until the end": [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY],
    "moved": [MOVED, b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY],
    "moved, chunked": [MOVED, DELIMITED[7][1]],
    "moved, until the end": [MOVED, b"HTTP/1.0 200 OK\r\n\r\n" + BODY],
}


def fetch(answers: list[bytes], sizes: Any, size: int, sha256: str) -> Any:
    """What one attempt fetches when the connections give `answers`; of an error the code."""
    left = list(answers)

    def connect(*_: Any) -> types.SimpleNamespace:
        source = pieces(left.pop(0), 1 << 20)
        turns = iter(sizes)

        def readinto(buf: Any, n: int) -> int:
            source.step = next(turns, 1 << 20)
            return source.readinto(buf, n)

        it = types.SimpleNamespace(readinto=readinto, close=lambda: None, out=1)
        it.socket = types.SimpleNamespace(readinto=readinto, write=lambda buf, start, n: n)
        return it

    target = types.SimpleNamespace(got=b"", rewind=lambda: False)
    target.write = lambda data: setattr(target, "got", target.got + bytes(data))
    sink = types.SimpleNamespace(limit=None, open=lambda *_: target, check=lambda *_: None)
    env = {"correlation_id": ""}
    item = {"dataname": "a", "payload_type": "binary", "data": "http://127.0.0.1:1/file/a"}
    item |= {"size": size, "metadata": {"sha256": sha256}}
    job = download.Claims(None, env, sink, *urls.links([item], "http://127.0.0.1:1", ()), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "Stream", connect)
        try:
            job.fetch(item, None, (1, 1, 1), None, bytearray(1024))
        except errors.NATSBridgeError as e:
            return str(e.code)
    return target.got


@pytest.mark.parametrize("name", ANSWERS)
def test_a_body_is_fetched_whole_or_not_at_all(name: str) -> None:
    answers = ANSWERS[name]
    body = BODY if BODY in answers[-1] or b"56789abcdef" in answers[-1] else b"abc"
    if name == "empty":
        body = b""
    known = len(body), hashlib.sha256(body).hexdigest()
    assert fetch(answers, [], *known) == body
    length = len(b"".join(answers))
    ways: list[Any] = [itertools.repeat(1), itertools.repeat(2), itertools.cycle([1, 7])]
    for at in range(1, length):
        ways.append([at])
        ways.append([1, at])
    for way in ways:
        assert fetch(answers, way, *known) == body
    *moved, last = answers
    for cut in range(len(last)):
        assert fetch([*moved, last[:cut]], [], *known) in ("DOWNLOAD_FAILED", "INTEGRITY_ERROR")
    for cut in range(len(MOVED) - 4 if moved else 0):  # its body is not read
        assert fetch([MOVED[:cut], last], [], *known) == "DOWNLOAD_FAILED"
    if "until the end" in name:
        assert fetch([*moved, last + b"x"], [], *known) == "INTEGRITY_ERROR"
    else:
        assert fetch([*moved, last + b"HTTP/1.1 500 X\r\n\r\n"], [], *known) == body
