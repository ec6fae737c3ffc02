"""The examples run as they stand, with the test's servers in place of the ones they name, and files
in place of the hardware."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device import FIRMWARE, MICROPYTHON, compiled, micropython
from natsbridge import sync

BROKER = "nats://192.168.1.10:4222"
EXAMPLES = FIRMWARE / "examples"
BOARD = FIRMWARE.parent / "boards" / "shared" / "board.py"
HARDWARE = Path(__file__).parent / "hardware"


def test_asyncio_loop(nats_url: str, tmp_path: Path) -> None:
    source = (FIRMWARE / "examples" / "asyncio_loop.py").read_text()
    assert BROKER in source
    script = tmp_path / "main.py"
    script.write_text(source.replace(BROKER, nats_url))
    with (
        sync.connect(nats_url) as nc,
        nc.subscribe("lab.hello") as hello,
        micropython(script, heap="192K") as device,
    ):
        assert hello.next(10) is not None
        for text in ("blue", "stop"):
            sync.smartsend("lab.command", [("lamp", text, "text")], nats_connection=nc)
        out = device.rest(10)
    assert out == "lamp text blue\nlamp text stop\n"


class Desk:
    """A desktop at the tests' servers, and boards that run an example there."""

    def __init__(self, nats_url: str, file_url: str, folder: Path) -> None:
        self.nats_url = nats_url
        self.file_url = file_url
        self.folder = folder
        self.nc = sync.connect(nats_url, name="desk")

    @contextlib.contextmanager
    def board(
        self, example: str, name: str = "b1", heap: str = "128K", **changes: int | float
    ) -> Iterator[Path]:
        """Run an example on a board of that name, until it has been heard of: its folder, in which
        `out` is what it prints. changes: constants that would take too long."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        source = (EXAMPLES / f"{example}.py").read_text()
        for constant, value in changes.items():
            source, n = re.subn(rf"^{constant} = \d+", f"{constant} = {value}", source, flags=re.M)
            assert n == 1
        (folder / "program.py").write_text(source)
        shutil.copytree(compiled(), folder / "lib")
        shutil.copy(BOARD, folder / "lib")
        config = {"name": name, "broker": self.nats_url, "fileserver_url": self.file_url}
        config.update(ntp="", size_threshold=100_000)
        (folder / "config.json").write_text(json.dumps(config))
        with (
            self.nc.subscribe(f"natsbridge.hello.{name}") as hello,
            (folder / "out").open("w") as o,
        ):
            process = subprocess.Popen(
                [MICROPYTHON, "-X", f"heapsize={heap}", "program.py"],
                cwd=folder,
                env={**os.environ, "MICROPYPATH": f"{HARDWARE}:lib:.frozen"},
                stdout=o,
                stderr=subprocess.STDOUT,
            )
            try:
                assert hello.next(20) is not None, (folder / "out").read_text()
                yield folder
                assert process.poll() is None, (folder / "out").read_text()
            finally:
                process.kill()
                process.wait()

    def until(self, subject: str, subscribed: Any, folder: Path) -> Any:
        """Publish to `subject`, until the board listens there: what then comes to `subscribed`."""
        for _ in range(100):
            self.nc.publish(subject, b"")
            msg = subscribed.next(0.2)
            if msg is not None:
                return msg
        pytest.fail(f"nothing comes of {subject}: {(folder / 'out').read_text()}")

    def receive(self, msg: Any) -> dict[str, Any]:
        assert msg is not None
        return sync.smartreceive(msg, fileserver_url=self.file_url)

    def send(self, subject: str, data: Any, **options: Any) -> Any:
        return sync.smartsend(
            subject, data, nats_connection=self.nc, fileserver_url=self.file_url, **options
        )


@pytest.fixture
def desk(nats_url: str, file_url: str, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(nats_url, file_url, tmp_path)
    with desk.nc:
        yield desk


def wait_for(path: Path, text: str) -> str:
    """What is in the file, once that text is."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = path.read_text()
        if text in found:
            return found
        time.sleep(0.02)
    pytest.fail(f"no {text!r} in {path.read_text()!r}")


def test_the_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 46, path.name


def test_temperature(desk: Desk) -> None:
    (desk.folder / "b1").mkdir()
    (desk.folder / "b1" / "adc4").write_text("14000")
    with desk.nc.subscribe("lab.temperature") as sub, desk.board("temperature", PERIOD=0.05):
        for _ in range(2):
            env = desk.receive(sub.next(20))
            [(name, rows, kind)] = env["payloads"]
            assert (name, kind, len(rows)) == ("readings", "jsontable", 6)
            for row in rows:
                assert row["celsius"] == pytest.approx(27.6)
                assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ", row["time"])
            assert rows[0]["time"] < rows[5]["time"]


