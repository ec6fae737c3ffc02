"""What a command shows: lines and tables for people, one JSON object a line for programs.

Results go to stdout; progress, warnings and errors to stderr. Colours and progress bars are for
terminals. What came from the wire is printed without its control characters: it can neither move
the cursor nor colour anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from natsbridge.errors import NATSBridgeError
from natsbridge.log import Formatter

__all__ = ["FAILED", "INTERRUPTED", "NOTHING_CAME", "Bars", "Output", "clean", "rate", "size"]

FAILED = 1
NOTHING_CAME = 3
INTERRUPTED = 130


def clean(text: object, width: int = 0) -> str:
    """Return a stranger's text as one line without control characters, cut to `width`."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    return line if not width or len(line) <= width else line[: width - 1] + "…"


def size(count: int | None) -> str:
    """Return a number of bytes as people write it: 999 B, 99.9 kB, 5.0 MB."""
    if count is None:
        return "?"
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def rate(count: int, seconds: float) -> str:
    """Return bytes a second."""
    return f"{size(int(count / seconds))}/s" if seconds > 0 else ""


class Output:
    """Where a command writes to."""

    def __init__(self, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)
        if verbose:
            handler = logging.StreamHandler()
            handler.setFormatter(Formatter())
            logger = logging.getLogger("natsbridge")
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line for people."""
        if not self.as_json:
            self.console.print(Text(text, style=style))

    def record(self, **fields: Any) -> None:
        """Print an object for programs."""
        if self.as_json:
            print(json.dumps(fields, ensure_ascii=False, default=str), flush=True)

    def warn(self, text: str) -> None:
        """Print a warning for people."""
        self.errors.print(Text(clean(text), style="yellow"))

    def fail(self, error: NATSBridgeError) -> None:
        """Print an error: for people on stderr, for programs on stdout."""
        if self.as_json:
            self.record(error={"code": error.code, "message": error.message})
            return
        text = Text(error.code, style="bold red")
        self.errors.print(text + Text(f": {clean(error.message)}", style="default"))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yield bars of transfers, which only a terminal shows, and which leave nothing behind."""
        bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.errors,
            transient=True,
            disable=self.as_json or not self.errors.is_terminal,
        )
        with bars:
            yield bars

    def run(self, work: Coroutine[Any, Any, int | None]) -> None:
        """Run a command to its end, and exit with its code."""
        try:
            code = asyncio.run(work) or 0
        except NATSBridgeError as e:
            self.fail(e)
            code = FAILED
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:  # whoever read our output has gone
            sys.stderr.close()
            code = FAILED
        sys.exit(code)


class Bars:
    """`on_progress` of a message as bars: one for each payload that takes more than a moment."""

    #: Bytes from which a payload gets a bar.
    LEAST = 1 << 20

    def __init__(self, progress: Progress, prefix: str = "") -> None:
        self._progress = progress
        self._prefix = prefix
        self._tasks: dict[str, Any] = {}

    def __call__(self, dataname: str, done: int, total: int | None) -> None:
        """Take note of a payload's progress."""
        if total is not None and total < self.LEAST:
            return
        if dataname not in self._tasks:
            name = clean(self._prefix + dataname, 24)
            self._tasks[dataname] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[dataname], completed=done, total=total)

    def close(self) -> None:
        """Remove the bars."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
