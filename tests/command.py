"""The command `natsbridge` as its users run it: a process, its output and its exit code."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from rich.cells import cell_len

from natsbridge.cli.group import group

#: Seconds that any one step of a test may take, on a busy machine too.
PATIENCE = 40
COMMAND = (sys.executable, "-m", "natsbridge")
#: What would change the command's defaults or its output.
_OURS = re.compile(
    "NATS_.*|FILESERVER_URL|SIZE_THRESHOLD|NATSBRIDGE_.*|WIFI_.*|DEVICE_.*|NO_COLOR|FORCE_COLOR"
    "|COLUMNS|TERM"
)


def until(true: Callable[[], Any], what: str = "it") -> Any:
    """Wait for `true` to return something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (value := true()):
        assert time.monotonic() < deadline, f"{what} took too long"
        time.sleep(0.02)
    return value


class Ended:
    """What a command that has ended said."""

    code: int
    out: str
    err: str

    def wait(self) -> Any:
        return self

    def ended(self, code: int = 0) -> Any:
        """Wait for its end, which must have this code and no traceback."""
        self.wait()
        assert self.code == code, (self.code, self.out, self.err)
        assert "Traceback" not in self.out + self.err, self.err
        return self

    def failed(self, *words: str, code: int = 1) -> str:
        """Wait for its end in an error of one line with these words, and return that."""
        self.ended(code)
        assert len(self.err.splitlines()) == 1, self.err
        for word in words:
            assert word in self.err, self.err
        return self.err

    @property
    def records(self) -> list[dict[str, Any]]:
        """What --json printed, but for the line that says that it listens."""
        found = [json.loads(line) for line in self.out.splitlines()]
        return [r for r in found if not r.keys() & {"listening", "watching"}]


class Inside(Ended):
    """A command that ran in this process: many fit into the second that a process takes."""

    def __init__(self, result: Result) -> None:
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr


class Process(Ended):
    """A running command; its output goes to files, so that it never waits for us."""

    def __init__(
        self, line: Sequence[str], folder: Path, environ: dict[str, str], **options: Any
    ) -> None:
        number = len(list(folder.glob("*.stdout")))
        self._files = [folder / f"{number}.stdout", folder / f"{number}.stderr"]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options}
            self.process = subprocess.Popen(line, env=environ, **options)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int:  # type: ignore[override]
        return self.process.returncode

    @property
    def out(self) -> str:  # type: ignore[override]
        return self._files[0].read_bytes().decode()

    @property
    def err(self) -> str:  # type: ignore[override]
        return self._files[1].read_bytes().decode()

    def wait(self) -> Process:
        """Wait for its end."""
        self.process.wait(PATIENCE)
        return self

    def says(self, text: str) -> Process:
        """Wait until it has printed something, to stdout or stderr."""
        until(lambda: text in self.out + self.err or self.process.poll() is not None, text)
        assert text in self.out + self.err, (self.process.poll(), self.out, self.err)
        return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> Process:
        """Send a signal and wait for its end."""
        self.process.send_signal(number)
        return self.wait()


