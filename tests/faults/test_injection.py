"""No character in what a caller may choose makes another frame, header or request of it: the call
is refused before a byte is sent, or exactly what was asked for is on the wire."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device import FIRMWARE, Process, micropython
from figures import Figures
from recorders import Frame, RecordingBroker, RecordingServer, Request
from scale import SCALE

SCRIPT = Path(__file__).with_name("injection_device.py")
MPY = FIRMWARE.parent / "build" / "firmware"
#: Seconds for all characters.
PATIENCE_S = 900
SOME = (0, 10, 13, 32, 34, 127, 133)
CHARACTERS = "all" if SCALE != "quick" else ",".join(map(str, SOME))
COUNT = 256 if SCALE != "quick" else len(SOME)
PLACES = ("%sab", "a%sb", "ab%s")
CONTROL = frozenset((*range(32), 127))
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789" + bytes(range(65, 91)) + bytes(range(97, 123)))
#: White space beyond ASCII, which a sender may refuse (PROTOCOL.md, section 3).
MAY = frozenset((0x85, 0xA0))
SUBJECTS = {
    *("subject", "reply", "subject_and_reply,_with_headers", "subscribed", "queue"),
    *("request", "publish_message", "smartsend"),
}
SIDES = ("device", "desktop")


class Call:
    """A call of the script: what got which text, and what came of it."""

    def __init__(self, line: str) -> None:
        self.tag, self.result = line.rsplit(" ", 1)
        self.what, code, place = self.tag.split("/")
        self.code, self.place = int(code), int(place)
        self.text = PLACES[self.place] % chr(self.code)
        self.sent = self.result == "sent"


class Recorded:
    """What one side did, and what of it came at the servers."""

    def __init__(self, side: str, what: str) -> None:
        self.broker = RecordingBroker()
        self.files = RecordingServer()
        try:
            out = self._run(side, what, self.broker.url, self.files.url, CHARACTERS)
        finally:
            self.broker.close()
            self.files.close()
        self.calls = [Call(line) for line in out.splitlines()]
        assert not self.broker.faults
        assert not self.files.faults
        counts = Counter(call.what for call in self.calls)
        assert set(counts.values()) == {COUNT * len(PLACES)}
        self.kinds = len(counts)

    def _run(self, side: str, *arguments: str) -> str:
        if side == "device":
            process = micropython(SCRIPT, *arguments, heap="512K", path=MPY)
        else:
            line = [sys.executable, str(SCRIPT), *arguments]
            process = Process(line, stdout=subprocess.PIPE, text=True)
        with process:
            return process.rest(PATIENCE_S)


#: How many values each side was given, in how many places, and how many of them went out.
totals: dict[str, Counter[str]] = {side: Counter() for side in SIDES}


@pytest.fixture(scope="module", autouse=True)
def noted(request: pytest.FixtureRequest, figures: Figures) -> Iterator[None]:
    """The figure of each side."""
    before = request.session.testsfailed
    yield
    for side, total in totals.items():
        if total["places"]:
            figures.note(
                10,
                f"injection-{side}",
                f"{side}: {total['values']:,} values in {total['places']} places, {total['sent']:,}"
                " of them sent exactly, the others refused",
                met=request.session.testsfailed == before,
            )


def recorded(side: str, what: str) -> Recorded:
    """What a side did, counted."""
    found = Recorded(side, what)
    sent = sum(call.sent for call in found.calls)
    totals[side].update(values=len(found.calls), places=found.kinds, sent=sent)
    return found


@pytest.fixture(scope="module", params=SIDES)
def nats(request: pytest.FixtureRequest, noted: None) -> Recorded:
    """All that goes to the broker, on one connection."""
    return recorded(request.param, "nats")


@pytest.fixture(scope="module", params=SIDES)
def files(request: pytest.FixtureRequest, noted: None) -> Recorded:
    """All that goes to the file server."""
    return recorded(request.param, "files")


@pytest.fixture(scope="module", params=SIDES)
def logins(request: pytest.FixtureRequest, noted: None) -> Recorded:
    """Connections, each with another login."""
    return recorded(request.param, "connect")


# ---------------------------------------------------------------- NATS


def tag_of(data: bytes) -> str:
    """The tag in a payload."""
    if not data.startswith(b"{"):
        return data.decode()
    env = json.loads(data)
    if "tag" in env:
        return str(env["tag"])
    assert len(env["payloads"]) == 1
    return base64.b64decode(env["payloads"][0]["data"]).decode()


def test_each_message_is_one_frame_and_nothing_else_is_on_the_wire(nats: Recorded) -> None:
    (frames,) = nats.broker.connections
    messages = [frame for frame in frames if frame.name in ("PUB", "HPUB")]
    tags = Counter(tag_of(frame.data) for frame in messages)
    subscribed = ("subscribed", "queue")
    wanted = Counter(call.tag for call in nats.calls if call.sent and call.what not in subscribed)
    assert tags == wanted
    subs = [frame.words for frame in frames if frame.name == "SUB"]
    ours = [words for words in subs if not words[0].startswith("_INBOX.")]
    calls = [call for call in nats.calls if call.sent and call.what in subscribed]
    assert ours == [(c.text,) if c.what == "subscribed" else ("s", c.text) for c in calls]
    counts = Counter(frame.name for frame in frames)
    assert counts["CONNECT"] == 1
    assert counts["UNSUB"] <= counts["SUB"]
    assert set(counts) <= {"CONNECT", "PING", "PUB", "HPUB", "SUB", "UNSUB"}


def test_each_message_has_what_it_was_given(nats: Recorded) -> None:
    (frames,) = nats.broker.connections
    found = {tag_of(frame.data): frame for frame in frames if frame.name in ("PUB", "HPUB")}
    publishable = {call.text for call in nats.calls if call.what == "subject" and call.sent}
    for call in nats.calls:
        if call.tag in found:
            check(call, found[call.tag], publishable)


def check(call: Call, frame: Frame, publishable: set[str]) -> None:
    """Fail unless the frame has the call's text where it belongs, and nothing else."""
    what, text = call.what, call.text
    words: tuple[str, ...] = ("s",)
    block = b""
    if what in ("subject", "publish_message", "smartsend"):
        words = (text,)
    elif what == "reply" or (what == "reply_to" and text in publishable):
        words = ("s", text)
    elif what == "request":
        words = (text, frame.words[1])
        assert frame.words[1].startswith("_INBOX.")
    elif what == "header_name":
        block = f"NATS/1.0\r\n{text}: x\r\n\r\n".encode()
    elif what == "header_value":
        line = frame.block.split(b"\r\n")[1].decode()
        assert line.partition(": ")[2].strip() == text.strip()
        block = f"NATS/1.0\r\n{line}\r\n\r\n".encode()
    elif what == "subject_and_reply,_with_headers":
        words, block = (text, text), b"NATS/1.0\r\nx: y\r\n\r\n"
    assert frame.words == words
    assert frame.block == block
    if not frame.data.startswith(b'{"tag"') and frame.data.startswith(b"{"):
        env = json.loads(frame.data)
        assert env["send_to"] == words[0]
        assert env["payloads"][0]["dataname"] == (text if what == "dataname" else "n")
        if what in env:
            assert env[what] == text
        metadata = {key: env["metadata"][key] for key in env["metadata"] if key != "clock"}
        wanted = {"metadata_key": {text: "x"}, "metadata_value": {"x": text}}.get(what, {})
        assert metadata == wanted


