"""README.md is true: its commands come first, and its quick start runs as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from certificates import Certificates
from conftest import NATS_SERVER, NatsServer
from device import micropython
from natsbridge.cli.settings import tomllib

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


def command_lines(first: str) -> list[list[str]]:
    """The lines of the code block that begins with `first`."""
    [block] = [b for b in re.findall(r"```sh\n(.*?)```", README, re.S) if b.startswith(first)]
    return [shlex.split(line) for line in block.splitlines()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_the_commands_of_the_quick_start_run(tmp_path: Path) -> None:
    up, receive, send = command_lines("natsbridge up")
    ports = free_port(), free_port()
    up += ["--port", str(ports[0]), "--file-port", str(ports[1])]
    environment = {
        **os.environ,
        "NATS_URL": f"nats://127.0.0.1:{ports[0]}",
        "FILESERVER_URL": f"http://127.0.0.1:{ports[1]}",
    }
    (tmp_path / "photo.jpg").write_bytes(os.urandom(600_000))
    running = []

    def start(line: list[str]) -> subprocess.Popen[str]:
        assert line[0] == "natsbridge"
        process = subprocess.Popen(
            [sys.executable, "-m", *line],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    try:
        servers = start(up)
        assert servers.stdout is not None
        assert "NATSBridge is up" in servers.stdout.readline()
        receiver = start([*receive, "--count", "1"])
        assert receiver.stdout is not None
        assert "Listening" in receiver.stdout.readline()
        sender = start(send)
        assert "Sent to lab.hello" in sender.communicate(timeout=20)[0]
        shown = receiver.communicate(timeout=20)[0]
        servers.send_signal(signal.SIGINT)
        assert "Stopped" in servers.communicate(timeout=20)[0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert (sender.returncode, receiver.returncode, servers.returncode) == (0, 0, 0)
    for name in ("text.txt", "photo.jpg", "dict.json"):
        assert name in shown
    received = tmp_path / "received"
    assert (received / "photo.jpg").read_bytes() == (tmp_path / "photo.jpg").read_bytes()
    assert (received / "text.txt").read_text() == "Hello"
    assert json.loads((received / "dict.json").read_text()) == {"on": True}


def test_the_environment_and_the_options_that_it_names_exist() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "natsbridge", "send", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [names] = re.findall(r"else from the environment \((.*?)\)", README)
    source = (Path(__file__).parent.parent / "host/natsbridge/cli/settings.py").read_text()
    source += (Path(__file__).parent.parent / "host/natsbridge/cli/send.py").read_text()
    for name in re.findall(r"`(\w+)`", names):
        assert f'envvar="{name}"' in source
    [config] = re.findall(r"```toml\n(.*?)```", README, re.S)
    for key in tomllib.loads(config):
        assert key == "receive" or f"--{key}" in text


def test_the_deployment_s_configurations_are_valid(
    tmp_path: Path, certificates: Certificates
) -> None:
    folder = Path(__file__).parent.parent / "host" / "examples" / "deploy"
    assert tomllib.loads((folder / "plikd.cfg").read_text())["SslEnabled"] is True
    for mounted in re.findall(r'"\./([\w.]+):', (folder / "compose.yaml").read_text()):
        assert mounted == "tls" or (folder / mounted).is_file()
    config = (folder / "nats.conf").read_text().replace('"/data"', json.dumps(str(tmp_path)))
    for file, path in (
        ("cert.pem", certificates.server),
        ("key.pem", certificates.server_key),
        ("ca.pem", certificates.ca),
    ):
        config = config.replace(f"/tls/{file}", str(path))
    (tmp_path / "nats.conf").write_text(config)
    done = subprocess.run(
        [NATS_SERVER, "-t", "-c", tmp_path / "nats.conf"],
        env={**os.environ, "DEVICE_PASSWORD": "a1", "DESK_PASSWORD": "b2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
