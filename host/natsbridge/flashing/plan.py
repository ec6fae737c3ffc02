"""What is to be done on a board: from what it has and what it shall have, without any I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.flashing.keys import is_ours

__all__ = ["Board", "Found", "Plan", "Refused", "check", "check_flash", "digest", "make_plan"]

SLOTS = ("a", "b")
MAIN = "main.py"
#: Where the main.py stays that a board had before.
OLD_MAIN = "main.old.py"
CONFIG = "config.json"
PROGRAM = "program.py"
#: A block of littlefs, as RP2 and ESP32 have it. A file takes at least one, a folder two.
BLOCK = 4096
#: Bytes of free heap with which everything passes on a 64-bit port (README, "The device's heap").
HEAP = 64 << 10


class Refused(NATSBridgeError):
    """Why a board is not touched, and what can be done."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(INVALID_ARGUMENT, f"{why}: {fix}" if fix else why)


@dataclass(frozen=True)
class Board:
    """What boards/NAME/board.json says of a board."""

    name: str
    #: What it is, for people.
    title: str
    #: The port of MicroPython: rp2, esp32, unix.
    port: str
    #: A regular expression for what the board calls itself.
    machine: str
    #: The oldest MicroPython that will do.
    micropython: tuple[int, ...]
    heap_factor: float = 1.0
    #: Where esptool writes an image.
    flash_offset: str | None = None
    #: What images for it say that they are for: of a UF2 the families, of an ESP32 the chip.
    image_ids: tuple[int, ...] = ()
    #: What the drive of its bootloader says that it is.
    drive: str = ""
    #: Bytes of flash for files, and milliseconds of the longest watchdog, as far as there is one.
    flash: int | None = None
    watchdog_max: int | None = None

    @classmethod
    def parse(cls, name: str, text: str) -> Board:
        """Return what a board.json says.

        Raises:
            ValueError: it says nothing of use.
        """
        said = json.loads(text)
        try:
            version = tuple(int(n) for n in said["micropython"].split("."))
            title, port, machine = (str(said[key]) for key in ("board", "port", "machine"))
            factor, offset = float(said["heap_factor"]), said["flash_offset"]
            re.compile(machine)
            ids = tuple(int(n, 16) for n in said["image_ids"])
            return cls(
                *(name, title, port, machine, version, factor, offset, ids, str(said["drive"])),
                *(said["flash"], said["watchdog_max"]),
            )
        except (KeyError, TypeError, AttributeError, re.error) as e:
            raise ValueError(f"{type(e).__name__} {e}") from None


