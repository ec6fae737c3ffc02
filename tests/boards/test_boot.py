"""boards/shared on the unix port: board.py over scripted Wi-Fi, clock and watchdog, and the loader.

Sockets and brokers are real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificates
from conftest import NatsServer, free_ports
from device import MICROPYTHON, Process, compiled
from natsbridge import sync

BOARDS = Path(__file__).parent.parent.parent / "boards"
FAKES = Path(__file__).parent / "fakes"
#: What tells which connection, watchdog and network a program had.
HEAD = "import sys, time\nimport board, machine, network, ntptime\n"
#: Nobody waits for half a minute until the Wi-Fi is given up: one nap is a second.
FAST = """
class Fast:
    now = 0
    def sleep_ms(self, ms): self.now += 20 * ms
    def ticks_ms(self): return self.now
    ticks_add = time.ticks_add
    ticks_diff = time.ticks_diff
board.time = Fast()
"""


def start(folder: Path, program: Path, *, fakes: bool = True) -> Process:
    """Run `program` in `folder`, as on a board of which that is the file system."""
    paths = [str(FAKES)] if fakes else []
    paths += ["lib", ".frozen"]
    return Process(
        [MICROPYTHON, "-X", "heapsize=192K", str(program)],
        cwd=folder,
        env={**os.environ, "MICROPYPATH": ":".join(paths)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class Board:
    """The file system of a board in `folder`: with config.json, board.py and natsbridge."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {
            "wifi": {"ssid": "lab", "password": "secret", "country": "DE"},
            "name": "b1",
            "broker": broker,
            "ntp": "ntp.example",
        }
        lib = folder / "lib"
        shutil.copytree(compiled(), lib)
        shutil.copy(BOARDS / "shared" / "board.py", lib)

    def run(self, program: str, *, fakes: bool = True) -> list[str]:
        """What a program prints, in lines."""
        (self.folder / "config.json").write_text(json.dumps(self.config))
        script = self.folder / "test.py"
        script.write_text((HEAD if fakes else "import board\n") + program)
        with start(self.folder, script, fakes=fakes) as process:
            return process.communicate(timeout=30)[0].splitlines()


@pytest.fixture
def board(tmp_path: Path, nats_url: str) -> Board:
    return Board(tmp_path, nats_url)


def test_connect_joins_sets_the_clock_and_says_hello(board: Board, nats_url: str) -> None:
    with sync.connect(nats_url) as nc, nc.subscribe("natsbridge.hello.>") as sub:
        out = board.run(
            "network.script[:] = [1, 1, 3]\n"
            "nc = board.connect()\n"
            "print(network.calls)\nprint(ntptime.times, nc.name, nc.id, machine.events)\n"
        )
        msg = sub.next(5)
        assert msg is not None
        env = sync.smartreceive(msg)
    calls, rest = out
    assert calls == str(
        [
            ("country", "DE"),
            ("active", True),
            ("config", {"reconnects": 0}),
            ("connect", "lab", "secret"),
            ("config", {"reconnects": -1}),
        ]
    )
    assert rest == "['ntp.example'] b1 01ab []"
    assert msg.subject == "natsbridge.hello.b1"
    assert (env["msg_purpose"], env["sender_name"], env["sender_id"]) == ("hello", "b1", "01ab")
    [(name, value, kind)] = env["payloads"]
    assert (name, kind) == ("hello", "dictionary")
    assert sorted(value) == ["board", "heap_free", "micropython", "rtt_ms", "version"]
    assert value["heap_free"] > 50_000
    assert value["rtt_ms"] < 5_000
    assert value["micropython"].count(".") == 2


