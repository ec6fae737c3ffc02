"""What a command shows: lines and tables for people, one JSON object a line for programs.

Results go to stdout; progress, warnings and errors to stderr. Colours and progress bars are for
terminals. What came from the wire is printed without its control characters: it can neither move
the cursor nor colour anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from rich.cells import cell_len, set_cell_size
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

__all__ = ["FAILED", "NOTHING_CAME", "Bars", "Output", "clean", "column", "rate", "size"]

FAILED = 1
NOTHING_CAME = 3
INTERRUPTED = 130
HUNGUP = 129
TERMINATED = 143


def clean(text: object, width: int = 0) -> str:
    """Return a stranger's text as one line without control characters, cut to `width` cells."""
    whole = str(text)
    start = whole[: 4 * width] if width else whole  # of a megabyte only this is shown
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in start)
    return line if not width or cell_len(line) <= width else set_cell_size(line, width - 1) + "…"


def column(text: object, width: int) -> str:
    """Return a stranger's text in exactly `width` cells."""
    return set_cell_size(clean(text, width), width)


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
        self._code = 0  # that a signal has set
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a log on Windows has no emoji
        self.console = Console(highlight=False, soft_wrap=True)
        # Two consoles on one terminal would write into each other's lines and bars.
        one = self.console.is_terminal and sys.stderr.isatty()
        self.errors = self.console if one else Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = not (as_json or verbose) and self.errors.is_terminal
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

    def text(self, text: str) -> None:
        """Print a line for people, as several where it is longer than their terminal is wide."""
        self.line(self.wrap(text))

    def row(self, text: Text) -> None:
        """Print a line for people, cut to the width of their terminal."""
        if self.as_json:
            return
        if self.console.is_terminal:
            text.truncate(self.console.width, overflow="ellipsis")
        self.console.print(text)

    def wrap(self, text: str, indent: int = 0) -> str:
        """Return a long line as several that fit; URLs stay whole."""
        return textwrap.fill(
            *(text, self.console.width),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def record(self, **fields: Any) -> None:
        """Print an object for programs."""
        if self.as_json:
            try:
                print(json.dumps(fields, default=str), flush=True)
            except BrokenPipeError:
                self.console.on_broken_pipe()  # whoever read us has gone: end

    def warn(self, text: str) -> None:
        """Print a warning for people."""
        self.errors.print(Text(self._error(clean(text)), style="yellow"))

    def fail(self, error: NATSBridgeError, **more: Any) -> None:
        """Print an error: for people on stderr, for programs, who get `more`, on stdout."""
        if self.as_json:
            if correlation_id := error.details.get("correlation_id"):
                more["correlation_id"] = correlation_id
            self.record(error={"code": error.code, "message": error.message}, **more)
            return
        text = Text(self._error(f"{error.code}: {clean(error.message)}"))
        text.stylize("bold red", 0, len(error.code))
        self.errors.print(text)

    def _error(self, line: str) -> str:
        return self.wrap(line) if self.errors.is_terminal else line  # in a log it stays one

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
            disable=not self._bars,
        )
        with bars:
            yield bars

    def run(self, work: Callable[[], Coroutine[Any, Any, int | None]]) -> None:
        """Run a command to its end, and exit with its code."""
        try:
            code = asyncio.run(self._until_signalled(work())) or 0
        except NATSBridgeError as e:
            self.fail(e)
            code = FAILED
        except OSError as e:  # of stdout: what else can fail has an error of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it fails at exit
            with contextlib.suppress(OSError):  # the terminal was closed
                print(f"the output can't be written: {e}", file=sys.stderr)
            code = self._code or FAILED
        except KeyboardInterrupt:
            code = INTERRUPTED
        except asyncio.CancelledError:
            code = self._code or INTERRUPTED
        sys.exit(code)

    async def _until_signalled(self, work: Coroutine[Any, Any, int | None]) -> int | None:
        """Cancel `work`, so that it ends in order, at each Ctrl-C and SIGTERM, and when the
        terminal is closed: then the shell and the kernel may both say so."""
        task = asyncio.current_task()
        assert task is not None

        def end(code: int) -> None:
            if self._code != HUNGUP:
                self._code = code
                task.cancel()

        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGTERM, end, TERMINATED)
            for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGHUP, HUNGUP)):
                # It is ignored in a shell's background job, or under nohup.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, end, code)
        except (NotImplementedError, AttributeError):  # Windows
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return await work


class Bars:
    """`on_progress` of a message as bars: one for each payload that takes more than a moment."""

    #: Bytes from which a payload gets a bar.
    LEAST = 1 << 20

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def __call__(self, dataname: str, done: int, total: int | None) -> None:
        """Take note of a payload's progress."""
        if total is not None and total < self.LEAST:
            return
        if dataname not in self._tasks:
            self._tasks[dataname] = self._progress.add_task(clean(dataname, 24), total=total)
        self._progress.update(self._tasks[dataname], completed=done, total=total)

    def close(self) -> None:
        """Remove the bars."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