@dataclass(frozen=True)
class Found:
    """What a board said when it was asked (`scripts.SURVEY`)."""

    version: tuple[int, ...]
    mpy: int | None
    machine: str
    platform: str
    chip: str
    heap: int
    flash: int | None
    #: Whether its main.py is a loader like ours.
    loader: bool
    slot: str | None
    #: The config.json of the slot that runs, and the one at the root. They may hold passwords.
    in_slot_config: str | None = field(repr=False)
    root_config: str | None = field(repr=False)
    #: What the program of that slot is called, "" if it is the default.
    program: str | None
    #: Path to (size, SHA-256).
    files: dict[str, tuple[int, str]]

    @classmethod
    def parse(cls, text: str) -> Found:
        """Return what the lines of `scripts.SURVEY` say.

        Raises:
            ValueError: they are something else.
        """
        files: dict[str, tuple[int, str]] = {}
        said: Any = None
        for line in text.splitlines():
            kind, _, rest = line.strip().partition(" ")
            if kind == "file":
                size, digest, path = rest.split(" ", 2)
                files[path] = int(size), digest
            elif kind == "board":
                said = json.loads(rest)
        try:
            numbers = [*said["version"], said["heap"]]
            numbers += [said[k] for k in ("flash", "mpy") if said[k] is not None]
            texts = [said[k] for k in ("machine", "platform", "chip")]
            maybe = ("slot", "config", "root", "program")
            texts += [said[k] for k in maybe if said[k] is not None]
            if not all(type(n) is int for n in numbers) or not all(type(t) is str for t in texts):
                raise ValueError("these are no answers of a board")
            keys = ["mpy", "machine", "platform", "chip", "heap", "flash", "slot", "program"]
            return cls(
                version=tuple(said["version"]),
                loader=bool(said["loader"]),
                files=files,
                in_slot_config=said["config"],
                root_config=said["root"],
                **{key: said[key] for key in keys},
            )
        except (KeyError, TypeError) as e:
            raise ValueError(f"the board's answer lacks {e}") from None

    @property
    def config(self) -> str | None:
        """The configuration that the board reads, as main.py and board.py find it.

        Where main.py is not ours that is the one at the root, if it is one.
        """
        root = self.root_config if is_ours(self.root_config) else None
        both = (self.in_slot_config, root) if self.loader else (root, self.in_slot_config)
        return both[0] if both[0] is not None else both[1]

    def running(self) -> str | None:
        """Return the slot that main.py runs: the one that `slot` names, else one that is whole."""
        whole = [slot for slot in SLOTS if f"slots/{slot}/complete" in self.files]
        named = (self.slot or "").strip()
        return named if named in whole else (whole[0] if whole else None)

    def has_program(self) -> bool:
        """Tell whether the slot that runs has a program."""
        return f"slots/{self.running()}/{PROGRAM}" in self.files

    def in_slot(self, slot: str) -> dict[str, str]:
        """Return the files of a slot, by their paths in it, and their digests."""
        start = f"slots/{slot}/"
        return {p[len(start) :]: d for p, (_, d) in self.files.items() if p.startswith(start)}


@dataclass(frozen=True)
class Plan:
    """What is to be done; with no `slot`, the program stays as it is."""

    slot: str = ""
    remove: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    #: What is copied on the board itself, from and to.
    copy: tuple[tuple[str, str], ...] = ()
    #: What goes over the cable: paths on the board, in this order.
    send: Mapping[str, bytes] = field(default_factory=dict)
    #: What is renamed in the end, in this order.
    rename: tuple[tuple[str, str], ...] = ()
    #: What is removed after that.
    discard: tuple[str, ...] = ()
    #: Files of the program that are there already, in the slot or on the board.
    kept: int = 0
    #: Bytes of flash that have to be free.
    flash: int = 0

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.slot or self.rename or self.remove or self.discard)


def digest(data: bytes) -> str:
    """Return what the board says of a file."""
    return hashlib.sha256(data).hexdigest()


