"""A device that does many jobs in one process, and the count of what came of them."""

from __future__ import annotations

import collections
import json
import select
import tempfile
from pathlib import Path
from typing import Any

from device import FIRMWARE, main_of, micropython
from figures import Figures
from natsbridge import sync

SCRIPT = Path(__file__).with_name("jobs_device.py")
MPY = FIRMWARE.parent / "build" / "firmware"
#: Seconds for one job, on a busy machine too.
PATIENCE_S = 30


class Device:
    """A device that does one job after the other; `do` gives what came of each.

    It has 96 KB: 64 KB, its script, and some more, since it is luck what completes at the edge.
    """

    def __init__(self, broker: str, subject: str) -> None:
        self._subject = subject
        self._scratch = tempfile.TemporaryDirectory()
        self._main = main_of(SCRIPT, Path(self._scratch.name))
        self._broker = broker
        self._nc = sync.connect(broker)
        self._start()

    def _start(self) -> None:
        place = self._main, self._broker, self._subject
        self._process = micropython(*place, heap="96K", path=MPY, stdin=-1, bufsize=1)
        assert self._read() == "ready"

    def _read(self) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if ready else ""
        try:
            return json.loads(line)
        except ValueError:
            self._process.kill()
            rest = self._process.stdout.read()
            self._process.wait(PATIENCE_S)
            raise AssertionError(f"the device: {line}{rest}") from None

    def do(self, message: bytes = b"", **job: Any) -> Any:
        """Do a job, for which that message comes; on another device, where this one has died."""
        if self._process.poll() is not None:
            self._end()
            self._start()
        if message:
            self._nc.publish(self._subject, message)
            self._nc.flush()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        return self._read()

    def _end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it."""
        self._end()
        self._nc.close()
        self._scratch.cleanup()


class Tally:
    """Counts what came of many runs, for one cell of the table of figures."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._names: set[str] = set()
        self._runs = 0
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._slowest = 0.0

    def add(self, name: str, outcome: str, seconds: float) -> None:
        """Count one run of the case `name`; outcome: "right", "error" or "bad"."""
        self._names.add(name)
        self._runs += 1
        self._outcomes[outcome] += 1
        self._slowest = max(self._slowest, seconds)

    def note(self, figures: Figures, number: int, key: str) -> None:
        """Note the figure."""
        if not self._runs:
            return
        bad = self._outcomes["bad"]
        figures.note(
            number,
            key,
            f"{self._what}: {len(self._names)} misbehaviours, {self._runs:,} runs:"
            f" {self._outcomes['right']:,} the right bytes, {self._outcomes['error']:,} errors,"
            f" {bad} bad; {self._slowest:.1f} s at most",
            met=not bad,
        )