class Runner:
    """Starts commands in `cwd`; all have ended when it is closed."""

    def __init__(self, cwd: Path, logs: Path, **environ: str) -> None:
        self.cwd = cwd
        self._logs = logs
        kept = {k: v for k, v in os.environ.items() if not _OURS.fullmatch(k)}
        self.environ = {**kept, **environ}
        self._all: list[Process] = []

    def start(
        self,
        *arguments: object,
        environ: dict[str, str] | None = None,
        line: Sequence[str] = COMMAND,
        **options: Any,
    ) -> Process:
        """Start `natsbridge ARGUMENTS`."""
        both = {**self.environ, **(environ or {})}
        words = [*line, *map(str, arguments)]
        process = Process(words, self._logs, both, **{"cwd": self.cwd, **options})
        self._all.append(process)
        return process

    def __call__(self, *arguments: object, **options: Any) -> Process:
        """Run `natsbridge ARGUMENTS` to its end."""
        return self.start(*arguments, **options).wait()

    def inside(self, *arguments: object, environ: dict[str, str] | None = None) -> Inside:
        """Run `natsbridge ARGUMENTS` in this process."""
        both: dict[str, str | None] = {k: None for k in os.environ if _OURS.fullmatch(k)}
        both.update(self.environ)
        both.update(environ or {})
        words = list(map(str, arguments))
        before = Path.cwd()
        os.chdir(self.cwd)
        try:
            return Inside(CliRunner().invoke(group, words, prog_name="natsbridge", env=both))
        finally:
            os.chdir(before)

    def close(self) -> None:
        for p in self._all:
            if p.process.poll() is None:
                p.process.kill()
                p.process.wait(PATIENCE)

    def on_terminal(
        self,
        *arguments: object,
        environ: dict[str, str] | None = None,
        typed: Sequence[tuple[str, str]] = (),
        until_: str = "",
        **options: Any,
    ) -> tuple[int, str]:
        """Run it on a terminal of 80 columns: its exit code and all that came there.

        Of `typed`, each second is typed once its first has come; Ctrl-C, once `until_` has.
        """
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

        def session() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        terminal = dict.fromkeys(("stdin", "stdout", "stderr"), side)
        both = {"TERM": "xterm-256color", **(environ or {})}
        p = self.start(*arguments, environ=both, preexec_fn=session, **terminal, **options)
        os.close(side)
        got = b""
        seen = 0
        deadline = time.monotonic() + PATIENCE
        waiting = [*typed, *([(until_, "\x03")] if until_ else [])]
        while time.monotonic() < deadline:
            if waiting and (at := got.find(waiting[0][0].encode(), seen)) >= 0:
                seen = at + len(waiting[0][0])
                text = waiting.pop(0)[1]
                if text == "\x03":
                    time.sleep(0.3)  # as people do: just before it reads, it would wait for Enter
                os.write(main, text.encode())
            if not select.select([main], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            got += data
        os.close(main)
        p.wait()
        return p.code, got.decode()


class Broker:
    """What a nats-server knows of its subscribers; started with `-m -1`."""

    def __init__(self, url: str, monitor: str) -> None:
        self.url = url
        self._monitor = monitor

    def listeners(self, subject: str) -> int:
        """Return how many subscribe to exactly `subject`."""
        with urllib.request.urlopen(f"{self._monitor}/subsz?subs=1&limit=4096") as answer:
            found = json.load(answer).get("subscriptions_list", [])
        return sum(s["subject"] == subject for s in found)

    def heard(self, *processes: Process, subject: str) -> None:
        """Wait until all these processes listen on `subject`."""

        def listen() -> bool:
            for p in processes:
                assert p.process.poll() is None, (p.code, p.out, p.err)
            return self.listeners(subject) >= len(processes)

        until(listen, f"listening on {subject}")


def lines_of_screen(text: str) -> list[str]:
    """Return what a terminal shows in the end: enough of one for what rich writes."""
    lines, row, col = [""], 0, 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", text):
        if part == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif part == "\r":
            col = 0
        elif part.endswith("A") and part.startswith("\x1b["):
            row -= int(part[2:-1] or 1)
        elif part.startswith("\x1b[") and part.endswith("K"):
            lines[row] = "" if part == "\x1b[2K" else lines[row][:col]
        elif not part.startswith("\x1b["):
            lines[row] = lines[row][:col].ljust(col) + part + lines[row][col + len(part) :]
            col += len(part)
    return lines


def colours(text: str) -> bool:
    """Tell whether a colour is set: 30 to 37 and 90 to 97."""
    codes = [n for m in re.findall(r"\x1b\[([0-9;]*)m", text) for n in m.split(";") if n]
    return any(30 <= int(n) <= 37 or 90 <= int(n) <= 97 for n in codes)


def cells(line: str) -> int:
    """Return how wide a line is on a terminal."""
    return cell_len(line)


def fits(lines: Sequence[str]) -> None:
    """Check that no line is longer than 80 columns, except for URLs and paths."""
    for line in lines:
        rest = [word for word in line.split() if "/" not in word]
        assert len(line) <= 80 or len(" ".join(rest)) <= 60, line
