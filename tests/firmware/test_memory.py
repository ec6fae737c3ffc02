"""Any size passes through a heap of 64 KB, and the size makes no difference to it."""

from __future__ import annotations

import random
from pathlib import Path

from device import printed
from harness import run_micropython

MPY = Path(__file__).parent.parent.parent / "build" / "firmware"
#: With the first link come names that stay.
SIZES = {"a": 99_999, "b": 499_999, "first": 500_000}
SIZES |= {"c": 1_000_000, "d": 20_000_000, "e": 1_000_000}


def test_files_of_any_size_pass_through_64_kb(nats_url: str, file_url: str, tmp_path: Path) -> None:
    """The package is the .mpy one: `make firmware` makes it."""
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(random.Random(name).randbytes(size))
    script = Path(__file__).with_name("memory_device.py")
    out = printed(script, nats_url, file_url, str(tmp_path), *SIZES, heap="64K", path=MPY)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert list(rows) == list(SIZES)
    for name, row in rows.items():
        assert Path(row[2]).read_bytes() == (tmp_path / name).read_bytes()
    for step in (0, 1):
        one, twenty, again = (int(rows[name][step]) for name in "cde")
        # What make_room returned may still lie on a stack.
        assert abs(twenty - one) <= 2048, rows
        assert abs(twenty - again) <= 2048, rows


def test_a_full_heap_gets_room_again() -> None:
    """Where no piece of it is larger than a few bytes: what makes room needs next to none."""
    script = """
import gc, sys
import natsbridge
from natsbridge import errors

def fill():
    for part in ("send", "receive", "upload", "download", "recover", "plik", "calls", "dial"):
        __import__("natsbridge." + part)
    full = None
    try:
        while True:
            full = [full]
    except MemoryError:
        return full

def thin(full):
    for _ in range(40):  # every other one goes
        full[0] = full[0][0]
        full = full[0]

full = fill()
thin(full)
gc.collect()
errors.keep_only()
print(len([name for name in sys.modules if name.startswith("natsbridge.")]))
"""
    assert int(run_micropython(script, heap="128K")) < 7


def test_what_is_dropped_is_gone() -> None:
    """All of it: a part that was loaded, and one whose import the heap had no room for."""
    script = """
import gc, sys
import natsbridge
from natsbridge import errors
import natsbridge.log, natsbridge.payload, natsbridge.stream, natsbridge.subscription

def held():
    errors.keep_only()
    return gc.mem_alloc()

def load():
    for part in ("send", "receive", "upload", "download", "recover", "plik", "calls", "dial"):
        __import__("natsbridge." + part)

def fail():
    full = []
    gc.collect()
    while gc.mem_free() > 4000:
        full.append(bytearray(200))
    try:
        __import__("natsbridge.plik")
    except MemoryError:
        return True

load()  # their names stay
failed = fail()
before = held()
load()
print(held() - before)
failed = fail()
print(failed, held() - before)
"""
    out = run_micropython(script, heap="128K").split()
    assert out[1] == "True"
    assert max(int(out[0]), int(out[2])) <= 256, out


def test_no_module_lies_first_in_the_heap(nats_url: str) -> None:
    """What does stays there, dropped or not. Connecting loads what is dropped right afterwards."""
    script = """
import gc, sys
import micropython
import natsbridge

natsbridge.connect(sys.argv[1]).close()
gc.collect()
micropython.mem_info(1)
"""
    lines = run_micropython(script, nats_url, heap="64K", path=MPY).splitlines()
    kinds = [line.split()[1] for line in lines if line.startswith("00000000: ")]
    assert kinds[0][0] == "B", "no function, which stays"


def test_a_part_for_which_the_heap_is_too_full_is_there_when_it_is_not() -> None:
    script = """
import gc
import natsbridge

def used():
    try:
        return natsbridge.smartsend("", [])
    except natsbridge.NATSBridgeError as e:
        return e.code

def fill(free):
    full = []
    gc.collect()
    while gc.mem_free() > free:
        full.append(bytearray(200))
    return full

full = fill(1500)  # not even for the errors
try:
    natsbridge.connect
except MemoryError:
    print("MemoryError")
full = None
natsbridge.NATSBridgeError
full = fill(4000)
print(used())
full = None
print(used())
"""
    out = run_micropython(script, heap="64K").split()
    assert out == ["MemoryError", "PAYLOAD_TOO_LARGE", "INVALID_ARGUMENT"]
