"""Which board a command is for, and questions to whoever is at the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from natsbridge.cli.output import Output, clean
from natsbridge.flashing.link import ports
from natsbridge.flashing.plan import Refused

__all__ = ["at_prompt", "can_ask", "device_option", "find_port"]

#: Which board a command is for, as `find_port` takes it.
device_option = click.option(
    "--device", "port", default="", metavar="PORT", help="Of the board; else it is found."
)


@contextlib.contextmanager
def at_prompt() -> Iterator[None]:
    """Have Ctrl-C and other signals end a question at once: asyncio would keep them until the
    answer, and then end what cleans up, too."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _exit)
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    except click.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def can_ask(out: Output) -> bool:
    """Tell whether there is a person to ask."""
    return sys.stdin.isatty() and not out.as_json


async def find_port(out: Output, port: str) -> str:
    """Return the port that was given, or the only one, or the one that a person chooses.

    Raises:
        Refused: there is none, or nobody to ask.
    """
    if port:
        return port
    found = await ports()
    if not found:
        fix = "plug one in, with a cable that carries data, or name its port with --device"
        raise Refused("no board is found", fix)
    if len(found) == 1:
        out.text(f"Board at {clean(found[0].device)}  {clean(found[0].what)}")
        return found[0].device
    if not can_ask(out):
        names = ", ".join(clean(p.device) for p in found)
        raise Refused(f"there are several ports, {names}", "name one with --device")
    for number, p in enumerate(found, 1):
        out.line(f"  {number}  {clean(p.device)}  {clean(p.what)}")
    with at_prompt():
        chosen = click.prompt("Which board", type=click.IntRange(1, len(found)), err=True)
    return found[chosen - 1].device
