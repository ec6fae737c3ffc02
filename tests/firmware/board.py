"""A device that a test talks with, line by line, while servers come and go."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path

from device import command, compiled

HEAD = """
import os, select, sys, time
import natsbridge

def code(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except natsbridge.NATSBridgeError as e:
        return e.code + ": " + e.message

def data(msg):
    return msg if isinstance(msg, str) else msg and str(bytes(msg.data), "utf-8")

def said():
    stdin = select.poll()
    stdin.register(sys.stdin, select.POLLIN)
    return bool(stdin.poll(0))

def took(function, *arguments, **options):
    t = time.ticks_ms()
    got = code(function, *arguments, **options)
    return time.ticks_diff(time.ticks_ms(), t), got

"""

#: To be put before a script that calls gaps(), with on_idle=idle. On a busy machine a process is
#: woken late, and it is no fault of the firmware if it does nothing meanwhile: poll() and
#: sleep_ms() measure by how much, and that is taken off.
GAPS = """
late = 0  # ms, in all
longest = last = 0

def asleep(ms, sleep):
    global late
    t = time.ticks_ms()
    got = sleep(ms)
    late += max(0, time.ticks_diff(time.ticks_ms(), t) - ms)
    return got

class Poll:
    def __init__(self):
        self.poll = select.poll()
        self.register = self.poll.register
        self.modify = self.poll.modify

    def ipoll(self, ms):
        return asleep(ms, lambda ms: list(self.poll.ipoll(ms)))

class Late:
    "A module, but for one function."

    def __init__(self, module, name, function):
        self.module = module
        setattr(self, name, function)

    def __getattr__(self, name):
        return getattr(self.module, name)

sys.modules["select"] = Late(select, "poll", Poll)
sys.modules["time"] = Late(time, "sleep_ms", lambda ms: asleep(ms, time.sleep_ms))

def idle():
    global longest, last
    now = time.ticks_add(time.ticks_ms(), -late)
    longest = max(longest, time.ticks_diff(now, last))
    last = now

def gaps(function, *arguments, **options):
    "How long it took, and the longest time without a call of idle."
    global longest
    idle()
    longest = 0
    ms, _ = took(function, *arguments, **options)
    idle()
    return ms, longest

"""


class Board:
    """Runs a script; `line` reads what it prints, `say` gives it a line to read."""

    def __init__(self, script: str, *arguments: str, heap: str = "256K") -> None:
        self.file = tempfile.NamedTemporaryFile("w", suffix=".py")  # noqa: SIM115
        self.file.write(HEAD + script)
        self.file.flush()
        line, place = command(Path(self.file.name), *arguments, heap=heap, path=compiled())
        self.process = subprocess.Popen(
            line,
            **place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.text = b""

    def line(self, timeout: float = 15) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self.text:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, left))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert more, f"the device says no more after: {self.text.decode()}"
            self.text += more
        line, _, self.text = self.text.partition(b"\n")
        return line.decode()

    def say(self, line: str = "") -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def rest(self, timeout: float = 15) -> list[str]:
        """The lines until it ends, which must be without an error."""
        out, _ = self.process.communicate(timeout=timeout)
        lines = (self.text + out).decode().splitlines()
        assert self.process.returncode == 0, "\n".join(lines)
        return lines

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.file.close()


def run(script: str, *arguments: str, heap: str = "256K", timeout: float = 20) -> list[str]:
    """The lines that a script prints."""
    with Board(script, *arguments, heap=heap) as board:
        return board.rest(timeout)


def write(folder: Path, name: str, text: str) -> str:
    """Write a file: its path."""
    path = folder / name
    path.write_text(text)
    return str(path)
