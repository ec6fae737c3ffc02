"""make demo, as a person runs it, interrupts it and kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, str(ROOT / "tools" / "demo.py")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=60)


def children(mark: str) -> list[str]:
    """The command lines of the processes whose environment has MARK=`mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return [line for line in found if line]


def test_the_demo_completes_and_everything_is_identical() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("identical") == 9
    assert "link    5,000,000 B" in done.stdout
    assert "ACK to correlation id" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "\x1b" not in done.stdout


def test_the_demo_sends_a_file_of_yours(tmp_path: Path) -> None:
    own = tmp_path / "my photo.jpg"
    own.write_bytes(os.urandom(123_456))
    done = run(str(own))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my photo.jpg" in done.stdout


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    done = run(str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "there is no file" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "after_s"),
    [  # each signal at two times, each time once; the others take long
        pytest.param(number, after_s, marks=[] if (i - j) % 3 == 0 else pytest.mark.long)
        for i, number in enumerate(SIGNALS)
        for j, after_s in enumerate(TIMES)
    ],
)
def test_interrupted_at_any_point_it_leaves_no_process(
    number: signal.Signals, after_s: float
) -> None:
    mark = f"{number}-{after_s}-{os.getpid()}"
    demo = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MARK": mark},
    )
    time.sleep(after_s)
    demo.send_signal(number)
    out, _ = demo.communicate(timeout=20)
    deadline = time.monotonic() + 5
    while children(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children(mark) == []
    # On a busy machine CPython is not ready by then: before the demo's first line it tells itself.
    assert "Traceback" not in out or out.startswith("Fatal Python error: init_")
