"""What one side sends, the other receives: firmware and host, in all four directions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from device import ROUGH, Process, micropython

SCRIPT = Path(__file__).with_name("cross_device.py")
SIDES = ("firmware", "host")


def start(side: str, what: str, *arguments: str) -> Process:
    if side == "firmware":
        return micropython(SCRIPT, what, *arguments, heap="1M")
    command = [sys.executable, "-u", str(SCRIPT), what, *arguments]
    return Process(command, stdout=subprocess.PIPE, text=True)


def exchange(sender: str, receiver: str, *arguments: str) -> list[Any]:
    """What `receiver` prints of each message that `sender` sends."""
    with start(receiver, "receive", *arguments) as to:
        assert to.stdout is not None
        assert to.stdout.readline() == "ready\n"
        with start(sender, "send", *arguments) as by:
            assert by.rest(30) == ""
        out = to.rest(30)
    return [json.loads(line) for line in out.split("\n") if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image").write_bytes(bytes(range(256)) * 40)
    table = pa.table({"a": [1, 2, None], "b": ["x", "ü", "z"]})
    with pa.ipc.new_stream(tmp_path / "arrow", table.schema) as stream:
        stream.write_table(table)
    return tmp_path


@pytest.mark.parametrize("receiver", SIDES)
def test_what_either_side_sends_is_received_alike(
    receiver: str, nats_url: str, file_url: str, folder: Path
) -> None:
    arguments = (nats_url, file_url, str(folder))
    from_firmware, from_host = (exchange(sender, receiver, *arguments) for sender in SIDES)
    assert from_firmware == from_host
    assert [(links, gone) for _, links, gone in from_host] == [
        *((0, 0), (8, 0), (2, 0), (0, 0)),
        *((1, 1), (1, 0)),  # only what was for the receiver alone was consumed
    ]


def test_both_sides_receive_the_same(nats_url: str, file_url: str, folder: Path) -> None:
    arguments = (nats_url, file_url, str(folder))
    on_firmware, on_host = (exchange("host", receiver, *arguments) for receiver in SIDES)
    text = json.dumps(on_host)
    assert text.count('"a table"') == 3
    assert on_firmware == json.loads(text.replace('"a table"', "true"))


@pytest.mark.parametrize("rough", ["1", "2:bytes"])
def test_sockets_as_rough_as_a_boards_make_no_difference(
    rough: str, nats_url: str, file_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every call; `make test-rough` has the whole suite pass through them."""
    monkeypatch.setenv(ROUGH, rough)
    arguments = (nats_url, file_url, str(folder))
    expected = exchange("host", "host", *arguments)
    assert exchange("firmware", "host", *arguments) == expected
    text = json.dumps(expected).replace('"a table"', "true")
    assert exchange("firmware", "firmware", *arguments) == json.loads(text)
