"""The two sides as processes that run the same script, line by line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from device import Dialogue, command, compiled, main_of

SIDES = ("device", "desktop")


class Side(Dialogue):
    """A process that runs a script of tests/faults.

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
        super().__init__(line, **place)
