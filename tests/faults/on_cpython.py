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


class Clock:
    """A board's time, which passes at once where it is slept."""

    slept = 0

    def ticks_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000 + self.slept

    def ticks_add(self, ticks: int, ms: int) -> int:
        return ticks + ms

    def ticks_diff(self, one: int, other: int) -> int:
        return one - other

    def sleep_ms(self, ms: int) -> None:
        self.slept += ms


CLOCK = Clock()
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


def number(kind: Any) -> Any:
    """int or float, to which no digit is one beyond ASCII: to str.isdigit() neither, there."""

    def convert(text: str) -> Any:
        if not text.isascii():
            raise errors.Malformed("bad value")
        return kind(text)

    return convert


errors = load("errors")
sys.modules["firmware_on_cpython"].__version__ = ""  # type: ignore[attr-defined]
load("http").read = read  # before others take it
client, news, plik, receive, stream, subscription = map(
    load, ["client", "news", "plik", "receive", "stream", "subscription"]
)
download, foreign, jsonpull = map(load, ["download", "foreign", "jsonpull"])
upload = load("upload")
for _name in ["envelope", "greet", "reader", "recover", "sink", "source", "urls"]:
    load(_name)
load("strings").dumps = JSON.dumps
jsonpull.int, jsonpull.float = number(int), number(float)
_init = jsonpull.JsonPull.__init__
jsonpull.JsonPull.__init__ = lambda self, source, buf: _init(self, take(source), buf)
foreign.BytesIO = Memory
foreign.json = JSON
# There a str is bytes-like.
download.memoryview = lambda data: memoryview(data or b"")
smartreceive = receive.smartreceive
fetch_with_backoff = plik.fetch_with_backoff
plik_upload = plik.plik_upload
