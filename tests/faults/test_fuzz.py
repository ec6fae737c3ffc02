"""Whatever a broker, a sender or a file server says, there is a documented error, and soon.

A failure prints the input: add it to the target's file in corpus/.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import parsers_device as parsers
from device import FIRMWARE, main_of, micropython
from figures import Figures
from fuzz import LIMIT_S
from fuzz_targets import TARGETS
from mutator import Mutator
from scale import SEED, dice, runs

HERE = Path(__file__).parent
MPY = FIRMWARE.parent / "build" / "firmware"
TOTAL = runs(5_000, 10_000_000, 1_000_000)
#: Of each 10,000 inputs.
SHARES = {
    **{"nats": 4000, "envelope": 1500, "http": 1200, "upload": 400, "both": 300},
    **{"host nats": 400, "host envelope": 1500, "host headers": 500, "host http": 150},
    **{"host upload": 50},
}
#: Inputs of one process.
MOST = 100_000
ON_DEVICE = runs(200, 100_000, 5_000)
DEVICE_SHARES = {"nats": 0.4, "envelope": 0.3, "http": 0.2, "upload": 0.1}
#: Less does not hold the parsers beside the test's own code.
HEAPS = ("80K", "96K", "256K")
#: Seconds that a process may take.
PATIENCE_S = 1800


def jobs() -> Iterator[tuple[str, list[str]]]:
    """The seed and the targets of each process: each target's inputs, the firmware's and the host's
    apart where they are few."""
    if TOTAL <= MOST:
        counts = [f"{name}={TOTAL * share // 10_000}" for name, share in SHARES.items()]
        yield SEED, counts[:5]
        yield SEED, counts[5:]
        return
    for name, share in SHARES.items():
        left = TOTAL * share // 10_000
        while left:
            count = min(left, MOST)
            left -= count
            yield f"{SEED}.{left}", [f"{name}={count}"]


def run(job: tuple[str, list[str]]) -> dict[str, Any]:
    line = [sys.executable, str(HERE / "fuzz.py"), job[0], *job[1]]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def fuzzed(figures: Figures) -> dict[str, dict[str, Any]]:
    """What came of all inputs, by target."""
    start = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(run, jobs()):
            for name, one in found.items():
                if name not in results:
                    results[name] = {**one, "labels": Counter(one["labels"])}
                    continue
                all_of_it = results[name]
                all_of_it["inputs"] += one["inputs"]
                all_of_it["labels"].update(one["labels"])
                all_of_it["failures"].update(one["failures"])
                all_of_it["slowest"] = max(all_of_it["slowest"], one["slowest"])
    inputs = sum(one["inputs"] for one in results.values())
    failures = sum(len(one["failures"]) for one in results.values())
    slowest = max(one["slowest"] for one in results.values())
    rate = inputs / (time.monotonic() - start)
    figures.note(
        2,
        "fuzzing",
        f"{inputs:,} inputs to {len(results)} parsers of both sides, {rate:,.0f}/s: {failures}"
        f" faults, the slowest {slowest * 1000:.0f} ms",
        met=not failures and slowest < LIMIT_S and inputs == TOTAL,
    )
    return results


@pytest.mark.parametrize("name", SHARES)
def test_no_input_gives_another_error_than_is_documented(
    name: str, fuzzed: dict[str, dict[str, Any]]
) -> None:
    failures = fuzzed[name]["failures"]
    assert not failures, "\n".join(f"{f['input']}\n{f['error']}" for f in failures.values())
    assert fuzzed[name]["inputs"] == TOTAL * SHARES[name] // 10_000


@pytest.mark.parametrize("name", SHARES)
def test_no_input_takes_a_second(name: str, fuzzed: dict[str, dict[str, Any]]) -> None:
    assert fuzzed[name]["slowest"] < LIMIT_S


@pytest.mark.parametrize("name", SHARES)
def test_some_inputs_are_taken_and_some_are_not(
    name: str, fuzzed: dict[str, dict[str, Any]]
) -> None:
    labels = fuzzed[name]["labels"]
    assert len(labels) > 1
    assert sum(labels[label] for label in ("taken", "whole")) > fuzzed[name]["inputs"] / 100


def device(target: str, inputs: list[tuple[int, bytes]], heap: str, folder: Path) -> list[str]:
    """What a device prints of these inputs."""
    folder.mkdir(exist_ok=True)
    main_of(HERE / "parsers_device.py", folder)
    main = main_of(HERE / "fuzz_device.py", folder)
    path = folder / "inputs"
    path.write_text("".join(f"{size},{data.hex()}\n" for size, data in inputs))
    with micropython(main, target, str(path), heap=heap, path=MPY) as process:
        out, _ = process.communicate(timeout=PATIENCE_S)
    lines = out.splitlines()
    assert process.returncode == 0, (lines[-8:], f"with {heap}, after about {len(lines)} inputs")
    assert len(lines) == len(inputs) + 1
    return lines


@pytest.fixture(scope="module")
def on_device(request: pytest.FixtureRequest, figures: Figures) -> Iterator[Counter[str]]:
    """Counts the inputs and the ms of the slowest, for the figure."""
    before = request.session.testsfailed
    count: Counter[str] = Counter()
    yield count
    figures.note(
        2,
        "fuzzing-device",
        f"unix port: {count['inputs']:,} inputs, the slowest {count['slowest']} ms",
        met=request.session.testsfailed == before,
    )


@pytest.mark.parametrize("target", DEVICE_SHARES)
def test_no_input_gives_another_error_on_the_device_nor_takes_a_second(
    target: str, tmp_path: Path, on_device: Counter[str]
) -> None:
    rng = dice(f"device {target}")
    mutate = Mutator(TARGETS[target].seeds(), TARGETS[target].tokens, rng)
    left, turn = round(ON_DEVICE * DEVICE_SHARES[target]), rng.randrange(4)
    known = {"taken", *parsers.CODES, "UPLOAD_FAILED"}
    while left:
        inputs = [(rng.choice((0, 0, 1, 7, 50)), mutate()) for _ in range(min(left, 2000))]
        left -= len(inputs)
        turn += 1
        *results, last = device(target, inputs, HEAPS[turn % len(HEAPS)], tmp_path / "device")
        bad = [(i, r) for i, r in zip(inputs, results, strict=True) if r not in known]
        assert not bad, bad[:5]
        on_device["inputs"] += len(inputs)
        on_device["slowest"] = max(on_device["slowest"], int(last))
        assert int(last) < 1000
