"""Receivers that are killed at any moment: a file under its final name is what was sent, and what
was temporary is gone after the next start."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Broker, Runner, until
from device import command, compiled
from fault_proxy import FaultProxy, Link, Way
from figures import Figures
from natsbridge import sync
from scale import runs

SCRIPT = Path(__file__).with_name("killed_device.py")
#: Points at which the device is killed: half of them are moments, half are operations.
POINTS = runs(10, 200)
#: Messages of a run, and sizes of payloads: those from 20,000 bytes on go by link.
MESSAGES = 3
SIZES = (0, 1, 1024, 5000, 19_999, 20_000, 60_000, 200_000)
PATIENCE_S = 30


class Rig:
    """A device that comes back again and again, and the desktop it talks with."""

    def __init__(self, broker: str, files: str, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self._place = broker, files
        self._rng = rng
        self._nc = sync.connect(broker)
        self._back = self._nc.subscribe("killed.back")
        self._nc.flush()
        #: What was sent, by name.
        self.sent: dict[str, bytes] = {}
        #: How many of them came back whole.
        self.back = 0
        #: Files that were found under their final names, and others, of devices that were killed.
        self.files: set[Path] = set()
        self.temporary = 0
        #: Seconds that the last run took.
        self.seconds = 0.0

    def message(self) -> None:
        """Send one or two payloads."""
        payloads = []
        for _ in range(self._rng.randint(1, 2)):
            name = f"{len(self.sent)}.bin"
            size = self._rng.choice((*SIZES, self._rng.randint(0, 90_000)))
            self.sent[name] = self._rng.randbytes(size)
            payloads.append((name, self.sent[name], "binary"))
        sync.smartsend(
            "killed.there",
            payloads,
            nats_connection=self._nc,
            fileserver_url=self._place[1],
            size_threshold=20_000,
        )

    def run(self, at: int = -1, after: float = -1, messages: int = MESSAGES) -> int:
        """Start the device and kill it: how many operations it did, -1 if it was killed."""
        line, place = command(
            SCRIPT,
            *(*self._place, str(self.folder), str(messages), str(at)),
            heap="1M",
            path=compiled(),
        )
        device = subprocess.Popen(line, **place, stdout=subprocess.PIPE, text=True)
        assert device.stdout is not None
        try:
            ready = device.stdout.readline() == "ready\n"
            begin = time.monotonic()
            if ready:
                for _ in range(messages):
                    self.message()
                if after >= 0:
                    time.sleep(after)
                    device.kill()
            out, _ = device.communicate(timeout=PATIENCE_S)
            if not device.returncode and messages == MESSAGES:
                self.seconds = time.monotonic() - begin
        finally:
            device.kill()
            device.wait(PATIENCE_S)
        assert device.returncode == -9 or (device.returncode == 0 and out), out
        return -1 if device.returncode else int(out)

    def check(self) -> list[Path]:
        """Check all that is in the folder and came back: the temporary files."""
        while (msg := self._back.next(0)) is not None:
            env = sync.smartreceive(msg, fileserver_url=self._place[1])
            for name, data, _ in env["payloads"]:
                assert data == self.sent[name]
                self.back += 1
        temporary = []
        for path in self.folder.iterdir():
            if path.name.startswith(".nb-"):
                temporary.append(path)
            elif path not in self.files:
                assert path.read_bytes() == self.sent[path.name]
                self.files.add(path)
        return temporary

    def killed(self, **when: float) -> bool:
        """Kill it, and start it again: whether it was still running."""
        left = self.run(**when) < 0
        self.temporary += len(self.check())
        before = len(self.files), self.back
        assert self.run(messages=1) > 0
        assert self.check() == []
        assert len(self.files) > before[0]
        assert self.back > before[1]
        return left

    def close(self) -> None:
        """End."""
        self._nc.close()


@pytest.fixture
def rig(nats_url: str, file_url: str, tmp_path: Path, rng: random.Random) -> Iterator[Rig]:
    it = Rig(nats_url, file_url, tmp_path, rng)
    yield it
    it.close()


def test_whenever_the_device_is_killed_its_files_are_whole_and_the_next_start_cleans_up(
    rig: Rig, rng: random.Random, figures: Figures
) -> None:
    operations = rig.run()
    assert rig.check() == []
    kills = 0
    try:
        for point in range(3 * POINTS):  # it may be faster than we think
            if point % 2:
                kills += rig.killed(at=rng.randint(1, operations))
            else:
                kills += rig.killed(after=rng.uniform(0, rig.seconds))
            if kills == POINTS:
                break
    finally:
        figures.note(
            7,
            "device",
            f"device: killed {kills} times: {len(rig.files)} files and {rig.back} sent ones"
            f" identical, {rig.temporary} temporary ones, all gone after the next start",
            met=kills == POINTS,
        )
    assert kills == POINTS
    assert rig.temporary > 0


def test_whenever_the_desktop_is_killed_its_files_are_whole_and_the_next_start_cleans_up(
    natsbridge: Runner, broker: Broker, file_url: str, rng: random.Random, figures: Figures
) -> None:
    points = runs(1, 60, 15)
    folder = natsbridge.cwd / "in"
    sent: dict[str, bytes] = {}
    files: set[Path] = set()
    temporary = 0

    def send(nc: sync.Connection) -> None:
        name = f"{len(sent)}.bin"
        sent[name] = rng.randbytes(rng.choice((0, 1000, 100_000, 700_000, 3_000_000)))
        payloads = [(name, sent[name], "binary")]
        sync.smartsend("killed", payloads, nats_connection=nc, fileserver_url=slow.url)

    def check() -> int:
        """Check all files that are new: how many are temporary."""
        for path in set(folder.glob("[!.]*")) - files:
            if path.name.endswith(".envelope.json"):
                assert json.loads(path.read_text())["payloads"][0]["file"] in sent
            else:
                assert path.read_bytes() == sent[path.name]
            files.add(path)
        return len(list(folder.glob(".*")))

    slowly = Link(down=Way(rate=4_000_000))  # so that it is killed in the middle
    with sync.connect(broker.url) as nc, FaultProxy(file_url, slowly) as slow:
        natsbridge.environ["FILESERVER_URL"] = slow.url
        for _ in range(points):
            process = natsbridge.start("receive", "killed", "--out", folder)
            broker.heard(process, subject="killed")
            assert check() == 0
            for _ in range(6):
                send(nc)
            time.sleep(rng.uniform(0, 0.7))
            process.stop(signal.SIGKILL)
            until(lambda: not broker.listeners("killed"), "the broker's notice of it")
            temporary += check()
        process = natsbridge.start("receive", "killed", "--out", folder, "--count", 1)
        broker.heard(process, subject="killed")
        send(nc)
        process.ended()
    assert check() == 0
    figures.note(
        7,
        "desktop",
        f"desktop: killed {points} times: {len(files)} files identical,"
        f" {temporary} temporary ones, all gone after the next start",
        met=temporary > 0,
    )
