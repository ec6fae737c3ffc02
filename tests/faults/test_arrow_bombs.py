"""Arrow that wants memory which it has not, or is none: refused within the cap, by the desktop.

On the device Arrow is bytes that are passed on: nothing there reads it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import arrow_bombs
from arrow_bombs import CAP
from command import Broker, Runner
from figures import Figures
from natsbridge import sync
from scale import runs

RECEIVER = Path(__file__).with_name("arrow_receiver.py")
CODES = ("DESERIALIZATION_ERROR", "PAYLOAD_TOO_LARGE")
FORMS = ("parquet", "csv", "arrow", "json")
#: Bytes that the receiver may take in all: what came, in base64 and out of it, and a table.
MEMORY = 8 * CAP
#: Bytes that its memory may rise by for what is refused.
RISE = 8 << 20
#: Seconds for one of them, on a busy machine too.
PATIENCE_S = 10

#: Bombs that the command's --tables takes for tables: they are not over its 64 MiB.
SMALL = (
    *("columns-in-zstd", "batches-in-zstd", "text-in-zstd"),
    *("dictionary-in-zstd", "dictionary-in-lz4"),
)
BOMBS = arrow_bombs.bombs()
FORGED = arrow_bombs.forged()


class Outcome(NamedTuple):
    """A code or a number; seconds; bytes."""

    result: Any
    seconds: float
    rise: int


class Receiver:
    """A process that receives tables, and starts again if one has killed it."""

    def __init__(self, folder: Path, memory: int) -> None:
        self._folder = folder
        self._memory = memory
        self._process: subprocess.Popen[str] | None = None

    def _answer(self, seconds: float) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            code = self._process.poll()
            self.close()
            pytest.fail(f"the receiver said nothing for {seconds} s, and its exit code is {code}")
        return json.loads(line)

    def __call__(self, data: bytes, form: str = "", limit: int = CAP) -> Outcome:
        path = self._folder / "d.arrow"
        if self._process is None:
            path.write_bytes(arrow_bombs.PLAIN)
            self._process = subprocess.Popen(
                [sys.executable, str(RECEIVER), str(self._memory), str(path)],
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # One heap, which gives back what it does not need.
                env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"},
            )
            assert self._answer(60) == "ready"
        path.write_bytes(data)
        assert self._process.stdin is not None
        print(
            json.dumps({"path": str(path), "form": form, "limit": limit}), file=self._process.stdin
        )
        self._process.stdin.flush()
        return Outcome(*self._answer(PATIENCE_S))

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=PATIENCE_S)
            self._process = None


@pytest.fixture(scope="module")
def receive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Receives into memory."""
    receiver = Receiver(tmp_path_factory.mktemp("arrow"), MEMORY)
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Makes files of tables, as `natsbridge receive --tables` does."""
    receiver = Receiver(tmp_path_factory.mktemp("files"), MEMORY)
    yield receiver
    receiver.close()


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_as_too_large(receive: Receiver, name: str) -> None:
    got = receive(BOMBS[name])
    assert got.result == "PAYLOAD_TOO_LARGE"
    assert got.rise < RISE


@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_is_refused(receive: Receiver, name: str) -> None:
    got = receive(FORGED[name])
    assert got.result in CODES
    assert got.rise < RISE


def test_lies_that_nobody_reads_cost_nothing(receive: Receiver, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, (data, rows) in arrow_bombs.harmless(canary).items():
        got = receive(data)
        assert got.result == rows, name
        # What came, whole and in base64, and what pyarrow makes of the schema.
        assert got.rise < RISE + 6 * len(data), name
    assert not canary.exists()


def test_a_cap_is_one_to_the_byte(receive: Receiver) -> None:
    receive.close()  # another one, which keeps no memory of tables before
    data = arrow_bombs.stream(arrow_bombs.column(arrow_bombs.zeros(CAP)), compression="zstd")
    got = receive(data)
    assert got.result == CAP
    assert got.rise > CAP / 2  # it is measured
    assert receive(data, limit=CAP - 1).result == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("form", FORMS[: runs(1, len(FORMS))])
def test_no_file_is_made_of_what_is_refused(convert: Receiver, form: str) -> None:
    """Then it is saved as it came."""
    for name, data in {**FORGED, **BOMBS}.items():
        if name not in SMALL:
            got = convert(data, form)
            assert got.result in CODES, name
            assert got.rise < RISE, name


def test_the_command_saves_as_it_came_what_is_no_table(natsbridge: Runner, broker: Broker) -> None:
    tables = {name: data for name, data in {**FORGED, **BOMBS}.items() if name not in SMALL}
    process = natsbridge.start("receive", "arrow", "--count=2", "--tables=parquet", "--out=out")
    broker.heard(process, subject="arrow")
    whole = [(name, data, "arrowtable") for name, data in tables.items()]
    for part in (whole[:50], whole[50:]):
        sync.smartsend("arrow", part, broker_url=broker.url, size_threshold=1 << 20)
    process.ended()
    for name, data in tables.items():
        assert (natsbridge.cwd / "out" / f"{name}.arrow").read_bytes() == data


def test_bounds_of_memory_and_time(receive: Receiver, figures: Figures) -> None:
    refused = [receive(data) for data in (*BOMBS.values(), *FORGED.values())]
    seconds = max(got.seconds for got in refused)
    rise = max(got.rise for got in refused)
    assert all(got.result in CODES for got in refused)
    assert rise < RISE
    figures.note(
        13,
        "desktop",
        f"{len(BOMBS)} bombs and {len(FORGED)} forgeries refused, each within {seconds:.2f} s,"
        f" RSS up by {rise / 1e6:.1f} MB at most",
    )