def test_tls_and_a_login_as_config_json_says(
    board: Board, certificates: Certificates, tmp_path: Path
) -> None:
    """ca is a file beside it. Without a name the id is said hello with."""
    login = 'authorization { user: "b", password: "p" }\n'
    (tmp_path / "tls.conf").write_text(certificates.nats("timeout: 5") + login)
    shutil.copy(certificates.ca, board.folder / "ca.pem")
    with NatsServer(tmp_path, "-c", str(tmp_path / "tls.conf")) as server:
        board.config.update(
            broker=[f"tls://127.0.0.1:{server.port}"],
            name="",
            user="b",
            password="p",
            tls={"ca": "ca.pem"},
        )
        program = (
            "network.script[:] = [0, 3]\n"
            "nc = board.connect()\n"
            "sub = nc.subscribe('natsbridge.hello.>')\n"
            "board.hello(nc)\n"
            "print(nc.url.split(':')[0], sub.next(5).subject)\n"
        )
        assert board.run(program) == ["tls natsbridge.hello.01ab"]
        board.config["password"] = "q"
        out = board.run(
            "network.script[:] = [0, 3]\n"
            "try:\n    board.connect()\nexcept Exception as e:\n    print(e)\n"
        )
    assert len(out) == 1
    assert out[0].startswith("NATS_CONNECTION_FAILED: ")
    assert "Authorization Violation" in out[0]


@pytest.mark.parametrize(
    ("script", "text", "tries", "seconds"),
    [
        # An ESP32: the status of the attempt before stays until this one has ended.
        ([0, 0, 1001, 1001, 202], "the password is wrong (status 202)", 3, 10),
        ([0, 0, 1001, 1001, 15], "the password is wrong (status 15)", 3, 10),
        ([0, 0, 1001, 1001, 201], "there is no such network here (status 201)", 3, 10),
        ([201], "there is no such network here (status 201)", 3, 15),
        # A CYW43.
        ([0, 0, 1, 1, 1, -3, *[-3, 1, 1, -3] * 2], "the password is wrong (status -3)", 3, 0),
        (
            [0, 0, 1, 1, 1, -2, *[-2, 1, 1, -2] * 2],
            "there is no such network here (status -2)",
            3,
            0,
        ),
        ([0, 0, 1, 1, 1, -1, *[-1, 1, 1, -1] * 2], "it can't be joined (status -1)", 3, 0),
        ([1], "there is no answer (status 1)", 1, 30),
    ],
)
def test_a_wi_fi_that_can_t_be_joined(
    board: Board, script: list[int], text: str, tries: int, seconds: int
) -> None:
    out = board.run(
        f"{FAST}network.script[:] = {script}\n"
        "try:\n    board.connect()\nexcept OSError as e:\n    print(e)\n"
        "print(sum(c[0] == 'connect' for c in network.calls), board.time.now // 1000)\n"
    )
    assert out[0] == f"Wi-Fi 'lab': {text}"
    connects, took = out[1].split()
    assert int(connects) == tries
    assert seconds <= int(took) <= seconds + 8


def test_a_wi_fi_that_is_joined_already_is_left_as_it_is(board: Board) -> None:
    """As after a soft reset; but not another one."""
    for ssid, calls in (("lab", 0), ("guests", 1)):
        out = board.run(
            f"network.WLAN.status_now = 3\nnetwork.WLAN.ssid = {ssid!r}\n"
            "network.WLAN.__init__ = lambda self, interface: None\n"
            "board.join()\nboard.join()\n"
            "print(sum(c[0] == 'connect' for c in network.calls))\n"
        )
        assert out == [str(calls)]


def test_one_refusal_is_not_believed(board: Board) -> None:
    out = board.run(
        "network.script[:] = [0, 0, 1, 1, 1, 202, 202, 1, 1, 1, 3]\n"
        "board.join()\n"
        "print(sum(c[0] == 'connect' for c in network.calls))\n"
    )
    assert out == ["2"]


def test_a_lost_wi_fi_is_joined_again(board: Board) -> None:
    """While it sleeps, without waiting; and by connect(), which is called again after an error."""
    out = board.run(
        "network.script[:] = [0, 3]\n"
        "nc = board.connect()\n"
        "board._tried = time.ticks_add(time.ticks_ms(), -20000)\n"
        "network.script[:] = [0]\n"
        "del network.calls[:]\n"
        "board.sleep(0.2, nc)\n"
        "print(network.calls)\n"
        "del network.calls[:]\n"
        "nc.close()\n"
        "network.script[:] = [1, 3]\n"
        "nc = board.connect()\n"
        "nc.flush()\n"
        "print(('connect', 'lab', 'secret') in network.calls, ntptime.times)\n"
    )
    assert out == ["[('connect', 'lab', 'secret')]", "True ['ntp.example']"]


