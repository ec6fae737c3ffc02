"""Temporary files: what a power cut left is removed at the next start, a running process's never;
and timestamps: right whatever the port's epoch, and honest where the clock was never set."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from device import MICROPYTHON
from harness import compiled, run_micropython

RECEIVE = """
import os, sys
import natsbridge
from natsbridge.sink import Sink

if BOARD:
    from natsbridge import leftovers

    class Board:  # os as on a board: no environment, and no /proc beside the folder
        ilistdir = os.ilistdir
        remove = os.remove
        stat = os.stat
        rename = os.rename
    leftovers.os = Board
    leftovers.start = lambda pid: None

sink = Sink(sys.argv[1], None, None)
target = sink.temporary()
target.write(b"x")
print(target.path)
again = Sink(sys.argv[1], None, None).temporary()
print(sorted(entry[0] for entry in os.ilistdir(sys.argv[1])) == sorted(
    p.split("/")[-1] for p in KEPT + [target.path, again.path]))
"""


def left(folder: Path, run: str) -> Path:
    path = folder / f".nb-{run}-01234567.part"
    path.write_bytes(b"half")
    return path


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def receive(folder: Path, kept: list[Path], board: bool = False) -> None:
    kept_text = repr([str(path) for path in kept])
    out = run_micropython(f"BOARD = {board}\nKEPT = {kept_text}\n" + RECEIVE, str(folder))
    assert out.splitlines()[1] == "True", [p.name for p in folder.iterdir()]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to know processes")
def test_leftovers_of_ended_processes_go_those_of_running_ones_stay(tmp_path: Path) -> None:
    running = subprocess.Popen([MICROPYTHON, "-c", "import time; time.sleep(60)"])
    try:
        theirs = left(tmp_path, f"{running.pid}-{start_time(running.pid)}")
        reused = left(tmp_path, f"{running.pid}-1")  # the same number, another process
        other = tmp_path / ".notes.part"
        other.write_bytes(b"the user's own")
        receive(tmp_path, [theirs, other])
        assert not reused.exists()
    finally:
        running.kill()
        running.wait()
    receive(tmp_path, [other])


def test_on_a_board_all_that_is_not_of_this_start_goes(tmp_path: Path) -> None:
    left(tmp_path, "0-deadbeef")
    left(tmp_path, "1-1")
    receive(tmp_path, [], board=True)


def test_a_power_cut_leaves_nothing_after_the_next_message(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    """Killed half-way through a download; the next one cleans up, and its file is whole."""
    script = """
import sys
import natsbridge
nc = natsbridge.connect(sys.argv[1])
sub = nc.subscribe("cut")
natsbridge.smartsend("cut", [("a.bin", bytes(30000), "binary")], nats_connection=nc,
                     fileserver_url=sys.argv[2], size_threshold=1)
def progress(name, done, total):
    if CUT and done > 10000:
        import os
        os.system("kill -9 $PPID")
env = natsbridge.smartreceive(sub.next(5), sink=sys.argv[3], fileserver_url=sys.argv[2],
                              on_progress=progress)
print(env["payloads"][0][1])
"""
    folder = tmp_path / "in"
    folder.mkdir()
    cut = tmp_path / "cut.py"
    cut.write_text("CUT = True\n" + script)
    done = subprocess.run(
        [MICROPYTHON, str(cut), nats_url, file_url, str(folder)],
        env={"MICROPYPATH": f"{compiled()}:.frozen"},
        timeout=30,
    )
    assert done.returncode == -9
    assert [p.suffix for p in folder.iterdir()] == [".part"]
    out = run_micropython("CUT = False\n" + script, nats_url, file_url, str(folder), heap="128K")
    assert [str(p) for p in folder.iterdir()] == [out.strip()]
    assert Path(out.strip()).read_bytes() == bytes(30000)


CLOCK = """
import sys, time
import natsbridge, natsbridge.log

NOW = 1773385370443  # 2026-03-13T07:02:50.443Z, in ms since 1970
EPOCH = {"1970": 0, "2000": 946684800, "unset": NOW // 1000 - 60}[sys.argv[2]]
# A board whose clock was never set is at its epoch, or at 2021 (RP2).

class Clock:  # time as on a port with that epoch
    def time_ns():
        return (NOW - EPOCH * 1000) * 1000000
    def gmtime(s):
        return time.gmtime(s + (EPOCH if sys.argv[2] != "unset" else 946684800))

natsbridge.log.time = Clock
nc = natsbridge.connect(sys.argv[1])
mine = {"a": 1}
env, _ = natsbridge.smartsend("clock", [], metadata=mine, nats_connection=nc)
print(env["timestamp"], env["metadata"] == mine, env["metadata"].get("clock"), mine)
"""


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        ("1970", "2026-03-13T07:02:50.443Z True None {'a': 1}"),
        ("2000", "2026-03-13T07:02:50.443Z True None {'a': 1}"),
        ("unset", "2000-01-01T00:01:00.443Z False unset {'a': 1}"),
    ],
)
def test_timestamps_are_right_or_say_that_they_are_not(
    nats_url: str, epoch: str, expected: str
) -> None:
    assert run_micropython(CLOCK, nats_url, epoch, heap="128K").strip() == expected
