"""natsbridge doctor: each fault is found, named and comes with a way to mend it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from command import Inside, Runner, fits
from conftest import FileServerProcess, NatsServer
from device import compiled
from natsbridge.cli import doctor
from simulator import Board

#: Nobody listens there.
NOBODY = "127.0.0.1:1"


class Answers:
    """An HTTP server that answers everything alike, but for some paths."""

    def __init__(
        self,
        status: int,
        body: bytes,
        kind: str = "text/html",
        date: str = "",
        paths: dict[str, bytes] | None = None,
    ) -> None:
        given = paths or {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                said = given.get(self.path, body)
                self.send_response_only(200 if self.path in given else status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(said)))
                self.send_header("Date", date or self.date_time_string())
                self.end_headers()
                self.wfile.write(said)

            do_POST = do_DELETE = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def answers() -> Iterator[Any]:
    """Starts such servers."""
    servers: list[Answers] = []

    def start(*args: Any, **options: Any) -> str:
        servers.append(Answers(*args, **options))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


def found(run: Inside) -> dict[str, tuple[str, str, str]]:
    """The findings of `doctor --json`; of several about one thing, the worst."""
    worst: dict[str, tuple[str, str, str]] = {}
    order = ("ok", "warn", "fail")
    for record in run.records:
        state = record["state"]
        assert state in order
        assert state == "ok" or record["fix"], record
        before = worst.get(record["check"], ("ok", "", ""))
        if order.index(state) >= order.index(before[0]):
            worst[record["check"]] = (state, record["found"], record["fix"])
    return worst


def test_all_is_fine(natsbridge: Runner, file_server: FileServerProcess) -> None:
    run = natsbridge("doctor", "--subject", "lab.camera").ended()
    lines = run.out.splitlines()
    fits(lines)
    assert "\x1b" not in run.out
    assert any(line.startswith("ok    broker       nats-server 2.") for line in lines)
    assert any(line.startswith("ok    file server  NATSBridge at http://127") for line in lines)
    assert any(line.startswith("ok    download") for line in lines)
    assert "lab.camera" in run.out
    assert not any(line.startswith("FAIL") for line in lines)
    assert "JetStream    off" in run.out
    assert "natsbridge up --lan" in run.out
    checks = found(natsbridge.inside("doctor", "--json").ended())
    assert {c for c, (state, _, _) in checks.items() if state == "ok"} >= {
        *("max_payload", "clock", "size limit", "time to live", "token", "download")
    }
    assert list(file_server.folder.rglob("doctor.txt")) == []


def test_a_broker_that_is_not_there_or_does_not_let_us_in(
    natsbridge: Runner, tmp_path: Path, answers: Any
) -> None:
    run = natsbridge.inside("doctor", "--json", "--server", f"nats://{NOBODY}").ended(1)
    state, text, fix = found(run)["broker"]
    assert (state, "natsbridge up" in fix, "--server" in fix) == ("fail", True, True)
    assert NOBODY in text
    assert found(run)["download"][0] == "ok"  # it goes on
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsServer(folder, "--user", "u", "--pass", "p") as server:
        for login in ((), ("--user", "u", "--password", "wrong")):
            run = natsbridge.inside("doctor", "--json", "--server", server.url, *login).ended(1)
            state, _, fix = found(run)["broker"]
            assert (state, "--password" in fix) == ("fail", True)
        right = natsbridge.inside(
            *("doctor", "--json", "--server", server.url, "--user", "u", "--password", "p")
        )
        assert found(right.ended())["JetStream"][0] == "warn"
    (folder / "small.conf").write_text("max_payload: 100000\njetstream {store_dir: %s}" % folder)  # noqa: UP031
    with NatsServer(folder, "-c", str(folder / "small.conf")) as server:
        checks = found(natsbridge.inside("doctor", "--json", "--server", server.url).ended())
        state, text, fix = checks["max_payload"]
        assert (state, "100000 bytes" in text, "raise max_payload" in fix) == ("warn", True, True)
        assert checks["JetStream"][0] == "ok"
    # The ports mixed up: a file server is no broker, and waits in silence.
    begun = time.monotonic()
    web = answers(200, b"hello").replace("http", "nats")
    run = natsbridge.inside("doctor", "--json", "--server", web).ended(1)
    assert time.monotonic() - begun < 10
    assert found(run)["broker"][0] == "fail"


def test_a_file_server_that_is_not_there_or_is_another(
    natsbridge: Runner, answers: Any, broker: Any
) -> None:
    config = json.dumps({"maxFileSize": 5, "maxTTL": 60}).encode()
    urls = {
        f"http://{NOBODY}": "nothing answers",
        broker.url.replace("nats", "http"): "does not speak HTTP",
        answers(200, b"<html>hello"): "no Plik server",
        answers(404, b"not found"): "no Plik server",
        answers(500, b""): "no Plik server",
        answers(200, b"[1, 2]", "application/json"): "no Plik server",
        answers(200, b"x" * 200_000): "no Plik server",
        answers(200, b"[" * 50_000): "no Plik server",
    }
    for url, text in urls.items():
        run = natsbridge.inside("doctor", "--json", "--fileserver", url).ended(1)
        state, said, fix = found(run)["file server"]
        assert state == "fail"
        assert text in said, (url, said)
        assert "--fileserver" in fix
        assert len(said) < 130
    # One that gives a configuration, and nothing sensible after that.
    run = natsbridge.inside("doctor", "--json", "--fileserver", answers(200, config)).ended(1)
    checks = found(run)
    assert checks["size limit"][0] == checks["time to live"][0] == "warn"
    assert checks["upload"][0] == "fail"
    # One that fails.
    failing = answers(500, b"no space left", paths={"/config": config})
    checks = found(natsbridge.inside("doctor", "--json", "--fileserver", failing).ended(1))
    for what in ("token", "upload"):
        state, said, fix = checks[what]
        assert (state, "answered 500 no space left" in said) == ("fail", True), said
        assert "make room" in fix


def test_a_file_server_s_url_that_is_none(natsbridge: Runner) -> None:
    for wrong in ("here", "localhost:8080", "ftp://localhost"):
        run = natsbridge.inside("doctor", "--json", "--fileserver", wrong).ended(1)
        state, said, fix = found(run)["file server"]
        assert (state, "fileserver_url" in said) == ("fail", True)
        assert "http://localhost:8080" in fix
    lines = natsbridge.inside("doctor", "--fileserver", "here").ended(1).out.splitlines()
    assert any(line.startswith("FAIL  file server  ") for line in lines)


def test_a_clock_that_is_wrong_and_a_token_that_is_wanted(
    natsbridge: Runner, answers: Any, tmp_path: Path
) -> None:
    config = json.dumps({"maxFileSize": 0, "maxTTL": 0}).encode()
    late = answers(200, config, date="Mon, 01 Jan 2024 00:00:00 GMT")
    checks = found(natsbridge.inside("doctor", "--json", "--fileserver", late))
    assert checks["clock"][0] == "warn"
    assert "NTP" in checks["clock"][2]
    never = answers(200, config, date="yesterday\x1b[31m")
    run = natsbridge.inside("doctor", "--fileserver", never)
    assert "\x1b" not in run.out
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "natsbridge.fileserver"),
            *("--folder", str(tmp_path / "files"), "--token", "sesame"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        checks = found(natsbridge.inside("doctor", "--json", "--fileserver", url).ended(1))
        assert checks["token"] == ("ok", "a wrong one is refused (403)", "")
        assert checks["upload"][0] == "fail"
        assert "http://user:password@host" in checks["upload"][2]
        login = url.replace("//", "//natsbridge:sesame@")
        run = natsbridge.inside("doctor", "--json", "--fileserver", login).ended()
        assert found(run)["download"][0] == "ok"
        assert "sesame" not in run.out
    finally:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


def test_subjects(natsbridge: Runner) -> None:
    def subject(name: str) -> tuple[int, tuple[str, str, str]]:
        run = natsbridge.inside("doctor", "--json", "--subject", name)
        return run.code, found(run)["subject"]

    assert subject("lab.camera") == (0, ("ok", "lab.camera", ""))
    code, (state, text, fix) = subject("/chat/user/v1/message")
    assert (code, state) == (0, "warn")
    assert "one word" in text
    assert "'chat.user.v1.message'" in fix
    for wrong in ("two words", "a..b", "lab.*", "lab.>", ""):
        if wrong:
            assert subject(wrong)[0] == 1


def test_a_board_over_mpremote(natsbridge: Runner, tmp_path: Path) -> None:
    import natsbridge as package

    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "lib").symlink_to(compiled())
    with Board(tmp_path / "disk") as board:
        for _ in range(2):  # asking it leaves it as it was
            run = natsbridge.inside("doctor", "--json", "--device", board.port).ended()
            checks = found(run)
            state, text, _ = checks["device"]
            assert state == "ok"
            assert re.search(r"MicroPython 1\.\d+\.\d+", text)
            assert checks["heap"][0] == checks["flash"][0] == "ok"
            expected = f"{package.__version__} is installed on the device"
            assert checks["natsbridge"] == ("ok", expected, "")
    (tmp_path / "disk" / "lib").unlink()
    with Board(tmp_path / "disk", heap="48K") as board:
        checks = found(natsbridge.inside("doctor", "--json", "--device", board.port).ended())
        assert checks["heap"][0] == "warn"
        assert "make firmware" in checks["natsbridge"][2]


def test_a_port_without_a_board(
    natsbridge: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ask(port: str) -> tuple[str, str, str]:
        run = natsbridge.inside("doctor", "--json", "--device", port).ended(1)
        return found(run)["device"]

    state, text, fix = ask("/dev/nothing")
    assert (state, "no board answers at /dev/nothing" in text) == ("fail", True)
    assert "mpremote connect list" in fix
    main, side = pty.openpty()
    monkeypatch.setattr(doctor, "DEVICE_S", 1)
    assert "does not answer" in ask(os.ttyname(side))[1]
    os.close(side)
    os.close(main)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named mpremote >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert "pip install mpremote" in ask("/dev/nothing")[2]
    # A board says what it likes.
    for said in ("5", "[]", "{}", '{"machine": "\\u001b[31m"}', '{"heap": "x"}', "\x1b[31m"):
        python.write_text(f"#!/bin/sh\necho '{said}'\n")
        assert ask("/dev/nothing")[0] == "fail"
