"""What a board prints, read from its port without disturbing its program."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from natsbridge.flashing.link import fault

__all__ = ["check", "follow"]

#: Seconds between looks at whether the reader shall end, and at a port that is away.
LOOK_S = 0.2
#: Longest line that is kept; a board prints what it likes.
LINE = 1000


def _open(port: str) -> Any:
    """Return the port, opened as mpremote does it: boards with a UART are not reset by it."""
    import serial

    opened = serial.serial_for_url(port, do_not_open=True, baudrate=115200, timeout=LOOK_S)
    if hasattr(opened, "exclusive"):
        opened.exclusive = True
    opened.open()
    return opened


def _read(port: str, end: threading.Event, on_line: Callable[[str], None]) -> None:
    """Read lines until `end`; the port may go and come back."""
    text = b""
    while not end.is_set():
        try:
            with contextlib.closing(_open(port)) as opened:
                while not end.is_set():
                    text += opened.read(max(1, opened.in_waiting))
                    *lines, text = text.split(b"\n")
                    for line in lines:
                        on_line(line.decode(errors="replace").rstrip("\r"))
                    if len(text) > LINE:
                        on_line(text.decode(errors="replace"))
                        text = b""
        except Exception:  # OSError, termios.error: it is away
            time.sleep(LOOK_S)


async def check(port: str) -> None:
    """Open a port, and close it again.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`: there is none, it is in use, or pyserial, which
            mpremote brings along, is not there.
    """
    try:
        (await asyncio.to_thread(_open, port)).close()
    except ImportError:
        raise fault(port, "No module named mpremote") from None
    except OSError:  # serial's own are, too
        raise fault(port, "could not open port") from None


@contextlib.asynccontextmanager
async def follow(port: str, on_line: Callable[[str], None]) -> AsyncIterator[None]:
    """Have `on_line` told each line that the board prints, while in the block."""
    loop = asyncio.get_running_loop()
    end = threading.Event()

    def told(line: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(on_line, line)

    thread = threading.Thread(
        target=_read, args=(port, end, told), name="natsbridge console", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        end.set()
        await asyncio.to_thread(thread.join)
