"""What file servers do wrong when they are asked for a file, each under a name.

A script is a list of steps for a ScriptedServer, one a connection.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from answers import (
    CHUNKED,
    WEB,
    Run,
    chunks,
    endless,
    half_closed,
    head,
    in_pieces,
    moved,
    reset,
    rest,
    sized,
    slowly,
    stalled,
    unasked,
)
from scripted import Peer, Step

#: What a receiver makes of it.
GOOD = "the right bytes, at once"
AGAIN = "the right bytes, from another attempt"
FINAL = "an error, at once"
LATE = "an error, when the time is over"
EITHER = "the right bytes or an error: it depends on what comes in one piece"


@dataclass(frozen=True)
class Case:
    """One misbehaviour: what is made of it, and the script of one run."""

    outcome: str
    script: Callable[[Run], list[Step]]
    #: Where the desktop, whose HTTP is aiohttp's, makes something else of it.
    desktop: str = ""
    #: Connections of one attempt.
    hops: int = 1


def length(value: str) -> Callable[[Run], list[Step]]:
    """An answer whose Content-Length is that."""
    return lambda run: [head("Content-Length: " + value) + run.body]


def coded(lines: bytes) -> Callable[[Run], list[Step]]:
    """An answer in chunks, the first of which has that size line."""
    return lambda run: [CHUNKED + lines + b"\r\n" + run.body + b"\r\n0\r\n\r\n"]


def said(status: str, body: bytes = b"no such file", *lines: str) -> Callable[[Run], list[Step]]:
    """An answer of that status."""
    return lambda run: [sized(body, *lines, status=status)]


def then(bad: Callable[[Run, int], Step]) -> Callable[[Run], list[Step]]:
    """An answer that is cut, and what the request for the rest is answered with."""

    def script(run: Run) -> list[Step]:
        at = run.split
        return [run.sized[: at - len(run.body)], bad(run, at)]

    return script


LENGTHS = {
    "of one less": Case(
        FINAL, lambda r: [head(f"Content-Length: {len(r.body) - 1}") + r.body], EITHER
    ),
    "of one more": Case(FINAL, lambda r: [head(f"Content-Length: {len(r.body) + 1}") + r.body]),
    "of 0": Case(FINAL, length("0"), EITHER),
    "that is huge": Case(FINAL, length("999999999999999")),
    "of 2^63": Case(AGAIN, length(str(1 << 63)), FINAL),
    "of 3,000 digits": Case(AGAIN, length("9" * 3000)),
    "that is negative": Case(AGAIN, length("-1")),
    "with a plus sign": Case(AGAIN, lambda r: [head(f"Content-Length: +{len(r.body)}") + r.body]),
    "in hexadecimal": Case(AGAIN, lambda r: [head(f"Content-Length: {len(r.body):#x}") + r.body]),
    "that is no number": Case(AGAIN, length("many")),
    "that is empty": Case(AGAIN, length("")),
    "that is two numbers": Case(AGAIN, lambda r: length("{0}, {0}".format(len(r.body)))(r)),
    "twice the same": Case(
        GOOD, lambda r: [head(*[f"Content-Length: {len(r.body)}"] * 2) + r.body], AGAIN
    ),
    "twice, not the same": Case(
        AGAIN,
        lambda r: [head(f"Content-Length: {len(r.body)}", "Content-Length: 1") + r.body],
    ),
    "and chunked": Case(
        AGAIN,
        lambda r: [
            head(f"Content-Length: {len(r.body)}", "Transfer-Encoding: chunked")
            + chunks(r.body, r.dice)
            + b"0\r\n\r\n"
        ],
    ),
    "that is absent": Case(GOOD, lambda r: [head() + r.body]),
    "that is absent, and the body cut": Case(AGAIN, lambda r: [head() + r.body[: r.split]]),
    "that is absent, and more than the body": Case(FINAL, lambda r: [head() + r.body + b"x"]),
}

CHUNKS = {
    "of any size": Case(GOOD, lambda r: [CHUNKED + chunks(r.body, r.dice) + b"0\r\n\r\n"]),
    "with extensions": Case(
        GOOD,
        lambda r: [CHUNKED + chunks(r.body, r.dice, more=b';a=b;c="d"') + b"0;e\r\n\r\n"],
    ),
    "with trailers": Case(
        GOOD,
        lambda r: [CHUNKED + chunks(r.body, r.dice) + b"0\r\nA: b\r\nC: d\r\n\r\n"],
    ),
    "with a length after them": Case(
        GOOD,
        lambda r: [CHUNKED + chunks(r.body, r.dice) + b"0\r\nContent-Length: 1\r\n\r\n"],
        AGAIN,
    ),
    "with zeros before their sizes": Case(
        GOOD, lambda r: [CHUNKED + chunks(r.body, r.dice, "%08X") + b"000\r\n\r\n"]
    ),
    "that end early": Case(
        AGAIN, lambda r: [CHUNKED + chunks(r.body[: r.split], r.dice) + b"0\r\n\r\n"]
    ),
    "that are more than the file": Case(
        FINAL, lambda r: [CHUNKED + chunks(r.body + b"x", r.dice) + b"0\r\n\r\n"]
    ),
    "that are cut": Case(
        AGAIN, lambda r: [r.cut_body(CHUNKED + chunks(r.body, r.dice) + b"0\r\n")]
    ),
    "without the last one": Case(AGAIN, lambda r: [CHUNKED + chunks(r.body, r.dice)]),
    "of a size that is no number": Case(AGAIN, coded(b"many")),
    "of a negative size": Case(AGAIN, coded(b"-1")),
    "of no size": Case(AGAIN, coded(b"")),
    "of 17 digits": Case(AGAIN, coded(b"1" * 17)),
    "of a size with 0x": Case(AGAIN, lambda r: coded(f"{len(r.body):#x}".encode())(r)),
    "of one byte less than they have": Case(
        AGAIN, lambda r: coded(f"{len(r.body) - 1:x}".encode())(r)
    ),
    "of one byte more than they have": Case(
        FINAL, lambda r: coded(f"{len(r.body) + 1:x}".encode())(r)
    ),
    "that are zipped": Case(AGAIN, lambda r: [head("Transfer-Encoding: gzip, chunked") + r.body]),
    "of another coding": Case(
        AGAIN, lambda r: [head("Transfer-Encoding: xchunked") + r.body], EITHER
    ),
}

ENDINGS = {
    "closed in the head": Case(AGAIN, lambda r: [r.cut_head()]),
    "reset in the head": Case(AGAIN, lambda r: [reset(r.cut_head())]),
    "half-closed in the head": Case(AGAIN, lambda r: [half_closed(r.cut_head())]),
    "stalled in the head": Case(LATE, lambda r: [stalled(r.cut_head())]),
    "closed in the body": Case(AGAIN, lambda r: [r.cut_body()]),
    "reset in the body": Case(AGAIN, lambda r: [reset(r.cut_body())]),
    "half-closed in the body": Case(AGAIN, lambda r: [half_closed(r.cut_body())]),
    "stalled in the body": Case(LATE, lambda r: [stalled(r.cut_body())]),
    "stalled before the last chunk": Case(
        LATE, lambda r: [stalled(CHUNKED + chunks(r.body, r.dice))]
    ),
    "reset at once": Case(AGAIN, lambda r: [Peer.reset]),
    "closed at once": Case(AGAIN, lambda r: [Peer.close]),
    "a byte now and then": Case(LATE, lambda r: [slowly(r.sized, 0.05)]),
    "in many pieces": Case(GOOD, lambda r: [in_pieces(r.sized, r.dice)]),
    "the whole, and reset": Case(GOOD, lambda r: [half_closed(r.sized)]),
    "the whole, and open": Case(GOOD, lambda r: [stalled(r.sized)]),
    "before it is asked": Case(EITHER, lambda r: [unasked(r.sized)]),
}

RANGES = {
    "206 that was not asked for": Case(FINAL, lambda r: [rest(r.body, 0, len(r.body))]),
    "206 of a part that was not asked for": Case(FINAL, lambda r: [rest(r.body, 0, r.split)]),
    "206 with the rest": Case(GOOD, then(lambda r, at: rest(r.body, at, len(r.body)))),
    "206 with the rest, cut": Case(AGAIN, then(lambda r, at: rest(r.body, at, len(r.body))[:-1])),
    "206 of another range": Case(AGAIN, then(lambda r, at: rest(r.body, at - 1, len(r.body)))),
    "206 that ends early": Case(AGAIN, then(lambda r, at: rest(r.body, at, len(r.body) - 1))),
    "206 beyond the end": Case(AGAIN, then(lambda r, at: rest(r.body + b"x", at, len(r.body) + 1))),
    "206 of a range that is no number": Case(
        AGAIN,
        then(lambda r, at: sized(r.body[at:], "Content-Range: bytes x-y/z", status="206 X")),
    ),
    "206 without a range": Case(AGAIN, then(lambda r, at: sized(r.body[at:], status="206 X"))),
    "206 of another file": Case(
        FINAL,
        then(lambda r, at: rest(r.body[:at] + bytes(c ^ 1 for c in r.body[at:]), at, len(r.body))),
    ),
    "200 with the whole": Case(GOOD, then(lambda r, at: r.sized)),
    "200 with the rest": Case(FINAL, then(lambda r, at: sized(r.body[at:]))),
    "416 to the rest": Case(FINAL, then(lambda r, at: sized(b"no such range", status="416 X"))),
}

REDIRECTS = {
    "to the file": Case(GOOD, lambda r: [moved("/file/c/d/e", "302 X"), r.sized]),
    "to a web page": Case(FINAL, lambda r: [moved("/?err=404"), sized(WEB)]),
    "to a web page without a length": Case(FINAL, lambda r: [moved("/#/err"), head() + WEB * 500]),
    "to a web page of the same size": Case(
        FINAL, lambda r: [moved("/err"), sized((WEB * 500)[: len(r.body)])]
    ),
    "in a circle": Case(FINAL, lambda r: [moved("/file/a/b/f.bin")] * 4),
    "to elsewhere": Case(FINAL, lambda r: [moved("http://127.0.0.1:1/file/a/b/f.bin")]),
    "to elsewhere, without a scheme": Case(FINAL, lambda r: [moved("//127.0.0.1:1/file/a/b/c")]),
    "to a file of this machine": Case(FINAL, lambda r: [moved("file:///etc/passwd")]),
    "to nowhere": Case(FINAL, said("301 X", b"")),
    "to what is cut": Case(AGAIN, lambda r: [moved("/x"), r.cut_body()], hops=2),
    "of several choices": Case(FINAL, lambda r: [moved("/x", "300 Multiple Choices")]),
    "to what has not changed": Case(FINAL, lambda r: [moved("/x", "304 Not Modified")]),
    "to a proxy": Case(FINAL, lambda r: [moved("/x", "305 Use Proxy")]),
}

STATUSES = {
    "204": Case(FINAL, lambda r: [head("Connection: close", status="204 No Content")]),
    "204 with the body": Case(FINAL, lambda r: [sized(r.body, status="204 X")], EITHER),
    "205": Case(FINAL, lambda r: [sized(b"", status="205 X")]),
    "202": Case(FINAL, lambda r: [sized(r.body, status="202 Accepted")]),
    "304": Case(FINAL, lambda r: [head("Connection: close", status="304 Not Modified")]),
    "404": Case(FINAL, said("404 Not Found")),
    "404 in chunks that are cut": Case(
        FINAL, lambda r: [head("Transfer-Encoding: chunked", status="404 X") + b"5\r\nno"]
    ),
    "410": Case(FINAL, said("410 Gone")),
    "503": Case(AGAIN, said("503 Busy", b"", "Retry-After: 0")),
    "500 with the right body": Case(AGAIN, lambda r: [sized(r.body, status="500 X")]),
    "100 before it": Case(GOOD, lambda r: [head(status="100 Continue") + r.sized]),
    "many 1xx before it": Case(
        GOOD, lambda r: [head("Link: </x>", status="103 Early Hints") * 9 + r.sized]
    ),
    "99": Case(AGAIN, lambda r: [sized(r.body, status="99 X")]),
    "no number": Case(AGAIN, lambda r: [sized(r.body, status="2OO OK")]),
    "no reason": Case(GOOD, lambda r: [sized(r.body, status="200")]),
    "HTTP/1.0": Case(GOOD, lambda r: [head(version="HTTP/1.0") + r.body]),
    "HTTP/0.9": Case(AGAIN, lambda r: [r.body]),
    "HTTP/2": Case(AGAIN, lambda r: [b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80" + r.sized]),
    "of another protocol": Case(AGAIN, lambda r: [b"ICY" + r.sized[8:]]),
}

HEADERS = {
    "without an end": Case(AGAIN, lambda r: [endless(head()[:-2], b"X: y\r\n")]),
    "of one line without an end": Case(AGAIN, lambda r: [endless(head()[:-2], b"x")]),
    "with a space before the colon": Case(
        AGAIN, lambda r: [head(f"Content-Length : {len(r.body)}") + r.body], EITHER
    ),
    "without a colon": Case(AGAIN, lambda r: [sized(r.body, "hello")]),
    "without a name": Case(AGAIN, lambda r: [sized(r.body, ": hello")]),
    "with a zero byte": Case(AGAIN, lambda r: [sized(r.body, "Connection: cl\0ose")]),
    "in lines that go on": Case(AGAIN, lambda r: [sized(r.body, "X: a\r\n b")], GOOD),
    "with bare line feeds": Case(GOOD, lambda r: [r.sized.replace(b"\r\n", b"\n", 3)]),
}

BODIES = {
    "of the right size, with wrong bytes": Case(FINAL, lambda r: [sized(r.other)]),
    "with wrong bytes, in chunks": Case(
        FINAL, lambda r: [CHUNKED + chunks(r.other, r.dice) + b"0\r\n\r\n"]
    ),
    "of nothing but zeros": Case(FINAL, lambda r: [sized(bytes(len(r.body)))]),
    "that is zipped": Case(
        AGAIN,
        lambda r: [sized(zlib.compress(r.body, wbits=31), "Content-Encoding: gzip")],
        FINAL,
    ),
    "that says it is zipped": Case(
        AGAIN, lambda r: [sized(r.body, "Content-Encoding: gzip")], FINAL
    ),
    "that says how it is not zipped": Case(
        GOOD, lambda r: [sized(r.body, "Content-Encoding: identity")]
    ),
    "of a web page": Case(FINAL, lambda r: [sized(WEB, "Content-Type: text/html")]),
    "twice": Case(FINAL, lambda r: [sized(r.body * 2)]),
    "in two answers": Case(GOOD, lambda r: [r.sized.replace(b"close", b"keep-alive") * 2]),
    "with garbage after it": Case(
        GOOD,
        lambda r: [r.sized.replace(b"close", b"keep-alive") + r.dice.randbytes(900)],
        EITHER,
    ),
    "without an end": Case(FINAL, lambda r: [endless(head(), b"x")]),
    "in chunks without an end": Case(
        FINAL, lambda r: [endless(CHUNKED, b"ff\r\n%s\r\n" % (b"x" * 255))]
    ),
}

CASES: dict[str, Case] = {
    f"{what} {name}": case
    for what, group in {
        "a length": LENGTHS,
        "chunks": CHUNKS,
        "an answer": ENDINGS,
        "a range,": RANGES,
        "a redirect": REDIRECTS,
        "a status,": STATUSES,
        "headers": HEADERS,
        "a body": BODIES,
    }.items()
    for name, case in group.items()
}
