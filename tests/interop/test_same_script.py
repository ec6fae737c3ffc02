"""The same script gives the same results and errors on the firmware and through natsbridge.sync."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from device import micropython
from natsbridge import sync

SCRIPT = Path(__file__).with_name("script_device.py")


def echo(nats_url: str, running: threading.Event) -> None:
    """Answer requests on interop.echo."""
    with sync.connect(nats_url) as nc, nc.subscribe("interop.echo") as requests:
        running.set()
        while running.is_set():
            msg = requests.next(0.1)
            if msg is not None:
                nc.publish(msg.reply, msg.data)


def steps(side: str, nats_url: str, file_url: str, folder: Path) -> dict[str, Any]:
    """Run the script on one side: what it prints."""
    arguments = (nats_url, file_url, str(folder))
    if side == "firmware":
        process = micropython(SCRIPT, *arguments, heap="8M")
    else:
        process = subprocess.Popen(
            [sys.executable, "-u", str(SCRIPT), *arguments], stdout=subprocess.PIPE, text=True
        )
    try:
        out, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    assert process.returncode == 0, out[-3000:]
    lines = [json.loads(line) for line in out.split("\n") if line]
    assert len(dict(lines)) == len(lines), "two steps of one name"
    return dict(lines)


@pytest.fixture(scope="module")
def results(
    nats_url: str, file_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the firmware and the host print, step by step."""
    answering = threading.Event()
    responder = threading.Thread(target=echo, args=(nats_url, answering))
    responder.start()
    try:
        assert answering.wait(10)
        firmware = steps("firmware", nats_url, file_url, tmp_path_factory.mktemp("firmware"))
        host = steps("host", nats_url, file_url, tmp_path_factory.mktemp("host"))
    finally:
        answering.clear()
        responder.join(10)
    return firmware, host


def test_both_sides_take_every_step(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    firmware, host = results
    assert list(firmware) == list(host)
    assert len(firmware) > 170


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


def test_an_empty_message_is_true_like_any_other(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for side in results:
        assert side["an empty message is one too"] == ["ok", True]
