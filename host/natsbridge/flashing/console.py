"""A port without mpremote: what a board prints, and Ctrl-C for one that is deaf to a single one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["follow", "interrupt", "open_port"]

#: Seconds between looks at whether the reader shall end.
LOOK_S = 0.2
#: Seconds between looks at a port that is away: what a board prints first may be all it prints.
BACK_S = 0.01
#: Seconds after which somebody is told that a port is away; a reset takes less.
AWAY_S = 3.0
#: Seconds between two Ctrl-C.
TYPE_S = 0.02
#: How a prompt ends.
PROMPTS = (b">>> ", b"\n>")
#: Longest line that is kept; a board prints what it likes.
LINE = 1000


def open_port(port: str) -> Any:
    """Return the port, opened as mpremote does it: boards with a UART are not reset by it."""
    import serial

    opened = serial.serial_for_url(port, do_not_open=True, baudrate=115200, timeout=LOOK_S)
    if hasattr(opened, "exclusive"):
        opened.exclusive = True
    # What has come already is what is wanted; pyserial drops it.
    opened._reset_input_buffer = lambda: None
    opened.open()
    return opened


def _read(
    port: str,
    end: threading.Event,
    on_line: Callable[[str], None],
    on_away: Callable[[bool], None],
) -> None:
    """Read lines until `end`; the port may go and come back."""
    text = b""
    since, told = time.monotonic(), False
    while not end.is_set():
        try:
            with contextlib.closing(open_port(port)) as opened:
                if told:
                    on_away(False)
                    told = False
                while not end.is_set():
                    text += opened.read(max(1, opened.in_waiting))
                    since = time.monotonic()
                    *lines, text = text.split(b"\n")
                    for line in lines:
                        on_line(line.decode(errors="replace").rstrip("\r"))
                    if len(text) > LINE:
                        on_line(text.decode(errors="replace"))
                        text = b""
        except Exception:  # OSError, termios.error: it is away
            if not told and time.monotonic() - since > AWAY_S:
                on_away(True)
                told = True
            time.sleep(BACK_S)


def _interrupt(port: str, end: threading.Event) -> None:
    """Type Ctrl-C until there is a prompt, or until `end`; the port may go and come back."""
    while not end.is_set():
        try:
            with contextlib.closing(open_port(port)) as opened:
                said = b""
                while not end.is_set() and not said.endswith(PROMPTS):
                    opened.write(b"\x03")
                    time.sleep(TYPE_S)
                    said = (said + opened.read(opened.in_waiting))[-LINE:]
                return
        except Exception:  # as in _read
            time.sleep(BACK_S)


async def interrupt(port: str, patience: float) -> None:
    """Type Ctrl-C for so many seconds, or until there is a prompt.

    A program that ignores it does not do so before it runs: right after a reset.
    """
    end = threading.Event()
    thread = threading.Thread(target=_interrupt, args=(port, end), daemon=True)
    thread.start()
    try:
        await asyncio.wait_for(asyncio.to_thread(thread.join, patience), patience + 1)
    finally:
        end.set()
        await asyncio.to_thread(thread.join)


@contextlib.asynccontextmanager
async def follow(
    port: str,
    on_line: Callable[[str], None],
    on_away: Callable[[bool], None] = lambda away: None,
) -> AsyncIterator[None]:
    """Have `on_line` told each line that the board prints, while in the block.

    on_away: is told True when the port is away for longer, and False when it is back.
    """
    loop = asyncio.get_running_loop()
    end = threading.Event()

    def in_loop(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(argument: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(function, argument)

        return call

    arguments = (port, end, in_loop(on_line), in_loop(on_away))
    thread = threading.Thread(target=_read, args=arguments, name="natsbridge console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        await asyncio.to_thread(thread.join)
