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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("sent")
    (tmp_path / "image").write_bytes(bytes(range(256)) * 40)
    table = pa.table({"a": [1, 2, None], "b": ["x", "ü", "z"]})
    with pa.ipc.new_stream(tmp_path / "arrow", table.schema) as stream:
        stream.write_table(table)
    return tmp_path


Arguments = tuple[str, str, str]


@pytest.fixture(scope="module")
def arguments(nats_url: str, file_url: str, folder: Path) -> Arguments:
    """What the scripts are called with."""
    return nats_url, file_url, str(folder)


@pytest.fixture(scope="module")
def received(arguments: Arguments) -> dict[tuple[str, str], list[Any]]:
    """What is received, by sender and receiver."""
    return {(by, to): exchange(by, to, *arguments) for by in SIDES for to in SIDES}


@pytest.mark.parametrize("receiver", SIDES)
def test_what_either_side_sends_is_received_alike(
    receiver: str, received: dict[tuple[str, str], list[Any]]
) -> None:
    from_firmware, from_host = (received[sender, receiver] for sender in SIDES)
    assert from_firmware == from_host
    assert [(links, gone) for _, links, gone in from_host] == [
        *((0, 0), (8, 0), (2, 0), (0, 0)),
        *((1, 1), (1, 0)),  # only what was for the receiver alone was consumed
    ]


def test_both_sides_receive_the_same(received: dict[tuple[str, str], list[Any]]) -> None:
    on_firmware, on_host = (received["host", receiver] for receiver in SIDES)
    text = json.dumps(on_host)
    assert text.count('"a table"') == 3
    assert on_firmware == json.loads(text.replace('"a table"', "true"))


@pytest.mark.parametrize("rough", ["1", "2:bytes"])
def test_sockets_as_rough_as_a_boards_make_no_difference(
    rough: str,
    arguments: Arguments,
    received: dict[tuple[str, str], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In every call; `make test-rough` has the whole suite pass through them."""
    monkeypatch.setenv(ROUGH, rough)
    expected = received["host", "host"]
    assert exchange("firmware", "host", *arguments) == expected
    text = json.dumps(expected).replace('"a table"', "true")
    assert exchange("firmware", "firmware", *arguments) == json.loads(text)
