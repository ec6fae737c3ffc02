"""What streams keep: the same script gives the same on the firmware and through natsbridge.sync."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest

from conftest import NatsServer
from device import command, compiled, main_of
from natsbridge import NATSBridgeError, sync

SCRIPT = Path(__file__).with_name("durable_device.py")


#: What the steps give that give no None.
EXPECTED = {
    "no stream at all": ["error", "STREAM_FAILED", True],
    "a stream": ["ok", ""],
    "another subject": ["error", "STREAM_FAILED", True],
    "a subject with a wildcard": ["error", "INVALID_ARGUMENT", True],
    "no such stream": ["error", "STREAM_FAILED", True],
    "a stream's name with a dot": ["error", "INVALID_ARGUMENT", True],
    "a consumer's name with a dot": ["error", "INVALID_ARGUMENT", True],
    "a consumer without a name": ["error", "INVALID_ARGUMENT", True],
    "a stream that is a number": ["error", "INVALID_ARGUMENT", True],
    "a consumer's name with a quote": ["error", "INVALID_ARGUMENT", True],
    "a stream's name with a backslash": ["error", "INVALID_ARGUMENT", True],
    "a time without an end": ["error", "INVALID_ARGUMENT", True],
    "a wrong time": ["error", "INVALID_ARGUMENT", True],
    "a wrong subject": ["error", "INVALID_ARGUMENT", True],
    "nothing waits": ["ok", []],
    "nothing comes": ["ok", []],
    "none of it": ["error", "INVALID_ARGUMENT", True],
    "a wrong timeout": ["error", "INVALID_ARGUMENT", True],
    "they come once": ["ok", ["one", "two"]],
    "and not again": ["ok", []],
    "it comes": ["ok", ["again"]],
    "not at once": ["ok", []],
    "it comes again": ["ok", ["again"]],
    "at once": ["ok", ["again"]],
    "and not any more": ["ok", []],
    "in an age": ["error", "INVALID_ARGUMENT", True],
    "later": ["ok", [[], ["later"]]],
    "longer than it may": ["ok", [0, []]],
    "acknowledged twice": ["ok", []],
    "a file that is gone": ["error", "DOWNLOAD_FAILED", True],
    "a file goes when its message is acknowledged": ["ok", [512000, "DOWNLOAD_FAILED"]],
    "and stays before": ["ok", [512000, 512000, True]],
    "a large one": ["ok", True],
    "a larger one": ["ok", True],
    "of other subjects": ["ok", []],
    "of this one": ["ok", ["b"]],
    "of another subject": ["error", "STREAM_FAILED", True],
    "of all subjects": ["error", "STREAM_FAILED", True],
    "another inbox of that name": ["ok", ["c"]],
    "has taken it": ["ok", []],
    "a subject with a quote": ["ok", ["quoted"]],
    "a consumer of somebody else": ["ok", ""],
    "opened as it is": ["ok", [9000000000, 7, "twin.d", "of the lab"]],
    "opened with another time": ["ok", [5000000000, 7, "twin.d", "of the lab"]],
    "one that needs no acknowledgement": ["ok", ""],
    "is none of ours": ["error", "STREAM_FAILED", True],
    "one that is pushed": ["ok", ""],
    "nor is that": ["error", "STREAM_FAILED", True],
    "its consumer is gone": ["error", "STREAM_FAILED", True],
    "a stream for two": ["ok", ""],
    "three": ["error", "STREAM_FAILED", True],
    "the rest": ["ok", ["b", "c", "quoted", "gone"]],
    "the consumer goes": ["ok", ""],
    "from it": ["error", "STREAM_FAILED", True],
    "the stream goes": ["error", "STREAM_FAILED", True],
    "from that": ["error", "STREAM_FAILED", True],
    "to it": ["error", "STREAM_FAILED", True],
    "closed": ["error", "NATS_CONNECTION_FAILED", True],
}


def test_what_streams_keep(file_url: str, tmp_path: Path) -> None:
    """Both sides at the same time, each with streams of its own: they wait for most of theirs."""
    with contextlib.ExitStack() as stack:
        running = {}
        for side in ("device", "desktop"):
            folder = tmp_path / side
            folder.mkdir()
            server = stack.enter_context(NatsServer(folder, "-js", "-sd", str(folder / "streams")))
            line, place = [sys.executable, str(SCRIPT)], {}
            arguments = server.url, file_url, str(folder)
            if side == "device":
                line, place = command(main_of(SCRIPT, folder), heap="8M", path=compiled())
            process = subprocess.Popen(
                [*line, *arguments], stdout=subprocess.PIPE, text=True, **place
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            running[side] = process
        for side, process in running.items():
            out, _ = process.communicate(timeout=90)
            assert process.returncode == 0, out
            found = dict(json.loads(text) for text in out.splitlines())
            assert found.pop("nothing else has come") == ["ok", None]
            told = {name: result for name, result in found.items() if result != ["ok", None]}
            assert told == EXPECTED, side


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[sync.Connection]:
    """A connection to a broker with a stream KEPT of `kept.>`."""
    server = NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "streams"))
    with server, sync.connect(server.url) as nc:
        order = json.dumps({"name": "KEPT", "subjects": ["kept.>"]}).encode()
        nc.request("$JS.API.STREAM.CREATE.KEPT", order)
        yield nc


def refused(call: Callable[..., object], *arguments: object) -> str:
    """The message of the INVALID_ARGUMENT that a call gives."""
    with pytest.raises(NATSBridgeError) as caught:
        call(*arguments)
    assert caught.value.code == "INVALID_ARGUMENT", caught.value
    return caught.value.message


@pytest.mark.parametrize("name", ["a*", "a>", "a/b", "a\\b", "a b", "a.b", ""])
def test_what_is_no_name_is_a_wrong_argument(kept: sync.Connection, name: str) -> None:
    refused(kept.inbox, "KEPT", name)
    refused(kept.inbox, name, "desk")


def test_a_message_is_answered_once(kept: sync.Connection) -> None:
    box = kept.inbox("KEPT", "desk")
    for says in ("nak", "term"):
        kept.publish("kept.a", b"secret" * 9)
        [msg] = box.fetch(1)
        assert "delay" in refused(msg.nak, "5")
        getattr(msg, says)()
        for again in (msg.nak, msg.term):
            assert re.fullmatch(r"the message on 'kept.a' .{1,50}", refused(again))
        for msg in box.fetch(1, 1) if says == "nak" else ():
            msg.term()


def test_a_consumer_stays_with_its_subject(kept: sync.Connection) -> None:
    """Under one name the second of two would have the first one's messages skipped for ever."""
    first = kept.inbox("KEPT", "desk", "kept.a")
    kept.publish("kept.a", b"first")
    for other in ("kept.b", ""):
        with pytest.raises(NATSBridgeError, match=r"is there for kept.a, not for .*another") as e:
            kept.inbox("KEPT", "desk", other)
        assert e.value.code == "STREAM_FAILED"
        assert (other or "all subjects") in e.value.message
    assert [m.data for m in first.fetch(1)] == [b"first"]
    [msg] = kept.inbox("KEPT", "desk", "kept.a", ack_wait=1).fetch(1, 3)
    msg.ack()
    kept.inbox("KEPT", "all")
    with pytest.raises(NATSBridgeError, match=r"is there for all subjects, not for kept.a"):
        kept.inbox("KEPT", "all", "kept.a")


