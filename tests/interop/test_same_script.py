"""The same script gives the same results and errors on the firmware and through natsbridge.sync."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device import micropython

SCRIPT = Path(__file__).with_name("script_device.py")


@pytest.fixture(scope="module")
def results(
    nats_url: str, file_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the firmware and the host print, step by step."""
    both = []
    for side in ("firmware", "host"):
        folder = tmp_path_factory.mktemp(side)
        arguments = (nats_url, file_url, str(folder))
        if side == "firmware":
            process = micropython(SCRIPT, *arguments, heap="8M")
        else:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE, text=True
            )
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out[-3000:]
        lines = [json.loads(line) for line in out.splitlines()]
        assert len(dict(lines)) == len(lines), "two steps of one name"
        both.append(dict(lines))
    return both[0], both[1]


def test_both_sides_take_every_step(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    firmware, host = results
    assert list(firmware) == list(host)
    assert len(firmware) > 90


def test_results_and_errors_are_the_same(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    firmware, host = results
    differences = {
        name: {"firmware": firmware[name], "host": host.get(name)}
        for name in firmware
        if firmware[name] != host.get(name)
    }
    assert differences == {}, json.dumps(differences, indent=0)


def test_no_error_is_without_a_message(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for side in results:
        assert [name for name, r in side.items() if r[0] == "error" and not r[2]] == []
