"""The board at the other end of a cable, through mpremote: a process for each errand.

Nothing secret is on its command line, where everybody on the machine can read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.flashing import console, scripts
from natsbridge.flashing.plan import Found, Plan

__all__ = ["Link", "MpremoteError", "Port", "check", "fault", "is_there", "last_line", "ports"]

#: Seconds for an answer of the board, and bytes a second that the slowest cable carries.
ANSWER_S = 60.0
SLOWEST = 500
#: Seconds for the first line of an answer; mpremote waits for ever where a program goes on.
FIRST_S = 12.0
#: Seconds in which somebody can press the reset button of a board that does not answer.
INTERRUPT_S = 15.0
#: Seconds that a reset takes to begin.
SETTLE_S = 0.5
#: Seconds for its port to come back after a reset, and when all that matters is that it goes on.
BACK_S = 20.0
RELEASE_S = 3.0

# What mpremote prints, and what that means. The first that matches holds.
_FAULTS = (
    ("No module named mpremote", "mpremote is not installed", "pip install mpremote"),
    ("ENOSPC|OSError: 28\\b|No space left", "the board's flash is full", "remove files from it"),
    ("arrived damaged", "a file arrived damaged", "run it again; a shorter cable may help"),
    (
        "could not enter raw repl",
        "what is at the port does not answer as MicroPython does",
        "if its program ignores Ctrl-C, press its reset button when you are told to; if it has no"
        " MicroPython, install it with --image FILE",
    ),
    (
        "disconnected|SerialException|Input/output error|Errno 5\\b|Errno 6\\b|timeout waiting",
        "the connection to the board was lost",
        "run it again: it goes on where it was, and the board has its old program",
    ),
    ("MemoryError", "the board's heap is full", "reset it and run it again"),
)


@dataclass(frozen=True)
class Port:
    """One that `mpremote connect list` shows."""

    device: str
    usb: str
    what: str


class MpremoteError(NATSBridgeError):
    """What mpremote could not do; `said` is the end of what it printed."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(INVALID_ARGUMENT, message)
        self.said = said


class _NotYet(MpremoteError):
    """The board did not answer, as one that starts just now."""


def fault(port: str, said: str) -> MpremoteError:
    """Return the error for what mpremote printed before it failed."""
    # The line that quotes the board's configuration is for nobody's eyes.
    said = "\n".join(line for line in said.splitlines() if not line.startswith("board "))
    if "failed to access" in said or "could not open port" in said:
        return MpremoteError(_not_opened(port))
    for pattern, why, fix in _FAULTS:
        if re.search(pattern, said):
            kind = _NotYet if "raw repl" in pattern or "disconnected" in pattern else MpremoteError
            return kind(f"{why}: {fix}", said)
    return MpremoteError(f"mpremote failed: {last_line(said)}", said)


def last_line(said: str) -> str:
    """Return the end of what a program printed, for an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it says nothing"


def _not_opened(port: str) -> str:
    """Return why a port can't be opened."""
    if not is_there(port):
        return f"there is no port {port}: `mpremote connect list` shows which there are"
    with contextlib.suppress(OSError):
        if not _is_serial(port):
            return f"{port} is no serial port: `mpremote connect list` shows which there are"
    return (
        f"{port} cannot be opened: close the program that uses it (a terminal, an editor); on"
        " Linux, your user may have to be in the group dialout"
    )


