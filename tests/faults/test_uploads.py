"""Uploads to file servers that misbehave: stored whole, or an error that says why, in time.

Nothing that an attempt left behind stays on the server, and a refusal tells the server's reason,
also when the connection is reset behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from answers import head
from figures import Figures
from jobs import Device, Tally
from misbehaviours import AGAIN, EITHER, FINAL, GOOD, LATE
from natsbridge import plik
from natsbridge.errors import NATSBridgeError
from plik_store import Fault, Store, body, said
from scale import dice, runs
from scripted import PATIENCE_S, Peer, Request, answer

TIMES = runs(1, 40, 8)
TIMEOUT_S = 0.25
SOON_S = 8
SIZES = (0, 1, 1023, 1024, 1025, 5000, 70_000)
#: More than what sockets take in one go.
LARGE = (1_000_000, 6_000_000)
REASON = "file too big (limit is set to 1 kB)"

Make = Callable[[random.Random, int], Fault]


@dataclass(frozen=True)
class Case:
    """One misbehaviour: what is made of it, and what happens to a request, of dice and a turn."""

    outcome: str
    fault: Make
    sizes: tuple[int, ...] = SIZES
    #: Where the device, or the desktop, makes something else of it.
    device: str = ""
    desktop: str = ""


# ---------------------------------------------------------------- what happens to a request


def whole(store: Store, peer: Peer, request: Request) -> bytes:
    """Do as a good server does: its answer."""
    return store.answer(request, body(peer, request))


def says(data: bytes, read: int | None = None, reset: bool = False) -> Make:
    """Answer that after `read` bytes of the body (None: all of it)."""

    def fault(store: Store, peer: Peer, request: Request) -> None:
        if read is None:
            body(peer, request)
        else:
            peer.read(read)
        peer.send(data)
        if reset:
            peer.reset()

    return lambda rng, turn: fault


def refuses(status: int, read: int, reset: bool) -> Case:
    """Refuse it for good, and early."""
    text = answer(REASON.encode() + b"\n" + b"." * 200, status)
    return Case(FINAL, says(text, read, reset), LARGE)


def lies(**changes: Any) -> Case:
    """Store it, and say something else of it."""

    def fault(store: Store, peer: Peer, request: Request) -> None:
        upload = request.line.split()[1].split("/")[2]
        peer.send(said({**store.store(upload, body(peer, request)), **changes}))

    return Case(AGAIN, lambda rng, turn: fault)


def answers(change: Callable[[bytes, random.Random, int], bytes], reset: bool = False) -> Make:
    """Do as a good server does, and answer with what `change` makes of its answer."""

    def make(rng: random.Random, turn: int) -> Fault:
        def fault(store: Store, peer: Peer, request: Request) -> None:
            peer.send(change(whole(store, peer, request), rng, turn))
            if reset:
                peer.reset()

        return fault

    return make


def ends(reset: bool = False, stall: bool = False) -> Make:
    """Read a part of the body, and then no more."""

    def make(rng: random.Random, turn: int) -> Fault:
        def fault(store: Store, peer: Peer, request: Request) -> None:
            size = int(request.headers.get("content-length", 2))
            peer.read(rng.randrange(size // 2, size))
            if stall:
                store.over.wait(PATIENCE_S)
            if reset:
                peer.reset()

        return fault

    return make


def cut(data: bytes, rng: random.Random, turn: int) -> bytes:
    """An answer that ends too early, at one byte after the other."""
    return data[: turn % len(data)]


def trickles(store: Store, peer: Peer, request: Request) -> None:
    """Answer byte by byte."""
    for byte in whole(store, peer, request):
        peer.send(bytes([byte]))
        if store.over.wait(0.05):
            break


def loses(store: Store, peer: Peer, request: Request) -> None:
    """Store half of the file, and say that this was all."""
    upload = request.line.split()[1].split("/")[2]
    content = body(peer, request)
    start, end = content.index(b"\r\n\r\n") + 4, content.rindex(b"\r\n--")
    half = content[: (start + end) // 2] + content[end:]
    peer.send(said(store.store(upload, half)))


def early(store: Store, peer: Peer, request: Request) -> None:
    """Say that it is stored, in the middle of it."""
    peer.read(1000)
    peer.send(said({"id": "early", "fileName": "f.bin", "fileSize": 1000}))


BUSY = answer(b"busy", 503, "Retry-After: 0")
CHUNKED = head("Transfer-Encoding: chunked")
SENDING: dict[str, Case] = {
    "400 in the middle of the body, and a reset": refuses(400, 1000, True),
    "400 at the first byte, and a reset": refuses(400, 0, True),
    "400 after much of the body, and a reset": refuses(400, 500_000, True),
    "400 in the middle of the body": refuses(400, 1000, False),
    "413 in the middle of the body, and a reset": refuses(413, 1000, True),
    "401 before the body, and a reset": refuses(401, 0, True),
    "507 in the middle of the body": refuses(507, 20_000, False),
    "400 when all has come": Case(FINAL, says(answer(REASON.encode(), 400))),
    "404 when all has come": Case(FINAL, says(answer(REASON.encode(), 404))),
    "a redirect": Case(FINAL, says(answer(REASON.encode(), 301, "Location: /"))),
    "503 before the body": Case(AGAIN, says(BUSY, 0)),
    "503 in the middle of the body, and a reset": Case(AGAIN, says(BUSY, 1000, True), LARGE),
    "429 when all has come": Case(AGAIN, says(answer(b"", 429, "Retry-After: 0"))),
    "500 when it is stored": Case(AGAIN, answers(lambda *_: answer(b"no room", 500))),
    "closed in the middle of the body": Case(AGAIN, ends()),
    "reset in the middle of the body": Case(AGAIN, ends(reset=True)),
    "closed in the middle of a large body": Case(AGAIN, ends(), LARGE),
    "reset in the middle of a large body": Case(AGAIN, ends(reset=True), LARGE),
    "a body that is read no further": Case(LATE, ends(stall=True)),
    "a large body that is read no further": Case(LATE, ends(stall=True), LARGE),
    "closed before a byte": Case(AGAIN, lambda *_: lambda store, peer, request: None),
    "an answer that is cut": Case(AGAIN, answers(cut)),
    "an answer that is cut by a reset": Case(AGAIN, answers(cut, True)),
    "an answer that does not come": Case(AGAIN, answers(lambda *_: b"")),
    "an answer byte by byte": Case(LATE, lambda *_: trickles),
    "an answer behind 100 Continue": Case(
        GOOD, answers(lambda data, *_: head(status="100 Continue") * 2 + data)
    ),
    "an answer twice": Case(GOOD, answers(lambda data, *_: data * 2), desktop=EITHER),
    "an answer with garbage behind it": Case(
        GOOD, answers(lambda data, rng, _: data + rng.randbytes(99)), desktop=EITHER
    ),
    "an answer in one chunk": Case(
        GOOD,
        answers(
            lambda data, *_: (
                CHUNKED
                + b"%x\r\n%s\r\n0\r\n\r\n" % ((len(text := data.partition(b"\r\n\r\n")[2])), text)
            )
        ),
    ),
    "an answer in chunks that end early": Case(
        AGAIN, answers(lambda *_: CHUNKED + b'4\r\n{"id\r\n0\r\n\r\n'), device=FINAL
    ),
    "an answer that is no HTTP": Case(AGAIN, answers(lambda *_: b"stored it\r\n\r\n")),
    "a web page": Case(AGAIN, answers(lambda *_: answer(b"<html>hello</html>")), device=FINAL),
    "an id that is no id": Case(**{**vars(lies(id="../x")), "device": FINAL}),
    "no id": Case(**{**vars(lies(id=None)), "device": FINAL}),
    "a file of another size": lies(fileSize=7_777_777),
    "a file of a negative size": lies(fileSize=-1),
    "a file whose size is a text": lies(fileSize="many"),
    "a file of another digest": lies(fileMd5="0" * 32),
    "a digest that is no text": lies(fileMd5=[5]),
    "half of the file": Case(AGAIN, lambda *_: loses, (2, 1023, 1024, 70_000)),
    "success in the middle of the body": Case(AGAIN, lambda *_: early, LARGE),
}
CREATING: dict[str, Case] = {
    "503": Case(AGAIN, says(BUSY)),
    "403": Case(FINAL, says(answer(REASON.encode(), 403))),
    "403 and a reset": Case(FINAL, says(answer(REASON.encode(), 403), 0, True)),
    "500": Case(AGAIN, says(answer(b"", 500))),
    "no answer": Case(AGAIN, says(b"")),
    "a reset": Case(AGAIN, says(b"", reset=True)),
    "an answer that is cut": Case(AGAIN, answers(cut)),
    "garbage behind the answer": Case(
        EITHER, answers(lambda data, rng, _: data + rng.randbytes(99))
    ),
    "an answer to what was not asked": Case(
        EITHER, answers(lambda data, rng, _: data + said({"id": "f", "fileSize": 5}))
    ),
}
CASES = {f"a file, {name}": case for name, case in SENDING.items()}
CASES |= {f"an upload, {name}": case for name, case in CREATING.items()}


# ---------------------------------------------------------------- what comes of it


class Upload:
    """One run of a case."""

    def __init__(self, name: str, outcome: str, rng: random.Random, turn: int) -> None:
        case = CASES[name]
        self.outcome = outcome
        self.data = rng.randbytes(rng.choice(case.sizes))
        #: Whether the source can't be read again: then there is one attempt.
        creating = name.startswith("an upload")
        self.once = not creating and case.sizes is SIZES and rng.random() < 0.2
        self.timeout = TIMEOUT_S if outcome == LATE else None
        again = 1
        if outcome == AGAIN:
            again = 6 if rng.random() < 0.1 else rng.randint(1, 3)
            if again == 6 or self.once:
                self.outcome = "an error, after so many"
        faults = [case.fault(rng, turn + i) for i in range(again)]
        self.store = Store(faults if creating else [], [] if creating else faults)

    def judge(self, got: dict[str, Any], s: float) -> str:
        """Whether it is stored, or an error; neither is a failure of the test."""
        store = self.store
        if not got["code"]:
            result = got["result"]
            assert store.uploads[result["uploadid"]] == {result["fileid"]: self.data}
            assert result["size"] == len(self.data)
            assert result["sha256"] == hashlib.sha256(self.data).hexdigest()
            place = f"/file/{result['uploadid']}/{result['fileid']}/f.bin"
            assert result["url"] == store.url + place
            assert self.outcome in (GOOD, AGAIN, EITHER), "it was stored"
        else:
            assert got["code"] == "UPLOAD_FAILED", got
            assert self.outcome not in (GOOD, AGAIN), got
            if self.outcome == FINAL:
                sent = [line for line in store.lines if line.startswith("POST /file/")]
                assert len(sent) <= 1
        stored = [files for files in store.uploads.values() if files]
        assert len(stored) == (not got["code"]), store.uploads
        assert s < SOON_S
        return "error" if got["code"] else "right"


@pytest.fixture(scope="module")
def tallies(figures: Figures) -> Iterator[dict[str, Tally]]:
    both = {side: Tally(f"{side}, uploads") for side in ("device", "desktop")}
    yield both
    for side, tally in both.items():
        tally.note(figures, 6, f"uploads-{side}")


@pytest.fixture(scope="module")
def device(nats_url: str) -> Iterator[Device]:
    it = Device(nats_url, "faults.uploads")
    yield it
    it.close()


def told(name: str, got: dict[str, Any]) -> None:
    """A refusal must have the server's reason."""
    refused = ("400", "401", "403", "404", "413", "507")
    if got["code"] and name.partition(", ")[2].startswith(refused):
        assert REASON in got["message"], got