def test_the_connection_is_back_after_the_wi_fi(board: Board, tmp_path: Path) -> None:
    """The broker went too. Nothing is asked of a network that is not there."""
    [port] = free_ports(1)
    board.config["broker"] = f"nats://127.0.0.1:{port}"
    (board.folder / "config.json").write_text(json.dumps(board.config))
    script = board.folder / "test.py"
    script.write_text(
        HEAD + "network.script[:] = [0, 3]\n"
        "nc = board.connect()\n"
        "sub = nc.subscribe('b1.x')\n"
        "nc.publish('ready', b'')\n"
        "board._tried = time.ticks_add(time.ticks_ms(), -20000)\n"
        "del network.calls[:]\n"
        "network.script[:] = [0] * 20 + [3]\n"
        "poll = nc.poll\n"
        "polled = []\n"
        "nc.poll = lambda: polled.append(len(network.script)) or poll()\n"
        "for _ in range(200):\n"
        "    board.sleep(0.1, nc)\n"
        "    msg = sub.next(0) if polled else None\n"
        "    if msg:\n"
        "        print(bytes(msg.data), network.calls, max(polled))\n"
        "        break\n"
    )
    with (
        NatsServer(tmp_path, port=port) as server,
        sync.connect(server.url) as nc,
        nc.subscribe("ready") as ready,
    ):
        process = start(board.folder, script)
        assert ready.next(20) is not None
    try:
        with NatsServer(tmp_path, port=port) as server, sync.connect(server.url) as nc:
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                nc.publish("b1.x", b"again")
                time.sleep(0.1)
            out = process.communicate(timeout=1)[0]
    finally:
        process.kill()
        process.wait()
    assert out == "b'again' [('connect', 'lab', 'secret')] 1\n"


@pytest.mark.parametrize(
    ("script", "change"),
    [
        ("[-3] * 20", {}),
        ("[-2] * 20", {}),
        ("[0, 3]", {}),
        ("[0, 3]", {"broker": "nats://b:s3cr3t-url@127.0.0.1:x"}),
        ("[0, 3]", {"broker": "nats://b:s3cr3t-url@127.0.0.1:1"}),
        ("[0, 3]", {"wifi": {"ssid": "", "password": "s3cr3t-wifi"}}),
        ("[0, 3]", {"wifi": {"ssid": "lab", "password": "s3cr3t-wifi", "country": "DEU"}}),
        ("[0, 3]", {"passwort": "s3cr3t-typo"}),
        ("[0, 3]", {"token": 5}),
    ],
)
def test_what_fails_on_a_board_shows_no_secret(
    board: Board, tmp_path: Path, script: str, change: dict[str, Any]
) -> None:
    login = tmp_path / "login.conf"
    login.write_text('authorization { user: "b", password: "another" }\n')
    with NatsServer(tmp_path, "-c", str(login)) as server:
        board.config.update(broker=server.url, user="b", password="s3cr3t-broker")
        board.config["wifi"]["password"] = "s3cr3t-wifi"
        board.config["fileserver_url"] = "http://b:s3cr3t-files@files.example"
        board.config.update(change)
        out = board.run(
            "import natsbridge\n"
            "natsbridge.log.enabled = True\n"
            f"{FAST}network.script[:] = {script}\n"
            "try:\n    board.connect()\n"
            "except Exception as e:\n"
            "    print('failed', e, repr(e), getattr(e, 'details', ''))\n"
            "    sys.print_exception(e)\n"
        )
    assert any(line.startswith("failed ") for line in out), out
    assert "s3cr3t" not in "".join(out)


def test_the_clock_may_stay_unset(board: Board) -> None:
    board.config["ntp"] = "nobody.example"
    out = board.run("network.script[:] = [0, 3]\nboard.connect().close()\nprint('on')\n")
    assert out == ["board: the clock is not set by nobody.example: 116", "on"]