@pytest.mark.parametrize(("size", "transport"), [(40_000, "direct"), (150_000, "link")])
def test_camera(desk: Desk, size: int, transport: str) -> None:
    """The frame goes out of its buffer: for a second large one the heap has no room."""
    frame = random.Random(size).randbytes(size)
    (desk.folder / "b1").mkdir()
    (desk.folder / "b1" / "frame").write_bytes(frame)
    heap = f"{size // 1024 + 110}K"
    with desk.nc.subscribe("lab.camera") as sub, desk.board("camera", heap=heap) as folder:
        for _ in range(2):
            msg = desk.until("b1.take", sub, folder)
            assert json.loads(msg.data)["payloads"][0]["transport"] == transport
            assert desk.receive(msg)["payloads"] == [("picture.jpg", frame, "image")]


def test_audio(desk: Desk) -> None:
    """2 s of sound are 64 KB: it goes by link all the same, as it has no size in advance."""
    sound = random.Random("sound").randbytes(64_000)
    (desk.folder / "b1").mkdir()
    (desk.folder / "b1" / "sound").write_bytes(sound + b"what is said later")
    with desk.nc.subscribe("lab.audio") as sub, desk.board("audio", SECONDS=2) as folder:
        env = desk.receive(desk.until("b1.listen", sub, folder))
        assert (folder / "out").read_text().startswith("sound of 16000 Hz\n")
    [(name, data, kind)] = env["payloads"]
    assert (name, kind) == ("clip.wav", "audio")
    with wave.open(io.BytesIO(data)) as f:
        assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (16000, 1, 2)
        assert f.readframes(10**6) == sound


def test_relay(desk: Desk) -> None:
    with desk.nc.subscribe("answers") as sub, desk.board("relay") as folder:
        assert wait_for(folder / "out", "pin 5 0")
        msg = None
        for on in (True, False):
            data = [("relay", {"on": on}, "dictionary"), ("note", "hi", "text")]
            for _ in range(100):  # at first it may not listen yet
                sent, _ = desk.send("b1.relay", data, reply_to="answers", sender_id="me")
                msg = sub.next(0.2)
                if msg is not None and msg.data:
                    break
            env = desk.receive(msg)
            assert env["payloads"] == []
            assert (env["msg_purpose"], env["sender_name"]) == ("ACK", "b1")
            assert env["reply_to_msg_id"] == sent["msg_id"]
            assert (env["receiver_name"], env["receiver_id"]) == ("desk", "me")
            desk.nc.publish("b1.relay", b"what is this?")
        out = wait_for(folder / "out", "INVALID_ENVELOPE")
    pins = [line for line in out.splitlines() if line.startswith("pin")]
    assert pins[0] == "pin 5 0"
    assert "pin 5 1" in pins
    assert pins[-1] == "pin 5 0"


def test_download(desk: Desk) -> None:
    """5 MB through a heap of 128 KB, and what is no file besides."""
    data = random.Random("file").randbytes(5_000_000)
    with desk.board("download") as folder:
        for _ in range(100):
            desk.send("b1.files", [("note", "hi", "text")])
            if "note hi" in (folder / "out").read_text():
                break
            time.sleep(0.1)
        desk.send("b1.files", [("update.bin", data, "binary"), ("again", b"x" * 999, "binary")])
        wait_for(folder / "out", "downloads/update.bin 5000000 bytes")
        wait_for(folder / "out", "downloads/again 999 bytes")
        got = (folder / "downloads" / "update.bin").read_bytes()
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        assert (folder / "downloads" / "again").read_bytes() == b"x" * 999


def test_two_boards(desk: Desk) -> None:
    with (
        desk.board("two_boards", "left", PATIENCE=0.5) as left,
        desk.board("two_boards", "right", PATIENCE=5) as right,
    ):
        assert re.match(r"left ping \d+\n", wait_for(right / "out", "left ping"))
        wait_for(left / "out", "right pong")
        with desk.nc.subscribe("lab.left") as sub:
            env = desk.receive(sub.next(20))
        assert (env["msg_purpose"], env["receiver_name"]) == ("pong", "left")
        assert env["reply_to_msg_id"]