@pytest.mark.parametrize("name", CASES)
def test_the_device_has_it_stored_or_says_why_after(
    name: str, device: Device, tallies: dict[str, Tally], tmp_path: Path
) -> None:
    rng = dice(name)
    for turn in range(start := rng.randrange(1000), start + TIMES):
        upload = Upload(name, CASES[name].device or CASES[name].outcome, rng, turn)
        (tmp_path / "f.bin").write_bytes(upload.data)
        outcome, s = "bad", 0.0
        try:
            with upload.store as store:
                got = device.do(
                    do="upload",
                    path=str(tmp_path / "f.bin"),
                    files=store.url,
                    once=upload.once,
                    timeout=upload.timeout,
                )
                s = got["ms"] / 1000
            outcome = upload.judge(got, s)
            told(name, got)
        finally:
            tallies["device"].add(name, outcome, s)


class Once(io.BytesIO):
    """A stream that can't be read again."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise OSError("a pipe")


@pytest.mark.parametrize("name", CASES)
def test_the_desktop_has_it_stored_or_says_why_after(
    name: str, tallies: dict[str, Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plik, "BASE_DELAY", 1)
    monkeypatch.setattr(plik, "MAX_DELAY", 2)
    rng = dice(name)
    for turn in range(start := rng.randrange(1000), start + TIMES):
        upload = Upload(name, CASES[name].desktop or CASES[name].outcome, rng, turn)
        source = Once(upload.data) if upload.once else io.BytesIO(upload.data)
        outcome, s = "bad", 0.0
        try:
            with upload.store as store:
                begin = time.monotonic()
                work = natsbridge.plik_upload(store.url, "f.bin", source, timeout=upload.timeout)
                try:
                    got = {"code": "", "result": asyncio.run(work)}
                except NATSBridgeError as e:
                    got = {"code": e.code, "message": e.message}
                s = time.monotonic() - begin
            outcome = upload.judge(got, s)
            told(name, got)
        finally:
            tallies["desktop"].add(name, outcome, s)
