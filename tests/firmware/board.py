"""A device that a test talks with, line by line, while servers come and go."""

from __future__ import annotations

import tempfile
from pathlib import Path

from device import Dialogue, command, compiled

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


class Board(Dialogue):
    """Runs a script, and what HEAD defines before it."""

    def __init__(self, script: str, *arguments: str, heap: str = "256K") -> None:
        self.file = tempfile.NamedTemporaryFile("w", suffix=".py")  # noqa: SIM115
        self.file.write(HEAD + script)
        self.file.flush()
        line, place = command(Path(self.file.name), *arguments, heap=heap, path=compiled())
        super().__init__(line, **place)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
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
