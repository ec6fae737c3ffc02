"""README.md is true: its commands come first, and its quick start runs as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from conftest import NatsServer
from device import micropython

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
#: The address in the snippets, which no test machine has.
BROKER = "nats://192.168.1.10:4222"


def snippet(side: str, url: str) -> str:
    """The code block that begins with the comment `side`, for the test's broker."""
    [code] = re.findall(rf"```python\n# {side}\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line]) <= 10
    assert BROKER in code
    return str(code).replace(BROKER, url)


def wait_for_subscription(monitoring: str, subject: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{monitoring}/connz?subs=1") as answer:
            connections = json.load(answer)["connections"]
        if any(subject in c.get("subscriptions_list", ()) for c in connections):
            return
        time.sleep(0.05)
    pytest.fail(f"nobody subscribed to {subject}")


def test_the_first_commands_are_demo_and_test() -> None:
    [block] = re.findall(r"```sh\n(.*?)```", README, re.S)[:1]
    assert block.split("\n")[:2] == ["make demo", "make test"]


def test_every_make_target_that_it_names_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


def test_the_quick_start_runs(tmp_path: Path) -> None:
    with NatsServer(tmp_path, "-m", "-1") as server:
        ports = json.loads(next(tmp_path.glob("*.ports")).read_text())
        desktop = subprocess.Popen(
            [sys.executable, "-c", snippet("desktop", server.url)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        try:
            wait_for_subscription(ports["monitoring"][0], "lab.data")
            script = tmp_path / "main.py"
            script.write_text(snippet("device", server.url))
            device = micropython(script, heap="128K")
            try:
                device_out, _ = device.communicate(timeout=20)
                desktop_out, _ = desktop.communicate(timeout=20)
            finally:
                device.kill()
                device.wait()
        finally:
            desktop.kill()
            desktop.wait()
    assert (device.returncode, desktop.returncode) == (0, 0)
    assert device_out == "relay dictionary {'on': True}\n"
    assert desktop_out.startswith("pico readings jsontable [{")