def _is_serial(port: str) -> bool:
    if not _is_path(port):
        return True
    if not stat.S_ISCHR(Path(port).stat().st_mode):
        return False
    file = os.open(port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return os.isatty(file)
    finally:
        os.close(file)


def _is_path(port: str) -> bool:
    """Tell a port's path from what else mpremote takes: COM3, rfc2217://host, id:..."""
    return os.name == "posix" and ":" not in port


def is_there(port: str) -> bool:
    """Tell whether a port exists, as far as that can be seen (not on Windows, nor of URLs)."""
    return not _is_path(port) or Path(port).exists()


async def mpremote(
    *words: str,
    port: str,
    limit: float,
    first: float | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run mpremote: what it prints.

    Raises:
        MpremoteError: it failed, was not done within `limit` seconds, or did not print its first
            line within `first`.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "mpremote", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
        start_new_session=True,  # Ctrl-C reaches this command alone
    )
    assert child.stdout is not None
    lines: list[str] = []

    async def read(stream: asyncio.StreamReader) -> None:
        try:
            raw = await asyncio.wait_for(stream.readline(), first)
        except asyncio.TimeoutError:
            raise fault(port, "could not enter raw repl") from None
        while raw:
            line = raw.decode(errors="replace").rstrip("\r\n")
            lines.append(line)
            if on_line:
                on_line(line)
            raw = await stream.readline()

    try:
        await asyncio.wait_for(read(child.stdout), limit)
        code = await asyncio.wait_for(child.wait(), limit)
    except asyncio.TimeoutError:
        raise MpremoteError(
            f"the board at {port} does not answer within {limit:.0f} s: press its reset button, and"
            " run it again"
        ) from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if code != 0:
        raise fault(port, "\n".join(lines))
    return "\n".join(lines)


async def check(port: str) -> None:
    """Open a port, and close it again.

    Raises:
        MpremoteError: there is none, it is in use, or pyserial, which mpremote brings along, is
            not there.
    """
    try:
        (await asyncio.to_thread(console.open_port, port)).close()
    except ImportError:
        raise fault(port, "No module named mpremote") from None
    except OSError:  # serial's own are, too
        raise fault(port, "could not open port") from None


async def ports() -> list[Port]:
    """Return the USB ports at which there may be a board.

    Raises:
        MpremoteError: mpremote is not there.
    """
    found = []
    for line in (await mpremote("connect", "list", port="", limit=ANSWER_S)).splitlines():
        words = line.split(" ", 3)
        # The ports of the machine itself have no USB numbers.
        if len(words) == 4 and re.fullmatch("(?!0000:)[0-9a-f]{4}:[0-9a-f]{4}", words[2]):
            found.append(Port(words[0], words[2], words[3].replace("None", "").strip()))
    return found


class Link:
    """A board at a port.

    on_trouble: is told when it does not answer, before it is tried again.
    """

    def __init__(self, port: str, on_trouble: Callable[[], None] = lambda: None) -> None:
        self.port = port
        #: Whether its program may stand still.
        self.touched = False
        self._resets = False  # which may have taken its port away
        #: Whether it has what a plan was to put there.
        self.switched = False
        self._on_trouble = on_trouble

    async def _run(self, *words: str, limit: float = ANSWER_S, **options: Any) -> str:
        line = ("connect", self.port, *words)
        return await mpremote(*line, port=self.port, limit=limit, **options)

    async def survey(self) -> Found:
        """Return what is there. The board's program ends for that.

        Raises:
            MpremoteError: nothing, or nothing that answers.
        """
        self.touched = True
        try:
            said = await self._ask("exec", scripts.survey(paused=False))
        except _NotYet:
            self.touched = False  # whatever runs there did not stand still
            raise
        if said.split()[-1:] == ["pause"]:
            self._resets = True
            with contextlib.suppress(MpremoteError):  # its port may be gone before mpremote is
                await self._run("reset")
            await self.back()
            self._resets = False
            said = await self._ask("exec", scripts.survey(paused=True))
        try:
            return Found.parse(said)
        except ValueError as e:
            why = f"what is at {self.port} gives no answer that makes sense: {e}"
            raise MpremoteError(why) from None

    async def _ask(self, *words: str) -> str:
        """Run mpremote with a script that prints something at once.

        Once more on a board that starts just now, or that somebody has to start for it.
        """
        with contextlib.suppress(_NotYet):
            return await self._run(*words, first=FIRST_S)
        self._on_trouble()
        await console.interrupt(self.port, INTERRUPT_S)
        return await self._run(*words, first=FIRST_S)

    async def back(self, patience: float = BACK_S) -> None:
        """Wait for the port, which a reset can take away."""
        await asyncio.sleep(SETTLE_S)
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while not is_there(self.port):
            if loop.time() > end:
                raise MpremoteError(f"{self.port} did not come back: unplug the board, and plug it")
            await asyncio.sleep(0.1)

    async def carry_out(
        self, plan: Plan, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Do what a plan says, and reset the board.

        on_progress: is told bytes that were sent, and how many there are in all.

        Raises:
            MpremoteError: the board has its old program then.
        """
        total = sum(map(len, plan.send.values()))
        with tempfile.TemporaryDirectory(prefix="natsbridge-") as name:  # for this user alone
            words: list[str] = []
            sources: dict[str, int] = {}
            if plan.changes:
                words += ["exec", scripts.prepare(plan.remove, plan.folders, plan.copy), "+"]
            for number, (path, data) in enumerate(plan.send.items()):
                source = Path(name) / str(number)
                source.touch(0o600)
                source.write_bytes(data)
                sources[str(source)] = len(data)
                words += ["fs", "cp", str(source), f":{path}", "+"]
            if plan.changes:
                words += ["exec", scripts.activate(plan.slot, plan.rename, plan.discard), "+"]
            done = sent = 0

            def on_line(line: str) -> None:
                nonlocal done, sent
                if line == "activated":
                    self.switched = True
                verb, _, rest = line.partition(" ")
                if verb == "cp" and (size := sources.get(rest.partition(" ")[0])) is not None:
                    done, sent = done + sent, size  # the one before has arrived
                    on_progress(done, total)

            self.touched = True
            self.switched = False
            limit = ANSWER_S + total / SLOWEST
            try:
                await self._run(*words, "reset", limit=limit, on_line=on_line)
            except MpremoteError:
                # Once it resets, its port may be gone before mpremote is.
                if plan.changes and not self.switched:
                    raise
            self.touched = False
            on_progress(total, total)
            await self.back()

    async def release(self) -> None:
        """Let the board go on with its program, if it was stopped; whatever else is wrong."""
        if self.touched and (self._resets or is_there(self.port)):
            with contextlib.suppress(MpremoteError):
                if self._resets:
                    await self.back(RELEASE_S)
                self._on_trouble = lambda: None
                await self._ask("exec", scripts.UNPAUSE, "+", "reset")
        self.touched = False

    async def remove(self, files: Sequence[str], config: str) -> None:
        """Remove our program, and these files, and reset the board.

        config: the file that becomes config.json before that, or none.
        """
        try:
            await self._run("exec", scripts.remove(files, config), "+", "reset")
        except MpremoteError as e:
            if not re.search("^removed", e.said, re.M):
                raise
        self.touched = False
        await self.back()
