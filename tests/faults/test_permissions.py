"""The permissions that README.md proposes: what a device needs works, and nothing else does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from board import Board
from conftest import NatsServer
from natsbridge import sync
from natsbridge.errors import NATSBridgeError

ROOT = Path(__file__).parents[2]
FRAGMENT = (ROOT / "host" / "examples" / "deploy" / "permissions.conf").read_text()
COMMAND = {
    **{"dataname": "go", "payload_type": "text", "transport": "direct"},
    **{"encoding": "json", "data": "go"},
}
DEVICE = """
nc = natsbridge.connect(sys.argv[1], user="pico", password="p1", name="pico")
commands = nc.subscribe("command.pico")
nc.flush()
print("ready")
msg = commands.next(10)
env = natsbridge.smartreceive(msg)
nc.publish(msg.reply, b"done")
nc.flush()
natsbridge.smartsend("lab.pico.data", [("n", "5", "text")], nats_connection=nc)
natsbridge.smartsend("natsbridge.hello.pico", [("n", "5", "text")], nats_connection=nc)
print(env["payloads"][0][1])
for subject in ("lab.other.data", "command.other", "natsbridge.hello.other", "_INBOX.x", msg.reply):
    nc.publish(subject, b"x")
    print(code(nc.flush))
for subject in ("lab.>", "command.other", "command.>", "_INBOX.>", ">"):
    sub = nc.subscribe(subject)
    print(code(sub.next, 0.5))
    sub.unsubscribe()
natsbridge.smartsend("lab.pico.data", [("n", "6", "text")], nats_connection=nc)
nc.flush()
"""

SLEEPER = """
nc = natsbridge.connect(sys.argv[1], user="kiln", password="k1", name="kiln")
box = nc.inbox("KILN", "kiln", "command.kiln")
print("ready")
for msg in box.fetch(2, 1):
    print(natsbridge.smartreceive(msg)["payloads"][0][1])
    msg.ack()
data = [("n", "5", "text")]
natsbridge.smartsend("lab.kiln.data", data, nats_connection=nc, durable=True)
nc.flush()
print("nothing refused")
api = "$JS.API.CONSUMER."
for subject in ("lab.other.data", "command.kiln", "$JS.ACK.KILN.other.1.1.1.1.0",
        api + "DURABLE.CREATE.KILN.other", api + "MSG.NEXT.KILN.other", api + "DELETE.KILN.kiln",
        "$JS.API.STREAM.DELETE.KILN"):
    nc.publish(subject, b"x")
    print(code(nc.flush))
for subject in ("lab.>", "command.kiln", ">"):
    sub = nc.subscribe(subject)
    print(code(sub.next, 0.5))
    sub.unsubscribe()
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A server that takes the fragment as it stands."""
    monkeypatch.setenv("PICO_PASSWORD", "p1")
    monkeypatch.setenv("KILN_PASSWORD", "k1")
    monkeypatch.setenv("DESK_PASSWORD", "d1")
    (tmp_path / "permissions.conf").write_text(FRAGMENT)
    (tmp_path / "nats.conf").write_text("include permissions.conf\n")
    store = ("-js", "-sd", str(tmp_path / "streams"))
    with NatsServer(tmp_path, *store) as it:  # one that lets everybody make streams
        asyncio.run(make_stream(it.url))
    with NatsServer(tmp_path, *store, "-c", str(tmp_path / "nats.conf")) as it:
        yield it


async def make_stream(url: str) -> None:
    nc = await nats.connect(url)
    await nc.jetstream().add_stream(name="KILN", subjects=["lab.kiln.>", "command.kiln"])
    await nc.close()


def test_a_device_may_do_its_work_and_nothing_else(server: NatsServer) -> None:
    with (
        Board(DEVICE, server.url) as board,
        sync.connect(server.url, user="desk", password="d1", name="desk") as nc,
        nc.subscribe("lab.>") as data,
        nc.subscribe("natsbridge.hello.>") as hello,
    ):
        assert board.line() == "ready"
        msg = nc.request("command.pico", json.dumps({"payloads": [COMMAND]}))
        assert msg is not None
        assert msg.data == b"done"
        for sub in (data, hello):
            got = sub.next(5)
            assert got is not None
            assert sync.smartreceive(got)["payloads"] == [("n", "5", "text")]
        lines = board.rest()
        last = data.next(5)
        assert last is not None
        assert sync.smartreceive(last)["payloads"] == [("n", "6", "text")]
        assert lines[0] == "go"
        assert len(lines) == 11
        for line in lines[1:]:
            assert line.startswith("NATS_CONNECTION_FAILED"), line
            assert "Permissions Violation" in line
        with pytest.raises(NATSBridgeError, match="permissions violation"):
            nc.subscribe("command.pico")


def test_a_device_with_an_inbox_may_do_its_work_and_nothing_else(server: NatsServer) -> None:
    with (
        sync.connect(server.url, user="desk", password="d1", name="desk") as nc,
        nc.subscribe("lab.>") as data,
    ):
        sync.smartsend("command.kiln", [("t", "heat", "text")], nats_connection=nc)
        with Board(SLEEPER, server.url) as board:
            assert board.line() == "ready"
            lines = board.rest()
        got = data.next(5)
        assert got is not None
        assert sync.smartreceive(got)["payloads"] == [("n", "5", "text")]
        assert lines[:2] == ["heat", "nothing refused"]
        assert len(lines) == 12
        for line in lines[2:]:
            assert line.startswith("NATS_CONNECTION_FAILED"), line
            assert "Permissions Violation" in line


def test_readme_shows_this_fragment() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if "## Threat model" in readme:
        assert FRAGMENT.partition("\n")[2] in readme
