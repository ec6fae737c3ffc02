"""Peers that send each other numbered messages and repeat them until they are acknowledged, as
processes of the tests: devices, and desktops that run the same script."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device import command, compiled, main_of

SCRIPT = Path(__file__).with_name("numbered_device.py")
#: Bytes of the messages, in turns: one that a device takes whole, two that it streams, and a link.
SIZES = (20, 1_500, 15_000, 60_000)
#: 64 KB, and what the script takes; in 70 KB it takes a while to connect again.
HEAP = "80K"
#: Seconds for whatever should come soon.
PATIENCE_S = 15


def payload(sender: str, n: int) -> bytes:
    """What message `n` of `sender` carries, and no other."""
    size = SIZES[n % len(SIZES)]
    block = hashlib.sha256(f"{sender} {n}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def wait_for(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait until it holds; `what` says what is missing."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


class Peer:
    """A process that runs the script, and what it prints."""

    def __init__(self, line: list[str], log: Path, stdin: int, **place: Any) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                line, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, **place
            )

    def events(self, kind: str) -> list[list[str]]:
        """The words after the first of its lines that begin with `kind`."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [words[1:] for words in lines if words[:1] == [kind]]

    def wait(self, kind: str, more_than: int = 0) -> None:
        """Wait until it has printed that many lines of a kind, and one more."""

        def printed() -> bool:
            assert self.process.poll() is None, self.tail()
            return len(self.events(kind)) > more_than

        wait_for(printed, lambda: f"no {kind!r} after {more_than} of them: {self.tail()}")

    def tail(self) -> str:
        """The last that it printed."""
        return self._log.read_text()[-2000:]

    def say(self) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """End it, if it has not ended by itself."""
        self.process.kill()
        self.process.communicate()


class Start:
    """Starts peers, all with the same broker to begin with; their logs are in `folder`."""

    def __init__(self, folder: Path, files: str, count: int, patience: float) -> None:
        self._folder = folder
        self._main = main_of(SCRIPT, folder)
        self._files = files
        self._rest = [str(count), str(patience), ",".join(str(size) for size in SIZES)]

    def device(self, broker: str, me: str, other: str, stdin: int = subprocess.PIPE) -> Peer:
        """Start a device."""
        arguments = broker, self._files, me, other, *self._rest
        line, place = command(self._main, *arguments, heap=HEAP, path=compiled())
        return Peer(line, self._folder / f"{me}.log", stdin, **place)

    def desk(self, broker: str, me: str, other: str) -> Peer:
        """Start a desktop."""
        line = [sys.executable, "-u", str(SCRIPT), broker, self._files, me, other, *self._rest]
        return Peer(line, self._folder / f"{me}.log", subprocess.PIPE)