WARNS = """
import sys, natsbridge
from natsbridge import log
log.enabled = True
with natsbridge.connect(sys.argv[1]) as nc:
    for subject in ("long.a", "long.a", "short.a"):
        natsbridge.smartsend(subject, [("f", b"x", "binary")], nats_connection=nc,
                             fileserver_url=sys.argv[2], size_threshold=1, durable=True)
"""
ON_THE_DESKTOP = """
import logging, sys
from natsbridge import sync as natsbridge
logging.basicConfig(stream=sys.stdout)
"""


SILENT = """
import sys, natsbridge
with natsbridge.connect(sys.argv[1]) as nc:
    nc.subscribe("$JS.API.>")
    try:
        nc.inbox("KEPT", "desk")
    except natsbridge.NATSBridgeError as e:
        print(e.code)
"""


@pytest.mark.parametrize("side", ["device", "desktop"])
def test_who_is_silent_about_its_streams_may_answer_later(
    side: str, nats_url: str, tmp_path: Path
) -> None:
    """As a cluster without a leader: it is not known that there is no such stream."""
    program = tmp_path / "silent.py"
    line, place = [sys.executable, str(program)], {}
    text = SILENT
    if side == "device":
        line, place = command(program, heap="256K", path=compiled())
    else:
        text = text.replace("import sys, natsbridge", ON_THE_DESKTOP)
    program.write_text(text)
    done = subprocess.run(
        [*line, nats_url], capture_output=True, text=True, timeout=30, check=False, **place
    )
    assert done.stdout == "NATS_CONNECTION_FAILED\n", done.stderr


async def long_and_short(url: str) -> None:
    """A stream that keeps messages longer than the file server files, and one that does not."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    await js.add_stream(name="LONG", subjects=["long.>"], max_age=7 * 86400)
    await js.add_stream(name="SHORT", subjects=["short.>"], max_age=3600)
    await nc.close()


@pytest.mark.parametrize("side", ["device", "desktop"])
def test_a_stream_that_outlasts_the_files_is_warned_about(
    side: str, file_url: str, tmp_path: Path
) -> None:
    program = tmp_path / "warns.py"
    text = WARNS
    line, place = [sys.executable, str(program)], {}
    if side == "device":
        line, place = command(program, heap="256K", path=compiled())
    else:
        text = ON_THE_DESKTOP + text.partition("log.enabled = True\n")[2]
    program.write_text(text)
    with NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "streams")) as server:
        asyncio.run(long_and_short(server.url))
        done = subprocess.run(
            [*line, server.url, file_url], capture_output=True, text=True, timeout=30, **place
        )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "finds none" in line]
    assert len(told) == 2
    assert all("LONG" in line and "604800" in line and "86400" in line for line in told)
