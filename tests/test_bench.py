"""make bench measures everything that it is to measure. How fast that is, no test can say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from test_demo import children

ROOT = Path(__file__).parent.parent
RATIOS = [
    "send direct 99,999 B",
    "send direct 499,999 B",
    "receive direct 99,999 B",
    "receive direct 499,999 B",
    "publish 16 B",
    "receive 16 B",
    "MQTT QoS 1 to umqtt 16 B",
    "acknowledged send 16 B",
    "upload 1 MB",
    "download 1 MB",
]
MESSAGING = ["NATSBridge", "micro-nats 1.0.2", "umqtt.simple 1.1"]
FILES = ["NATSBridge", "requests"]
ALONE = (
    *("send direct 499,999 B", "receive direct 499,999 B", "MQTT QoS 1 to umqtt 16 B"),
    "acknowledged send 16 B",
)
BESIDE = {title: FILES if "MB" in title else MESSAGING for title in RATIOS if title not in ALONE}


DESKTOP = [
    "direct 100 B",
    "direct 10,000 B",
    "direct 400,000 B",
    "upload 1 MB",
    "download 1 MB",
]


def short_run(program: str, **environment: str) -> str:
    """What a bench prints; it leaves no process."""
    mark = f"bench-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / program), "--quick", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment, "MARK": mark},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    deadline = time.monotonic() + 5
    while children(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children(mark) == []
    return done.stdout


def test_umqtt_waits_a_few_times_in_a_round() -> None:
    """40 ms each: more would take longer than a round may."""
    code = (
        "import bench as b; print([b.share(j, b.UMQTT).count for j in b.JOBS if j.bare == b.UMQTT])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True
    )
    assert done.stdout == "[5]\n", done.stderr


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_short_run_of_the_desktop_has_every_row_and_loses_nothing() -> None:
    text = short_run("bench_host.py")
    rows = [line for line in text.splitlines() if line.endswith((" ok", "below goal"))]
    assert [row[:25].rstrip() for row in rows[:-1]] == DESKTOP
    assert all(float(row[46:52]) > 0 for row in rows[:-1])
    assert "500 messages of 1 KB to one `natsbridge receive`:\n500 arrived, 500 as sent" in text
    assert rows[-1].endswith("msg/s: ok")


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.long
def test_without_curl_the_desktops_files_are_not_measured(tmp_path: Path) -> None:
    text = short_run("bench_host.py", PATH=str(tmp_path))
    assert "not measured, as curl or sha256sum is missing" in text
    assert "upload 1 MB" not in text


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.long
def test_a_short_run_has_every_row_and_leaves_no_process() -> None:
    ratios, _, heaps = short_run("bench.py").partition("\nCode: ")

    rows = [line for line in ratios.splitlines() if line.endswith(("ok", "below goal"))]
    assert [row[:25].rstrip() for row in rows] == RATIOS
    assert all(float(row[46:52]) > 0 for row in rows)

    beside: dict[str, list[str]] = {}
    for line in heaps.partition("rate\n")[2].splitlines():
        if not line.startswith("  "):
            beside[line] = names = []
        else:
            names.append(line[2:42].partition(" (in ")[0].rstrip())
            assert line.endswith(("MB/s", "msg/s")) or "can't: " in line
    assert beside == BESIDE
    assert "can't" not in "".join(line for line in heaps.splitlines() if "NATSBridge" in line)
