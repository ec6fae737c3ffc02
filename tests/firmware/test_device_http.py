"""http.py: HTTP/1.1 framing, driven without a socket, and what it allocates."""

import contextlib
import time
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import load_firmware, run_micropython
from scripted import ScriptedServer, answer

http = load_firmware("http")
urls = load_firmware("urls")
http.time = types.SimpleNamespace(
    ticks_ms=lambda: int(time.monotonic() * 1000),
    ticks_add=lambda a, b: a + b,
    ticks_diff=lambda a, b: a - b,
)
NATSBridgeError = load_firmware("errors").NATSBridgeError


class Source:
    """A stream that gives at most `step` bytes at a time."""

    def __init__(self, data, step=1 << 20):
        self.rest = data
        self.written = ""
        self.socket = self
        self._step = step

    def readinto(self, buf, n):
        piece = self.rest[: min(n, self._step)]
        buf[: len(piece)] = piece
        self.rest = self.rest[len(piece) :]
        return len(piece)

    def write(self, text, start, n):
        self.written += text
        return n

    def close(self):
        pass


def connection(source):
    """Return a connection over `source`, between two requests."""
    c = http.Connection(urls.home("http://h:8080/plik/"), None, None)
    c.stream = source
    c.origin = "http://h:8080"
    c.left = c.chunked = 0
    c.keep = True
    c.request("GET", urls.parse("http://h:8080/x"), "A: b\r\n", "")
    return c


def read(data, step=1 << 20, n=7):
    """Return the answered connection, the body in `data`, and the bytes after it."""
    source = Source(data, step)
    c = connection(source)
    c.answer()
    body = b""
    buf = bytearray(n)
    while got := c.readinto(buf, n):
        body += buf[:got]
    assert c.readinto(buf, n) == 0
    return c, body, source.rest


