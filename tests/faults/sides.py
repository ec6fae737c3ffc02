"""The two sides as processes that run the same script, line by line."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from device import command, compiled, main_of

SIDES = ("device", "desktop")


class Side:
    """A process that runs a script of tests/faults: `line` reads what it prints, `say` tells it.

    side: "device" is the firmware on the unix port, "desktop" natsbridge.sync on CPython.
    folder: for what it needs, and its log of errors.
    """

    def __init__(
        self, side: str, script: str, folder: Path, *arguments: str, heap: str = "96K"
    ) -> None:
        path = Path(__file__).with_name(script)
        place: dict[str, Any] = {}
        if side == "device":
            folder = folder / path.stem
            folder.mkdir(exist_ok=True)
            line, place = command(main_of(path, folder), *arguments, heap=heap, path=compiled())
        else:
            line = [sys.executable, "-u", str(path), *arguments]
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **place,
        )
        self._text = b""

    def say(self, line: str = "") -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def said(self, wait_s: float = 0) -> str | None:
        """The next line that it prints, None if it does not within so many seconds.

        Fails when it has ended.
        """
        assert self.process.stdout is not None
        deadline = time.monotonic() + wait_s
        while b"\n" not in self._text:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                return None
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"it says no more after: {self._text.decode()}"
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def line(self, wait_s: float = 20) -> str:
        """The next line that it prints."""
        line = self.said(wait_s)
        assert line is not None, f"it says nothing for {wait_s} s"
        return line

    def end(self, wait_s: float = 20) -> list[str]:
        """End its input: the lines until it ends, which must be without an error."""
        out, _ = self.process.communicate(timeout=wait_s)
        lines = (self._text + out).decode().splitlines()
        assert self.process.returncode == 0, "\n".join(lines)
        return lines

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was left to write, nobody reads
                    pipe.close()
