"""The firmware under CPython, apart from that of other tests: with a board's clock and streams, a
heap that is never full, and no module that is loaded twice."""

from __future__ import annotations

import functools
import io
import json
import sys
import time
import types
from typing import Any

from harness import load_firmware

#: Bytes of heap that are always free.
FREE = 1 << 20

CLOCK = types.SimpleNamespace(
    ticks_ms=lambda: time.monotonic_ns() // 1_000_000,
    ticks_add=lambda a, b: a + b,
    ticks_diff=lambda a, b: a - b,
    sleep_ms=lambda ms: None,
)
HEAP = types.SimpleNamespace(
    collect=lambda: None, mem_free=lambda: FREE, mem_alloc=lambda: 0, threshold=lambda n=0: -1
)
JSON = types.SimpleNamespace(dumps=functools.partial(json.dumps, ensure_ascii=False))


class Memory(io.BytesIO):
    """A stream in memory as MicroPython has it: readinto takes a length."""

    def readinto(self, buf: Any, n: int | None = None) -> int:  # type: ignore[override]
        piece = self.read(len(buf) if n is None else n)
        buf[: len(piece)] = piece
        return len(piece)


def read(source: Any, n: int = -1) -> bytes:
    """What `read` of MicroPython's streams is: through readinto, which takes a length."""
    found = b""
    buf = bytearray(1024)
    while n < 0 or len(found) < n:
        got = source.readinto(buf, 1024 if n < 0 else min(1024, n - len(found)))
        if not got:
            break
        found += buf[:got]
    return found


def nothing(*names: str) -> None:
    """Drop no module."""


def take(source: Any) -> Any:
    """A stream that JSON can be pulled from."""
    return Memory(source.read()) if type(source) is io.BytesIO else source


def load(name: str) -> types.ModuleType:
    """A part of the firmware in a package of its own."""
    module = load_firmware(name, "firmware_on_cpython")
    for key, value in (("time", CLOCK), ("gc", HEAP), ("drop", nothing), ("keep_only", nothing)):
        if hasattr(module, key):
            setattr(module, key, value)
    return module


errors = load("errors")
sys.modules["firmware_on_cpython"].__version__ = ""  # type: ignore[attr-defined]
load("http").read = read  # before others take it
client, news, plik, receive, stream, subscription = map(
    load, ["client", "news", "plik", "receive", "stream", "subscription"]
)
download, foreign, jsonpull = map(load, ["download", "foreign", "jsonpull"])
for _name in ["envelope", "greet", "reader", "recover", "sink", "upload"]:
    load(_name)
jsonpull.dumps = JSON.dumps
_init = jsonpull.JsonPull.__init__
jsonpull.JsonPull.__init__ = lambda self, source, buf: _init(self, take(source), buf)
foreign.BytesIO = Memory
foreign.json = JSON
# There a str is bytes-like.
download.memoryview = lambda data: memoryview(data or b"")