def blocks(size: int) -> int:
    """Return the bytes of flash that a file takes."""
    return max(1, -(-size // BLOCK)) * BLOCK


def make_plan(
    found: Found, program: Mapping[str, bytes | None], main: bytes, version: str, name: str = ""
) -> Plan:
    """Return what turns what is there into this program and loader.

    program: the files of a slot, its config.json too, by their paths in it; None stands for what
        the slot that runs has there.
    name: what the program is called, if it is not the default.

    Raises:
        Refused: a main.py would be lost.
    """
    remove = [path for path in found.files if path.endswith(".new") and "/" not in path]
    folders: list[str] = []
    copy: list[tuple[str, str]] = []
    send: dict[str, bytes] = {}
    rename: list[tuple[str, str]] = []
    kept = len(program)
    slot = ""

    running = found.running()
    has = found.in_slot(running) if running else {}
    wanted = {p: has[p] if data is None else digest(data) for p, data in program.items()}
    if not running or {p: d for p, d in has.items() if p != "complete"} != wanted:
        slot = next(s for s in SLOTS if s != running)
        base = f"slots/{slot}/"
        there = found.in_slot(slot)
        # First of all it stops being complete; what does not belong there goes.
        first = [p for p in ("complete", "complete.new") if p in there]
        wrong = [p for p, d in there.items() if wanted.get(p) != d and p not in first]
        remove += [base + p for p in (*first, *wrong)]
        folders = ["slots", base[:-1]]
        folders += sorted({base + p.rpartition("/")[0] for p in program if "/" in p})
        elsewhere = {d: f"slots/{running}/{p}" for p, d in has.items()}
        for path, data in program.items():
            if there.get(path) == wanted[path]:
                continue
            if wanted[path] in elsewhere:
                copy.append((elsewhere[wanted[path]], base + path))
            elif data is not None:
                send[base + path] = data
                kept -= 1
        about = {"version": version, "program": name, "files": wanted}
        send[f"{base}complete.new"] = json.dumps(about).encode()

    # A main.py of somebody's own is saved before anything takes its place.
    old = found.files.get(MAIN)
    loads = old is not None and old[1] == digest(main)
    if old and not loads and not found.loader:
        saved = found.files.get(OLD_MAIN)
        if saved and saved[1] != old[1]:
            why = f"the board has a {MAIN} of its own, and {OLD_MAIN}, where it would be kept"
            raise Refused(why, "save them, and remove one")
        if not saved:
            copy.append((MAIN, f"{OLD_MAIN}.new"))
            rename.append((f"{OLD_MAIN}.new", OLD_MAIN))
    # The loader comes after the slot: without one it would have nothing to load.
    if slot:
        rename.append(("slot.new", "slot"))
    if not loads:
        send[f"{MAIN}.new"] = main
        rename.append((f"{MAIN}.new", MAIN))
    # What is at the root is read by a slot that has none, which may be the one that runs until now.
    # What is no configuration of ours is none of our business.
    discard = [CONFIG] if CONFIG in found.files and is_ours(found.root_config) else []

    sizes = {path: size for path, (size, _) in found.files.items()}
    flash = sum(blocks(len(data)) for data in send.values())
    flash += sum(blocks(sizes[source]) for source, _ in copy)
    flash += BLOCK * (1 + 2 * sum(not any(p.startswith(f + "/") for p in sizes) for f in folders))
    flash -= sum(blocks(sizes[path]) for path in remove)
    return Plan(
        slot,
        tuple(remove),
        tuple(folders),
        tuple(copy),
        send,
        tuple(rename),
        tuple(discard),
        kept,
        flash if send or copy else 0,
    )


def check(board: Board, found: Found, mpy: int) -> None:
    """Refuse a board that the program does not fit.

    mpy: the version of our .mpy files.

    Raises:
        Refused: and why.
    """
    called = found.machine or found.platform
    if not re.search(board.machine, called):
        fix = f"it is no {board.name} ({board.title}); name the right board, or port"
        raise Refused(f"the board says it is {called!r}", fix)
    version = ".".join(map(str, found.version))
    if found.version < board.micropython:
        least = ".".join(map(str, board.micropython))
        fix = f"install {least} or newer, with --image FILE"
        raise Refused(f"the board has MicroPython {version}", fix)
    if found.mpy is None or found.mpy & 0xFF != mpy:
        theirs = "none" if found.mpy is None else f"version {found.mpy & 0xFF}"
        fix = "install a release of MicroPython, with --image FILE"
        why = f"the board's MicroPython {version} loads {theirs} of .mpy files, ours are {mpy}"
        raise Refused(why, fix)
    least_heap = int(HEAP * board.heap_factor)
    if found.heap < least_heap:
        fix = "a board with more memory, or a MicroPython with less frozen in and no boot.py"
        why = f"the board has {found.heap:,} bytes of heap free, and {least_heap:,} are needed"
        raise Refused(why, fix)


def check_flash(found: Found, plan: Plan) -> None:
    """Refuse a board on which what is to come has no room.

    Raises:
        Refused: and why.
    """
    if found.flash is not None and found.flash < plan.flash:
        why = f"the board has {found.flash:,} bytes of flash free, and {plan.flash:,} are needed"
        raise Refused(why, "remove files from it: mpremote fs ls, mpremote fs rm")
