"""A board on a pseudo-terminal: MicroPython's unix port, with a folder as its file system.

The real mpremote works on it unchanged: Ctrl-C, raw REPL, soft reset, `machine.reset()`, main.py
when it starts. It can pretend to be another board, to have little flash, a Wi-Fi, a watchdog, and
to lose its power after so many bytes or operations on files. With "usb" its port goes away for a
moment when it is reset, and has a name of its own; without it, it is at a /dev/pts/, where mpremote
is faster. As a program, which prints its port: python simulator.py FOLDER [OPTIONS AS JSON]
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import tty
from pathlib import Path
from typing import Any

from device import freeze
from natsbridge.cli.child import die_with

DEVICE = Path(__file__).with_name("simulated_device.py")
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).with_name("micropython"))
if os.sep in MICROPYTHON:
    MICROPYTHON = str(Path(MICROPYTHON).absolute())
#: What a board may be told; None is as the unix port has it.
OPTIONS: dict[str, Any] = {
    "heap": "256K",
    "usb": None,  # the port's name
    "version": None,  # [1, 18, 0]
    "platform": None,
    "machine": None,
    "mpy": None,
    "flash": None,  # bytes in all
    "honest": True,  # about them: statvfs tells
    "wifi": None,  # {"ssid": ..., "password": ...}
    "bytes": None,  # over the cable, both ways, until the power fails
    "operations": None,  # on files, until the power fails
    "waits": False,  # for a line at stdin, before it is switched on
}
#: Seconds without a port after a reset.
AWAY_S = 0.2
#: Seconds after which output is dropped that nobody reads.
UNREAD_S = 10
PROMPT = b">>> "
RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
MARK = re.compile(rb"\x1b\]sim;([^\x07]*)\x07")


class PowerFailure(Exception):
    """The cable was pulled."""


class Simulator:
    """A board, and the port that it is at."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self._folder = folder
        self._told = {**OPTIONS, **told}
        self._left = self._told["bytes"]
        self._operations = self._told["operations"]
        chip = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        #: What a start of its own knows of the ones before.
        self._start_told = {"chip": chip, "powered_on": True}
        self._attach()

    # -- its port

    def _attach(self) -> None:
        self._cable, self._side = pty.openpty()
        tty.setraw(self._side)  # kept open: mpremote comes and goes
        os.set_blocking(self._cable, False)
        self.port = os.ttyname(self._side)
        if self._told["usb"]:
            Path(self._told["usb"]).unlink(missing_ok=True)
            Path(self._told["usb"]).symlink_to(self.port)
            self.port = self._told["usb"]
        self._unread = b""
        self._unread_since = 0.0
        self._typed = b""  # what waits for the prompt, even through a reset

    def _detach(self) -> None:
        if self._told["usb"]:
            Path(self._told["usb"]).unlink(missing_ok=True)
        os.close(self._cable)
        os.close(self._side)

    # -- its processor

    def _start(self, main: bool) -> None:
        self._end, side = pty.openpty()
        tty.setraw(side)
        environment = {
            **os.environ,
            "SIMULATED": json.dumps(
                {**self._told, **self._start_told, "operations": self._operations, "main": main}
            ),
            "MICROPYPATH": ".frozen",
        }
        self._process = subprocess.Popen(
            [MICROPYTHON, "-X", f"heapsize={self._told['heap']}", "-i", str(DEVICE)],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=self._folder,
            env=environment,
            start_new_session=True,
            preexec_fn=functools.partial(die_with, os.getpid(), signal.SIGKILL),
        )
        os.close(side)
        self._said = b""  # the end of its output
        self._marked = b""  # output that may hold the beginning of a mark
        self._resets = False
        self._started = False  # it is a board, not yet that which becomes one
        self._at_prompt = False
        self._raw = False
        self._quiet = not main  # until the raw REPL is there

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)

    def _ended(self) -> None:
        """Do what a board does whose processor came to an end."""
        os.close(self._end)
        code = self._process.wait()
        if code == -signal.SIGKILL:
            raise PowerFailure
        raw = self._raw
        self._to_cable(b"MPY: soft reboot\r\n")
        self._start(main=not raw)

    def _hard_reset(self) -> None:
        self._watchdog_end = None
        self._start_told["powered_on"] = False
        if self._told["usb"]:
            self._detach()
            time.sleep(AWAY_S)
            self._attach()
        self._start(main=True)

    # -- what passes between them

    def _count(self, data: bytes) -> bytes:
        """Return what passes before the power fails."""
        if self._left is None:
            return data
        passed = data[: self._left]
        self._left -= len(passed)
        return passed

    def _check_power(self) -> None:
        if self._left == 0:
            raise PowerFailure

    def _to_cable(self, data: bytes) -> None:
        if not self._unread:
            self._unread_since = time.monotonic()
        self._unread += self._count(data)
        self._flush()
        self._check_power()

    def _flush(self) -> None:
        try:
            n = os.write(self._cable, self._unread) if self._unread else 0
        except BlockingIOError:
            n = 0
        if n:
            self._unread = self._unread[n:]
            self._unread_since = time.monotonic()
        elif self._unread and time.monotonic() - self._unread_since > UNREAD_S:
            self._unread = b""

    def _typed_in(self, data: bytes) -> None:
        """Pass on what was typed; Ctrl-C ends a program, and the rest waits until it has."""
        self._typed += self._count(data)
        self._type()
        self._check_power()

    def _type(self) -> None:
        if b"\x03" in self._typed and self._started and self._interrupted():
            _, _, self._typed = self._typed.rpartition(b"\x03")
        if self._at_prompt:
            with contextlib.suppress(OSError):  # it has ended
                os.write(self._end, self._typed)
            self._typed = b""

    def _interrupted(self) -> bool:
        """Interrupt the program, if it runs one: only then does the unix port catch SIGINT.

        It stands still meanwhile: if the program ended after the look, the signal would kill it.
        """
        freeze(self._process)
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            caught = int(status.split("SigCgt:")[1].split()[0], 16)
            if not caught >> (signal.SIGINT - 1) & 1:
                return False
            self._process.send_signal(signal.SIGINT)
            return True
        except (OSError, IndexError):  # it has ended
            return False
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _from_board(self, data: bytes) -> None:
        self._marked += data
        shown = b""
        while found := MARK.search(self._marked):
            shown += self._marked[: found.start()]
            self._marked = self._marked[found.end() :]
            self._told_by(found[1].decode())
        start = self._marked.rfind(b"\x1b")
        # A mark that has only begun waits for its rest.
        if start < 0 or not b"\x1b]sim;".startswith(self._marked[start : start + 6]):
            start = len(self._marked)
        shown, self._marked = shown + self._marked[:start], self._marked[start:]
        if not shown:
            return
        self._said = (self._said + shown)[-200:]
        if not self._at_prompt and self._said.endswith(PROMPT):
            self._at_prompt = True
            if self._quiet:  # a soft reset from the raw REPL leads back there
                self._said = b""
                self._typed = b"\x01" + self._typed
                self._quiet = False
                self._type()
                return
            self._type()
        if self._said.endswith(PROMPT):
            self._raw = False
        elif RAW_PROMPT in self._said:
            self._raw = True
        if not self._quiet:
            self._to_cable(shown)

    def _told_by(self, text: str) -> None:
        if text == "started":
            self._started = True
            self._type()
        elif text == "reset":
            self._resets = True
        elif text == "operation":
            self._operations -= 1
        elif text.startswith("watchdog "):
            self._watchdog_end = time.monotonic() + int(text.split()[1]) / 1000

    _watchdog_end: float | None = None
    pressed = False  # its reset button

    def run(self) -> None:
        """Be a board until the power fails."""
        if self._told["waits"]:
            sys.stdin.readline()
        try:
            self._start(main=True)
            while True:
                self._step()
        except PowerFailure:
            self._process.kill()
            self._process.wait()
            self._detach()

    def _step(self) -> None:
        sources = [self._cable]
        if not self._unread:
            sources.append(self._end)
        wants = [self._cable] if self._unread else []
        ready, writable, _ = select.select(sources, wants, [], 0.1)
        bites = self._watchdog_end is not None and time.monotonic() > self._watchdog_end
        if bites or self.pressed:
            self.pressed = False
            self._kill()
            self._hard_reset()
            return
        if writable or self._unread:
            self._flush()
        if self._end in ready:
            try:
                data = os.read(self._end, 4096)
            except OSError:
                data = b""
            if data:
                self._from_board(data)
            else:
                self._ended()
            if self._resets:
                self._kill()
                self._hard_reset()
                return
        # After what it says: a reset takes with it what was typed before, nothing else.
        if self._cable in ready:
            with contextlib.suppress(BlockingIOError):  # it was flushed
                self._typed_in(os.read(self._cable, 4096))

    def counted(self) -> tuple[int, int]:
        """Return bytes and operations that there were, where the power fails after many."""
        if self._left is None or self._operations is None:
            return 0, 0
        return self._told["bytes"] - self._left, self._told["operations"] - self._operations

    def close(self) -> None:
        """Switch it off."""
        with contextlib.suppress(OSError, AttributeError):  # it was not on
            self._kill()
        with contextlib.suppress(OSError):
            self._detach()