def test_what_would_be_another_frame_is_refused(nats: Recorded) -> None:
    for call in nats.calls:
        bad = False
        if call.what in SUBJECTS:
            bad = call.code in CONTROL or call.code == 32 or (call.code == 46 and call.place != 1)
            if call.code in MAY or (call.what == "subscribed" and call.code in b"*>"):
                bad = not call.sent
        elif call.what == "header_name":
            bad = call.code not in TOKEN
        elif call.what == "header_value":
            bad = call.code in CONTROL and call.code != 9
        assert call.result == ("INVALID_ARGUMENT" if bad else "sent"), call.tag


def test_a_login_is_one_line(logins: Recorded) -> None:
    assert all(call.sent for call in logins.calls)
    keys = {"name": "name", "user": "user", "password": "pass", "token": "auth_token"}
    connections = logins.broker.connections
    for call, frames in zip(logins.calls, connections, strict=True):
        assert [frame.name for frame in frames[:2]] == ["CONNECT", "PING"], call.tag
        assert {frame.name for frame in frames[2:]} <= {"PING"}
        who = json.loads(frames[0].words[0])
        assert who[keys[call.what]] == call.text
        others = set(keys.values()) - {keys[call.what]}
        assert {who.get(key) for key in others} <= {None, "", "x"}


