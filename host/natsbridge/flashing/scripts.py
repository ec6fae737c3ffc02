"""What runs on the board, in the raw REPL, on MicroPython 1.19 and newer.

Paths are relative: a board starts in the root of its flash.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

__all__ = ["UNPAUSE", "activate", "prepare", "remove", "survey"]

#: What is said at once: it runs.
_HERE = "print('here')"

_FILES = """
import gc, hashlib, json, os, sys
from binascii import hexlify
gc.collect()
heap = gc.mem_free()
buf = memoryview(bytearray(1024))
def digest(path):
    h = hashlib.sha256()
    size = 0
    with open(path, "rb") as f:
        while True:
            n = f.readinto(buf)
            if not n:
                return size, str(hexlify(h.digest()), "utf-8")
            h.update(buf[:n])
            size += n
def text(path):
    try:
        with open(path) as f:
            return f.read(8192)
    except (OSError, ValueError):
        return None
def exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False
def copy(source, target):
    with open(source, "rb") as f, open(target, "wb") as g:
        while True:
            n = f.readinto(buf)
            if not n:
                return
            g.write(buf[:n])
"""

#: What only our loader begins with (boards/shared/main.py).
LOADER = '"""NATSBridge\'s loader'

#: The loader, the slot that it runs, and the configuration there and at the root.
_CONFIG = f"""
loader = (text("main.py") or "").startswith({LOADER!r})
whole = [x for x in ("a", "b") if exists("slots/%s/complete" % x)]
slot = (text("slot") or "").strip()
if slot not in whole:
    slot = whole[0] if whole else ""
config = text("slots/%s/config.json" % slot)
root = text("config.json")
"""

#: Have the loader start once without the program, if that started a watchdog: it resets a board
#: that is busy with something else, and only a reset ends it.
_PAUSE = """
try:
    watched = json.loads(config or root)["watchdog"] and loader
except (ValueError, TypeError, KeyError):
    watched = False
if watched:
    open("pause", "w").close()
    print("pause")
    raise SystemExit
"""

#: Have the next start be one as always.
UNPAUSE = (
    _HERE
    + """
import os
try:
    os.remove("pause")
except OSError:
    pass
"""
)

_SURVEY = """
def walk(path):
    for e in os.ilistdir(path):
        inside = path + "/" + e[0]
        if e[1] == 0x4000:
            walk(inside)
        else:
            print("file", *digest(inside), inside)
if exists("slots"):
    walk("slots")
for name in ("main.py", "main.old.py", "config.json"):
    for name in (name, name + ".new"):
        if exists(name):
            print("file", *digest(name), name)
if exists("slot.new"):
    print("file", *digest("slot.new"), "slot.new")
try:
    f = os.statvfs(".")
    flash = f[1] * f[4]
except (AttributeError, OSError):
    flash = None
try:
    from machine import unique_id
    chip = str(hexlify(unique_id()), "utf-8")
except (ImportError, AttributeError):
    chip = ""
try:
    program = json.loads(text("slots/%s/complete" % slot))["program"]
except (ValueError, TypeError, KeyError):
    program = None
i = sys.implementation
print("board", json.dumps({"version": list(i[1][:3]), "mpy": getattr(i, "_mpy", None),
    "machine": getattr(i, "_machine", ""), "platform": sys.platform, "chip": chip, "heap": heap,
    "flash": flash, "loader": loader, "slot": text("slot"), "config": config, "root": root,
    "program": program}))
"""


def survey(paused: bool) -> str:
    """Return the script that tells what is there: "pause" if the board has to be reset first."""
    return _HERE + _FILES + _CONFIG + ("" if paused else _PAUSE) + _SURVEY


_PREPARE = (
    _FILES
    + """
arguments = json.loads({arguments!r})
for path in arguments["remove"]:
    if exists(path):
        os.remove(path)
for path in arguments["folders"]:
    if not exists(path):
        os.mkdir(path)
for source, target in arguments["copy"]:
    copy(source, target)
"""
)


def prepare(remove: Sequence[str], folders: Sequence[str], copy: Sequence[tuple[str, str]]) -> str:
    """Return the script that removes files, makes folders and copies on the board itself."""
    arguments = {"remove": remove, "folders": folders, "copy": copy}
    return _PREPARE.format(arguments=json.dumps(arguments))


_ACTIVATE = (
    _FILES
    + """
slot = {slot!r}
if slot:
    base = "slots/" + slot + "/"
    with open(base + "complete.new") as f:
        files = json.load(f)["files"]
    for path in files:
        if digest(base + path)[1] != files[path]:
            raise ValueError(path + " arrived damaged")
    os.rename(base + "complete.new", base + "complete")
    with open("slot.new", "w") as f:
        f.write(slot)
for path in {renamed!r}:
    os.rename(path[0], path[1])
for path in {removed!r}:
    os.remove(path)
if hasattr(os, "sync"):
    os.sync()
print("activated")
"""
)


def activate(slot: str, renamed: Sequence[tuple[str, str]], removed: Sequence[str]) -> str:
    """Return the script that checks a slot, if one is given, and makes all of it the board's.

    renamed: files that are there, and their names from then on.
    removed: files that are there, and have no use any more.
    """
    return _ACTIVATE.format(slot=slot, renamed=list(renamed), removed=list(removed))


_REMOVE = (
    _FILES
    + """
def remove(path):
    try:
        entries = list(os.ilistdir(path))
    except OSError:
        entries = []
    for e in entries:
        inside = path + "/" + e[0]
        if e[1] == 0x4000:
            remove(inside)
        else:
            os.remove(inside)
    try:
        os.rmdir(path)
    except OSError:
        pass
def discard(path):
    try:
        os.remove(path)
    except OSError:
        pass
config = {config!r}
if config:
    copy(config, "config.json.new")
    os.rename("config.json.new", "config.json")
for path in {first!r}:
    discard(path)
remove("slots")
try:
    os.stat("main.py")
except OSError:
    try:
        os.rename("main.old.py", "main.py")
    except OSError:
        pass
print("removed")
"""
)


def remove(files: Sequence[str], config: str) -> str:
    """Return the script that removes these files and the slots, and restores main.old.py.

    config: the file that becomes config.json before that, or none.
    """
    return _REMOVE.format(first=list(files), config=config)