def test_the_watchdog_is_fed_while_it_waits_and_sleeps(board: Board) -> None:
    board.config["watchdog"] = 8000
    out = board.run(
        "network.script[:] = [0, 3]\n"
        "also = []\n"
        "nc = board.connect(on_idle=lambda: also.append(1))\n"
        "def fed(what, *arguments):\n"
        "    del machine.events[:]\n"
        "    what(*arguments)\n"
        "    return len(machine.events) >= 3\n"
        "print(machine.events[0])\n"
        "sub = nc.subscribe('nothing')\n"
        "print(fed(sub.next, 0.5), fed(board.sleep, 0.5), fed(board.sleep, 0.5, nc))\n"
        "print(len(also) > 2)\n"
    )
    assert out == ["8000", "True True True", "True"]


@pytest.mark.parametrize(
    ("value", "why"),
    [(9000, "9000 ms: timeout exceeds 8388"), ("8000", "'8000' ms: unsupported types")],
)
def test_a_watchdog_that_the_port_has_not(board: Board, value: object, why: str) -> None:
    board.config["watchdog"] = value
    out = board.run(
        "network.script[:] = [0, 3]\n"
        "try:\n    board.connect()\nexcept ValueError as e:\n    print(e)\n"
    )
    assert len(out) == 1
    assert out[0].startswith(f"config.json: watchdog is {why}")


def test_a_port_without_wi_fi_and_watchdog(board: Board) -> None:
    board.config.update(watchdog=1000, ntp="")
    out = board.run("nc = board.connect()\nboard.feed()\nprint(len(nc.id))\n", fakes=False)
    assert out == ["36"]


def test_sleep_looks_after_the_connection(board: Board, nats_url: str) -> None:
    """A message that comes meanwhile is there afterwards, and the time is kept."""
    with sync.connect(nats_url) as nc, nc.subscribe("ready") as ready:
        (board.folder / "config.json").write_text(json.dumps(board.config))
        script = board.folder / "test.py"
        script.write_text(
            HEAD + "network.script[:] = [0, 3]\n"
            "nc = board.connect()\n"
            "sub = nc.subscribe('b1.x')\n"
            "nc.publish('ready', b'')\n"
            "start = time.ticks_ms()\n"
            "board.sleep(1, nc)\n"
            "ms = time.ticks_diff(time.ticks_ms(), start)\n"
            "print(nc._queued > 0, 1000 <= ms < 5000)\n"
            "print(sub.next(0).data)\n"
        )
        with start(board.folder, script) as process:
            assert ready.next(20) is not None
            nc.publish("b1.x", b"hi")
            out = process.rest(20)
    assert out == "True True\nb'hi'\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "ENOENT"),
        ("", "syntax error"),
        ('{"broker": "nats://x"', "syntax error"),
        ("[1]", "it is no object"),
        ('{"name": "x"}', "it names no broker"),
        ('{"broker": "x", "ssid": "y"}', "nobody reads 'ssid'"),
        ('{"broker": "x", "wifi": {"password": "y"}}', "wifi has no ssid"),
        ('{"broker": "x", "wifi": {"ssid": "y", "country": "DEU"}}', "no code of two letters"),
        ('{"broker": "x", "wifi": "y"}', "attribute"),
        ('{"broker": "x", "name": "my board"}', "name must not have ' '"),
        ('{"broker": "x", "id": "a>"}', "id must not have '>'"),
        ('{"broker": "x", "name": 5}', "iterable"),
    ],
)
def test_a_config_that_can_t_be_used(board: Board, text: str | None, why: str) -> None:
    script = board.folder / "test.py"
    script.write_text(
        "import board\ntry:\n    board.config()\nexcept ValueError as e:\n    print(e)\n"
    )
    if text is not None:
        (board.folder / "config.json").write_text(text)
    with start(board.folder, script) as process:
        out = process.rest(20)
    assert out.startswith("config.json can't be used: ")
    assert out.count("\n") == 1
    assert why in out


def test_the_config_beside_board_py_goes_first(board: Board) -> None:
    """As in a slot; a frozen board.py, or one without __file__, has that of the root."""
    beside = board.folder / "lib" / "config.json"
    beside.write_text(json.dumps({**board.config, "name": "beside"}))
    show = "print(board.config()['name'])\n"
    assert board.run(show, fakes=False) == ["beside"]
    for file in ("board.__file__ = 'board.py'\n", "del board.__file__\n"):
        assert board.run(file + show, fakes=False) == ["b1"]
    beside.write_text("{}")
    fails = "try:\n    board.config()\nexcept ValueError as e:\n    print(e)\n"
    why = "config.json can't be used: it names no broker"
    assert board.run(fails, fakes=False) == [f"lib/{why}"]
    beside.unlink()
    assert board.run(show, fakes=False) == ["b1"]