# ---------------------------------------------------------------- HTTP

USUAL = {
    *("host", "user-agent", "accept", "accept-encoding", "connection", "content-type"),
    *("content-length", "x-uploadtoken", "authorization"),
}
PART = re.compile(
    rb'--([0-9a-f-]+)\r\nContent-Disposition: form-data; name="file"; '
    rb'filename="([A-Za-z0-9._-]+)"\r\n(?:Content-Type: application/octet-stream\r\n)?\r\n'
    rb"([ -~]*)\r\n--\1--\r\n"
)
FETCHED = {"file", "query", "correlation_id"}


def uploads(requests: list[Request]) -> dict[str, Request]:
    """The uploads among the requests, by the tag that each one's file consists of."""
    found = {}
    for request in requests:
        if request.method == "POST" and "multipart/form-data" in dict(request.headers).get(
            "content-type", ""
        ):
            part = PART.fullmatch(request.body)
            assert part, request
            assert part[3].decode() not in found
            found[part[3].decode()] = request
    return found


def test_each_call_is_the_requests_that_it_has_to_be(files: Recorded) -> None:
    sent = [call for call in files.calls if call.sent]
    wanted = {call.tag for call in sent if call.what not in FETCHED}
    requests = files.files.requests
    assert set(uploads(requests)) == wanted
    gets = sum(call.what in FETCHED for call in sent)
    assert Counter(request.method for request in requests) == {"POST": 2 * len(wanted), "GET": gets}
    assert {call.result for call in files.calls} <= {"sent", "INVALID_ARGUMENT"}


def test_no_request_has_another_header(files: Recorded) -> None:
    names = {call.text.lower() for call in files.calls if call.what == "header_name" and call.sent}
    values = {call.text.strip() for call in files.calls if call.what == "header_value"}
    found = uploads(files.files.requests)
    for call in files.calls:
        if call.sent and call.what in ("header_name", "header_value"):
            (header,) = [item for item in found[call.tag].headers if item[0] not in USUAL]
            name, value = ("x-a", call.text) if call.what[7:] == "value" else (call.text, "x")
            assert (header[0], header[1].strip()) == (name.lower(), value.strip())
    for request in files.files.requests:
        more: list[Any] = [item for item in request.headers if item[0] not in USUAL]
        assert len(more) < 2
        for name, value in more:
            assert (name in names and value == "x") or (name == "x-a" and value.strip() in values)
        counts = Counter(name for name, _ in request.headers)
        assert set(counts.values()) == {1}


def test_what_would_be_another_line_is_refused(files: Recorded) -> None:
    for call in files.calls:
        if call.what == "header_name":
            assert call.sent == (call.code in TOKEN), call.tag
        elif call.what == "header_value":
            bad = call.code not in range(32, 127) and call.code != 9
            assert call.sent != bad, call.tag
        elif call.what in ("server", "file", "query"):
            bad = call.code in CONTROL or call.code in b" \\#"
            if bad:
                assert not call.sent, call.tag
        elif call.what not in ("login",):
            assert call.sent, call.tag