class Board:
    """A simulator in a process of its own: a board that is switched on, while in the block."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self.folder = folder
        line = [sys.executable, __file__, str(folder), json.dumps({**told, "waits": True})]
        #: Bytes over the cable and operations on files, in the end, if it was told of both.
        self.counted: tuple[int, ...] = ()
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().decode().strip()
        assert self.port
        # While this is open, no other terminal gets the port's name, not even when the power has
        # failed: who still believes in the board would type into that one, and read from it.
        self._held = os.open(self.port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def press_reset(self) -> None:
        """Press its reset button."""
        self._process.send_signal(signal.SIGUSR1)

    def lost_power(self, patience: float = 10) -> bool:
        """Tell whether it has lost its power, or is losing it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        return self._process.returncode is not None

    def prints(self, pattern: str, patience: float = 40) -> re.Match[str]:
        """Wait until it prints something, and return that."""
        end = time.monotonic() + patience
        text = b""
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError):  # its port goes and comes
                file = os.open(self.port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
                try:
                    if select.select([file], [], [], 0.1)[0]:
                        text += os.read(file, 4096)
                finally:
                    os.close(file)
            if found := re.search(pattern, text.decode(errors="replace")):
                return found
        why = f"the board did not print {pattern!r}, but {text.decode(errors='replace')!r}"
        if self._process.returncode is not None:
            why += f"; its simulator ended: {self._process.returncode}"
        raise AssertionError(why)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        said, _ = self._process.communicate(timeout=10)
        os.close(self._held)
        self.counted = tuple(int(word) for word in said.split())


def main() -> None:
    """Be a board until it is killed, or the power fails."""
    folder, *rest = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    simulator = Simulator(Path(folder), **json.loads(rest[0] if rest else "{}"))
    signal.signal(signal.SIGUSR1, lambda *_: setattr(simulator, "pressed", True))
    try:
        print(simulator.port, flush=True)
        simulator.run()
    except KeyboardInterrupt:
        pass
    finally:
        simulator.close()
        print(*simulator.counted())


if __name__ == "__main__":
    main()