def test_options_are_those_of_the_call(board: Board) -> None:
    board.config.update(fileserver_url="http://files", size_threshold=5)
    out = board.run("print(sorted(board.options().items()), sorted(board.options(1).items()))\n")
    assert out == [
        "[('fileserver_url', 'http://files')] [('fileserver_url', 'http://files'), "
        "('nats_connection', 1), ('size_threshold', 5)]"
    ]


class Slots:
    """The file system of a board with the loader, and with slots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(BOARDS / "shared" / "main.py", folder)

    def add(self, slot: str, program: str, *, complete: bool = True) -> None:
        place = self.folder / "slots" / slot
        place.mkdir(parents=True)
        (place / "program.py").write_text(program)
        if complete:
            (place / "complete").touch()

    def run(self, *, fakes: bool = False) -> tuple[int, str]:
        with start(self.folder, self.folder / "main.py", fakes=fakes) as process:
            return process.wait(30), process.communicate()[0]


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    slots = Slots(tmp_path)
    slots.add("a", "print('this is a')\n")
    slots.add("b", "import other\nprint('this is b', other.x)\n")
    (tmp_path / "slots" / "b" / "other.py").write_text("x = 7\n")
    return slots


def test_the_slot_that_is_named_is_run(slots: Slots) -> None:
    for name, out in (("a", "this is a\n"), ("b\n", "this is b 7\n")):
        (slots.folder / "slot").write_text(name)
        assert slots.run() == (0, out)


@pytest.mark.parametrize("damage", [None, "", "c", "\xff\xff", "b" * 5000])
def test_without_a_slot_the_complete_one_is_run(slots: Slots, damage: str | None) -> None:
    if damage is not None:
        (slots.folder / "slot").write_text(damage, encoding="latin-1")
    (slots.folder / "slots" / "a" / "complete").unlink()
    code, out = slots.run()
    assert code == 0
    assert out.endswith("complete are: b\nthis is b 7\n")


def test_an_incomplete_slot_is_not_run(slots: Slots) -> None:
    (slots.folder / "slot").write_text("a")
    (slots.folder / "slots" / "a" / "complete").unlink()
    assert slots.run()[1].endswith("this is b 7\n")
    (slots.folder / "slots" / "b" / "complete").unlink()
    assert slots.run() == (0, "main: the file slot says 'a'; complete are: none\n")


def test_a_program_that_raises(slots: Slots) -> None:
    (slots.folder / "slot").write_text("a")
    (slots.folder / "slots" / "a" / "program.py").write_text("print(1)\n[][1]\n")
    code, out = slots.run()
    assert code == 1
    assert out.startswith("1\nTraceback")
    assert out.endswith("IndexError: list index out of range\n")
    main = slots.folder / "main.py"
    text = main.read_text().replace("_DELAY = 10 ", "_DELAY = 1.2 ")
    main.write_text(text.replace("_AGAIN = 2 ", "_AGAIN = 0.1 "))
    code, out = slots.run(fakes=True)
    assert code == 3
    # Why it failed is the last that it prints, and is printed again: a port is opened late.
    why = "main: restart in {} s, which Ctrl-C prevents, after:\nTraceback"
    first, second = (out.index(why.format(left)) for left in (1, 0))
    assert first < second
    assert out.count("IndexError: list index out of range\n") == 2
    assert out.endswith("IndexError: list index out of range\nreset\n")


def test_ctrl_c_and_exit_do_not_restart(slots: Slots) -> None:
    (slots.folder / "slot").write_text("a")
    for how in ("KeyboardInterrupt", "SystemExit"):
        (slots.folder / "slots" / "a" / "program.py").write_text(f"raise {how}\n")
        _, out = slots.run(fakes=True)
        assert ("KeyboardInterrupt" in out) == (how == "KeyboardInterrupt")
        assert "restart" not in out


def test_a_pause_is_made_once(slots: Slots) -> None:
    (slots.folder / "slot").write_text("a")
    (slots.folder / "pause").touch()
    assert slots.run() == (0, "main: pause\n")
    assert slots.run() == (0, "this is a\n")


@pytest.mark.parametrize(("cause", "out"), [(1, "this is a\n"), (3, "main: pause\n")])
def test_a_pause_does_not_outlast_the_power(slots: Slots, cause: int, out: str) -> None:
    """Whoever made it and was unplugged then never resets the board."""
    (slots.folder / "slot").write_text("a")
    (slots.folder / "pause").touch()
    fakes = slots.folder / "fakes"
    fakes.mkdir()
    (fakes / "machine.py").write_text(f"PWRON_RESET = 1\ndef reset_cause():\n    return {cause}\n")
    line = [MICROPYTHON, "main.py"]
    environment = {**os.environ, "MICROPYPATH": "fakes"}
    done = subprocess.run(line, cwd=slots.folder, env=environment, capture_output=True, text=True)
    assert done.stdout == out
    assert not (slots.folder / "pause").exists()


def test_the_default_program_answers_and_survives_the_broker(tmp_path: Path) -> None:
    """As it is deployed: the loader, and a slot with everything."""
    folder = tmp_path / "board"
    slots = folder / "slots" / "a"
    shutil.copytree(compiled(), slots)
    for name in ("board.py", "program.py"):
        shutil.copy(BOARDS / "shared" / name, slots)
    (slots / "complete").touch()
    (folder / "slot").write_text("a")
    shutil.copy(BOARDS / "shared" / "main.py", folder)
    [port] = free_ports(1)
    config = {"name": "b1", "id": "7", "broker": f"nats://127.0.0.1:{port}", "ntp": ""}
    (slots / "config.json").write_text(json.dumps(config))
    process = start(folder, folder / "main.py", fakes=False)
    try:
        for word in ("before", "after"):  # the broker is not there at first, and goes in between
            with NatsServer(tmp_path, port=port) as server, sync.connect(server.url) as nc:
                sub = nc.subscribe("answers")
                deadline = time.monotonic() + 30
                ack = None
                while ack is None and time.monotonic() < deadline:
                    sent, _ = sync.smartsend(
                        "b1.command",
                        [("say", word, "text")],
                        nats_connection=nc,
                        reply_to="answers",
                        sender_id="me",
                    )
                    ack = sub.next(0.5)
                    if ack is not None and not ack.data:  # the broker: nobody listens yet
                        ack = None
                assert ack is not None
                env = sync.smartreceive(ack)
                assert env["payloads"] == []
                assert env["msg_purpose"] == "ACK"
                assert env["sender_name"] == "b1"
                assert env["receiver_id"] == "me"
                assert env["reply_to_msg_id"] == sent["msg_id"]
                assert env["correlation_id"] == sent["correlation_id"]
                nc.publish("b1.command", b"this is no envelope")
                nc.flush()
        assert process.poll() is None
    finally:
        process.kill()
        out = process.communicate()[0]
    assert "say text before\n" in out
    assert "INVALID_ENVELOPE" in out
    assert "say text after\n" in out


README = (BOARDS / "README.md").read_text(encoding="utf-8")


def test_the_readme_s_program_runs(board: Board, nats_url: str) -> None:
    [program] = re.findall(r"```python\n(.*?)```", README, re.S)
    assert "board.sleep(60, nc)" in program
    board.config.update(wifi=None, ntp="")
    with sync.connect(nats_url) as nc, nc.subscribe("lab.data") as sub:
        assert board.run(program.replace("60, nc", "0.1, nc"), fakes=False) == []
        msg = sub.next(5)
        assert msg is not None
        assert sync.smartreceive(msg)["payloads"] == [("t", {"celsius": 21.5}, "dictionary")]


def test_the_readme_s_measurement_runs(board: Board) -> None:
    [code] = re.findall(r'mpremote exec "(.*)"', README)
    assert "sleep(15)" in code
    out = board.run("network.script[:] = [0, 3]\n" + code.replace("sleep(15)", "sleep(0)") + "\n")
    joined, free = out[0].split()
    assert joined in ("True", "False")
    assert int(free) > 100_000