BODY = b"0123456789abcdef"
#: (name, the answer's bytes, its status, its body)
DELIMITED = [
    ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY, 200, BODY),
    ("empty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
    ("no reason", b"HTTP/1.1 404\r\ncontent-length:3\r\n\r\nabc", 404, b"abc"),
    ("no content", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (
        "same lengths",
        b"HTTP/1.1 200 OK\r\n" + b"Content-Length: 3\r\n" * 2 + b"\r\nabc",
        200,
        b"abc",
    ),
    ("bare line feeds", b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", 200, b"abc"),
    (
        "interim answers",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        200,
        b"abc",
    ),
    (
        "chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\n01234\r\n00B\r\n56789abcdef\r\n0\r\n\r\n",
        200,
        BODY,
    ),
    (
        "chunk extensions and trailers",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b'3;a="b"\r\nabc\r\n0;x\r\nT: u\r\n\r\n',
        200,
        b"abc",
    ),
    (
        "odd headers",
        b"HTTP/1.1 200 \xe9\r\nX-Y: \xff\xfe\r\nEmpty:\r\nContent-Length: 3 \r\n\r\nabc",
        200,
        b"abc",
    ),
]
ids = [case[0] for case in DELIMITED]


@pytest.mark.parametrize("step", [1, 2, 1 << 20])
@pytest.mark.parametrize("n", [1, 7, 100])
@pytest.mark.parametrize(("data", "status", "body"), [case[1:] for case in DELIMITED], ids=ids)
def test_an_answer_is_read_to_its_end_and_no_further(data, status, body, n, step):
    response, got, rest = read(data + b"HTTP/1.1 next", step, n)
    assert (response.status, got, rest) == (status, body, b"HTTP/1.1 next")


@pytest.mark.parametrize("data", [case[1] for case in DELIMITED], ids=ids)
def test_an_answer_cut_anywhere_is_an_error_and_never_a_shorter_answer(data):
    for cut in range(len(data)):
        with pytest.raises(http.Fault, match="cut off"):
            read(data[:cut])


def test_without_a_length_the_body_goes_on_until_the_connection_ends():
    response, body, _ = read(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    assert (body, response.length) == (BODY, None)


def test_the_headers_that_matter_are_known():
    c, _, _ = read(
        b'HTTP/1.1 206 X\r\nLOCATION:  /x \r\nRetry-After: 7\r\nETag: "a:b"\r\nX: y\r\n'
        b"Content-Range: bytes 1-2/3\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n"
    )
    assert (c.status, c.length) == (206, 0)
    assert c.headers[3:] == ["Keep-Alive", "/x", "7", '"a:b"', "bytes 1-2/3"]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MALFORMED = {
    "no HTTP": b"220 ftp ready\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\n\r\n",
    "signed status": b"HTTP/1.1 +20 OK\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nabc\r\n\r\n",
    "no name": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b: c\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "hexadecimal length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "huge length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 16 + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunked": CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "long line": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
    "long status line": b"HTTP/1.1 200 " + b"a" * 5000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    "no chunk size": CHUNKED + b"\r\nabc\r\n",
    "bad chunk size": CHUNKED + b"g\r\n",
    "colon as a digit": CHUNKED + b":\r\n",
    "negative chunk size": CHUNKED + b"-1\r\n",
    "signed chunk size": CHUNKED + b"+1\r\na\r\n",
    "0x chunk size": CHUNKED + b"0x1\r\na\r\n",
    "long chunk size": CHUNKED + b"0" * 13 + b"1\r\na\r\n",
    "endless chunk size": CHUNKED + b"0" * 10000,
    "chunk longer than it said": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk without its end": CHUNKED + b"3\r\nabc3\r\nabc\r\n0\r\n\r\n",
    "endless extension": CHUNKED + b"3;" + b"x" * 10000,
    "endless trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * 1000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_and_endless_answers_are_refused(data):
    with pytest.raises(http.Fault) as e:
        read(data)
    assert "cut off" not in str(e.value)


@given(st.binary(), st.sampled_from([b"", CHUNKED, b"HTTP/1.1 200 OK\r\n"]), st.integers(1, 20))
def test_whatever_bytes_come_the_answer_is_read_or_refused(data, start, n):
    with contextlib.suppress(http.Fault):
        read(start + data, n=n)


def test_a_requests_head_is_what_plik_answers_to():
    source = Source(b"")
    connection(source)
    assert source.written == (
        "GET /x HTTP/1.1\r\nHost: h:8080\r\nUser-Agent: plik_client/natsbridge\r\n"
        "Accept-Encoding: identity\r\nA: b\r\n\r\n"
    )


def test_https_without_a_ca_is_refused_with_what_to_do():
    c = http.Connection(urls.home("http://host"), None, None)
    with pytest.raises(NATSBridgeError) as e:
        c.request("GET", urls.parse("https://host/x"), "", "")
    assert e.value.code == "INVALID_ARGUMENT"
    assert "plik_upload" in e.value.message
    assert "connect()" in e.value.message


def test_bodies_are_read_without_any_allocation():
    script = """
import micropython
from natsbridge.http import Connection
from natsbridge.urls import home

class Source:
    def __init__(self, head):
        self.head = head
        self.at = 0
        self.chunk = b"800\\r\\n" + bytes(2048) + b"\\r\\n"
        self.socket = self
    def readinto(self, buf, n):
        if n == 1:
            data = self.head if self.at < len(self.head) else self.chunk
            i = self.at if data is self.head else (self.at - len(self.head)) % 2055
            buf[0] = data[i]
        self.at += n
        return n
    def write(self, text, start, n):
        return n

buf = bytearray(2048)
for head in (b"Content-Length: 999999999", b"Transfer-Encoding: chunked", b"X: until the end"):
    c = Connection(home("http://h"), None, None)
    c.stream = Source(b"HTTP/1.1 200 OK\\r\\n" + head + b"\\r\\n\\r\\n")
    c.left = c.chunked = 0
    c.keep = True
    c.origin = "http://h"
    c.request("GET", c.under("/x"), "", "")
    c.answer()
    i = total = 0
    c.readinto(buf, 2048)
    micropython.heap_lock()
    for i in range(1000):
        total += c.readinto(buf, 2048)
    micropython.heap_unlock()
    print(total)
"""
    assert run_micropython(script) == "2048000\n" * 3


def test_one_connection_serves_one_request_after_another_while_the_server_lets_it():
    script = """
import sys
from natsbridge.http import Connection, read
from natsbridge.urls import home
c = Connection(home(sys.argv[1]), None, None)
for i in range(3):
    c.request("GET", c.under("/%d" % i), "", "")
    c.answer()
    print(read(c, 100))
c.close()
"""
    with ScriptedServer(
        [answer(b"one"), answer(b"two", 200, "Connection: close")], [answer(b"three")]
    ) as server:
        assert run_micropython(script, server.url) == "b'one'\nb'two'\nb'three'\n"
        assert server.lines == [f"GET /{i} HTTP/1.1" for i in range(3)]
        assert server.connections == 2


def test_a_connection_with_an_unread_body_is_not_used_again():
    script = """
import sys
from natsbridge.http import Connection, read
from natsbridge.urls import home
c = Connection(home(sys.argv[1]), None, None)
c.request("GET", c.under("/1"), "", "")
c.answer()
print(read(c, 2))
c.request("GET", c.under("/2"), "", "")
print(c.answer())
"""
    with ScriptedServer([answer(b"one two")], [answer(b"", 404)]) as server:
        assert run_micropython(script, server.url) == "b'on'\n404\n"
