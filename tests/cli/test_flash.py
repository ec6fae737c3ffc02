"""natsbridge flash: a real mpremote, and a simulated board; what interrupts it leaves no half."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge as package
from checkouts import PICO, ROOT, SECRET, Checkout, Flash, flashed, tree, uf2
from command import Broker, Inside, Runner, fits, lines_of_screen, until
from conftest import free_ports
from device import MICROPYTHON, compiled
from natsbridge import sync
from natsbridge.errors import NATSBridgeError
from natsbridge.flashing import image, scripts
from natsbridge.flashing.link import fault
from natsbridge.flashing.plan import Board as Description
from simulator import Board

pytestmark = pytest.mark.boards

#: Of a slot: the modules, board.py, program.py and config.json.
FILES = len(list((ROOT / "firmware" / "natsbridge").glob("*.py"))) + 3

# ---------------------------------------------------------------- onto a board, and its hello


@pytest.fixture(scope="session")
def fresh(
    boards: Path, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Inside, Path]:
    """What was printed when an empty board got the project's program, and its file system."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "disk").mkdir()
    words = ["flash", "unix", "--boards", boards, "--set", f"broker={broker.url}"]
    with Board(folder / "disk") as board:
        words += ["--device", board.port, "--set", "fileserver_url=http://127.0.0.1:1"]
        return Runner(folder, folder).inside(*words).ended(), folder / "disk"


def test_a_fresh_board_says_hello(fresh: tuple[Inside, Path], boards: Path, broker: Broker) -> None:
    run, disk = fresh
    said = (
        rf"linux .*, MicroPython 1\.\d+\.\d+; free: [\d,]+ B of heap, .* of flash\n"
        rf"Program: the default one, shared/program.py\n"
        rf"Flashed: {FILES} of {FILES} files sent, .* kB in .* s, config.json written.\n"
        rf"Waiting for its hello ...\n"
        rf"Hello from linux.*: NATSBridge {package.__version__}, MicroPython 1\..*"
        r" [\d,]+ B of heap free, round trip \d+ ms\n"
    )
    assert re.fullmatch(said.replace(" ", r"\s"), run.out, re.S)
    fits(run.out.splitlines())
    files = tree(disk)
    assert files["slot"] == b"a"
    assert files["main.py"] == (boards / "shared" / "main.py").read_bytes()
    assert files["slots/a/program.py"] == (boards / "shared" / "program.py").read_bytes()
    assert len([p for p in files if p.startswith("slots/a/natsbridge/")]) == FILES - 3
    assert json.loads(files["slots/a/complete"])["version"] == package.__version__
    assert json.loads(files["slots/a/config.json"])["broker"] == broker.url
    assert files.keys() == {"slot", "main.py", *(p for p in files if p.startswith("slots/a/"))}
    assert not [p for p in files if p.endswith(".new")]


@contextlib.contextmanager
def strangers(url: str) -> Iterator[None]:
    """While in the block, somebody else says hello, and somebody says nonsense."""
    end = threading.Event()
    hello = [("hello", {"board": "stranger"}, "dictionary")]

    def say() -> None:
        with sync.connect(url, name="unix", id="stranger") as nc:
            while not end.wait(0.05):
                subject = "natsbridge.hello.unix"
                nc.publish(subject, b"nonsense")
                sync.smartsend(subject, hello, msg_purpose="hello", nats_connection=nc)
                nc.flush()

    thread = threading.Thread(target=say)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_only_what_changed_is_sent(
    natsbridge: Runner, fresh: tuple[Inside, Path], boards: Path, disk: Path
) -> None:
    shutil.copytree(fresh[1], disk, dirs_exist_ok=True)
    with Board(disk) as board:
        words = ["flash", "unix", "--boards", boards, "--device", board.port, "--json"]
        # The same again: nothing is written, it is reset, and says hello.
        before = {p: p.stat().st_mtime_ns for p in disk.rglob("*")}
        run = natsbridge.inside(*words).ended()
        assert {p: p.stat().st_mtime_ns for p in disk.rglob("*")} == before
        did = flashed(run)
        assert (did["slot"], did["sent"], did["kept"], did["bytes"]) == (None, [], FILES, 0)
        hello = run.records[-1]["hello"]
        assert type(hello["rtt_ms"]) is type(hello["heap_free"]) is int
        # A program of one's own: that is what goes over the cable. Others on its subject are heard
        # too, but not believed.
        own = disk.parent / "own.py"
        own.write_text((boards / "shared" / "program.py").read_text() + "# mine\n")
        with strangers(natsbridge.environ["NATS_URL"]):
            run = natsbridge.inside(*words, "--program", own).ended()
        did = flashed(run)
        assert run.records[-1]["hello"]["board"].startswith("linux")
        assert (did["slot"], did["sent"], did["kept"]) == ("b", ["slots/b/program.py"], FILES - 1)
        assert (did["config"], did["program"]) == (False, "own.py")
        # It stays, until another one is named.
        run = natsbridge.inside(*words, "--no-wait", "--set", "ntp=x").ended()
        did = flashed(run)
        assert (did["program"], did["sent"]) == ("own.py", ["slots/a/config.json"])
        assert (disk / "slots" / "a" / "program.py").read_bytes() == own.read_bytes()
        # The doctor finds what was flashed.
        checks = natsbridge.inside("doctor", "--json", "--device", board.port).records
        assert f"{package.__version__} is installed on the device" in [r["found"] for r in checks]


def test_an_upgrade_sends_what_changed(
    flash: Flash, checkouts: tuple[Checkout, Checkout], old_disk: Path, disk: Path
) -> None:
    shutil.copytree(old_disk, disk, dirs_exist_ok=True)
    with Board(disk, usb=str(disk.parent / "ttyACM0")) as board:  # it is away after a reset
        board.prints(r"program old\s")
        did = flashed(flash(checkouts[1], board).ended())
        board.prints(r"program new\s")
        assert did["kept"] == 1
        names = (
            "board.py",
            "config.json",
            "program.py",
            *(f"natsbridge/{n}.mpy" for n in ("__init__", "first")),
        )
        assert sorted(did["sent"]) == sorted(
            f"slots/b/{name}" for name in (*names, "natsbridge/last.mpy")
        )
        # And back: all of it is in the other slot, but for the loader.
        did = flashed(flash(checkouts[0], board).ended())
        assert (did["slot"], did["sent"], did["kept"]) == ("a", [], 7)
        board.prints(r"program old\s")
    assert tree(disk).keys() - tree(old_disk).keys() == {
        p.replace("slots/a", "slots/b") for p in tree(old_disk) if p.startswith("slots/a")
    }


# ---------------------------------------------------------------- what does not fit is refused


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"version": [1, 18, 0]}, ["MicroPython 1.18.0", "1.19", "--image"]),
        ({"machine": "Generic ESP32 module with ESP32"}, ["it is no unix (", "with ESP32"]),
        ({"heap": "76K"}, ["bytes of heap free, and 65,536 are needed"]),
        ({"flash": 60_000}, ["bytes of flash free", "are needed"]),
    ],
)
def test_a_board_that_does_not_fit_is_left_alone(
    told: dict[str, Any],
    words: list[str],
    flash: Flash,
    checkouts: tuple[Checkout, Checkout],
    old_disk: Path,
    disk: Path,
) -> None:
    shutil.copytree(old_disk, disk, dirs_exist_ok=True)
    with Board(disk, **told) as board:
        board.prints(r"program old\s")
        run = flash(checkouts[1], board).ended(1)
        for word in words:
            assert word in run.records[-1]["error"]["message"]
        board.prints(r"program old\s")  # it goes on
    assert tree(disk) == tree(old_disk)


def test_a_flash_that_is_full_in_the_middle(
    flash: Flash, checkouts: tuple[Checkout, Checkout], old_disk: Path, disk: Path
) -> None:
    """As one does that has other blocks than we think."""
    shutil.copytree(old_disk, disk, dirs_exist_ok=True)
    with Board(disk, flash=60_000, honest=False) as board:
        run = flash(checkouts[1], board).ended(1)
        assert "flash is full" in run.records[-1]["error"]["message"]
        board.prints(r"program old\s")


def test_a_port_without_a_board(
    flash: Flash, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    usb = str(disk.parent / "ttyACM0")
    with Board(disk, usb=usb) as board, Path(board.port).open("rb") as port:
        fcntl.flock(port, fcntl.LOCK_EX)
        run = flash(checkouts[0], board).ended(1)
        assert "close the program that uses it" in run.records[0]["error"]["message"]
    run = flash(checkouts[0], board).ended(1)
    assert f"there is no port {board.port}" in run.records[0]["error"]["message"]


def test_what_there_is_not(bare: Runner, boards: Path, tmp_path: Path) -> None:
    bare.inside("flash", "unix").failed("boards has no boards", "--boards")
    words = ("--boards", boards, "--device", "/dev/nothing")
    bare.inside("flash", "uno", *words).failed("no board 'uno'", "rpi_pico_w, unix")
    (tmp_path / "boards").mkdir()
    shutil.copytree(ROOT / "boards" / "unix", tmp_path / "boards" / "unix")
    shutil.copytree(ROOT / "boards" / "shared", tmp_path / "boards" / "shared")
    bare.inside("flash", "unix").failed("has no modules: make firmware")
    bare.inside("flash", "unix", *words, "--set", "name").failed("has no value")
    told = bare.inside("flash", "unix", *words, "--set", f"wifi.password={SECRET}")
    assert SECRET not in told.failed("list of processes", "$WIFI_PASSWORD")
    damaged = tmp_path / "damaged.json"
    damaged.write_text(f'{{"password": "{SECRET}"')
    told = bare.inside("flash", "unix", *words, "--config", damaged)
    assert SECRET not in told.failed("cannot be read")


# ---------------------------------------------------------------- the cable is pulled


@pytest.fixture(scope="session")
def older_disk(old_disk: Path) -> Path:
    """The same, with its configuration at the root."""
    folder = old_disk.with_name("older")
    shutil.copytree(old_disk, folder)
    (folder / "slots" / "a" / "config.json").rename(folder / "config.json")
    return folder


def cut(
    flash: Flash,
    checkouts: tuple[Checkout, Checkout],
    old_disk: Path,
    folder: Path,
    **told: Any,
) -> str:
    """Flash a board that loses its power meanwhile: which program it runs after that, which has
    its own configuration.

    Then it is flashed again, and has the new one.
    """
    shutil.copytree(old_disk, folder)
    with Board(folder, **told) as board:
        run = flash(checkouts[1], board)
        assert run.code == 0 or board.lost_power(), run.out
    with Board(folder) as board:
        said = board.prints(r"program (\w.*?) as (\w+)\s*\n")
        version = said[1]
        assert version in ("old", "new")  # one set of one: no file of another version
        assert said[2] == version
        assert version == "new" or run.code == 1
        assert flash(checkouts[1], board).ended()
        board.prints(r"program new as new\s")
    assert (folder / "main.py").read_bytes().endswith(b"# new\n")
    assert not [p for p in tree(folder) if p.endswith(".new") or p == "config.json"]
    assert tree(folder)["slot"] == b"b"
    return version


def test_power_that_fails_in_the_middle_leaves_the_old_program(
    flash: Flash, checkouts: tuple[Checkout, Checkout], old_disk: Path, tmp_path: Path
) -> None:
    assert cut(flash, checkouts, old_disk, tmp_path / "cut", operations=40) == "old"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_the_old_program_running_and_no_password(
    number: signal.Signals,
    bare: Runner,
    checkouts: tuple[Checkout, Checkout],
    old_disk: Path,
    disk: Path,
) -> None:
    """Ctrl-C, and a terminal that is closed."""
    shutil.copytree(old_disk, disk, dirs_exist_ok=True)
    scratch = disk.parent / "scratch"
    scratch.mkdir()
    bare.environ["TMPDIR"] = str(scratch)
    large = disk.parent / "large.py"
    large.write_text("# this takes a while\n" * 5000)
    with Board(disk, usb=str(disk.parent / "ttyACM0")) as board:
        words = ["flash", "unix", "--boards", checkouts[1].boards, "--device", board.port]
        running = bare.start(*words, "--no-wait", "--program", large)
        until((disk / "slots" / "b" / "program.py").exists)
        assert list(scratch.rglob("*"))
        said = running.stop(number).ended(128 + number).err
        assert said == "Interrupted: the board has what it had before, and goes on.\n"
        assert not list(scratch.rglob("*"))
        board.prints(r"program old\s")
    assert (disk / "slot").read_bytes() == b"a"


def test_a_file_that_arrived_damaged_is_not_run(tmp_path: Path) -> None:
    """However that came: the board itself compares before it switches."""
    slot = tmp_path / "slots" / "b"
    slot.mkdir(parents=True)
    (slot / "program.py").write_bytes(b"whole")
    (tmp_path / "slot.new").touch()

    def activate() -> subprocess.CompletedProcess[str]:
        line = [MICROPYTHON, "-c", scripts.activate("b", [("slot.new", "slot")], [])]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)

    for data, damaged in ((b"while", True), (b"whole", False)):
        files = {"program.py": hashlib.sha256(data).hexdigest()}
        (slot / "complete.new").write_text(json.dumps({"files": files}))
        done = activate()
        assert ("program.py arrived damaged" in done.stdout + done.stderr) == damaged
        assert (slot / "complete").exists() == (tmp_path / "slot").exists() == (not damaged)
    assert (tmp_path / "slot").read_bytes() == b"b"


def test_power_that_fails_at_50_random_points(
    flash: Flash, checkouts: tuple[Checkout, Checkout], old_disk: Path, tmp_path: Path
) -> None:
    """Half of them in operations on files: the last steps are but a few bytes on the cable.

    The last cut comes so late that the board has the new program. The same again
    with $NATSBRIDGE_CUTS, which it prints.
    """
    seed = os.environ.get("NATSBRIDGE_CUTS") or str(random.randrange(1 << 32))
    print(f"NATSBRIDGE_CUTS={seed}")
    chance = random.Random(seed)
    shutil.copytree(old_disk, tmp_path / "whole")
    with Board(tmp_path / "whole", bytes=1 << 40, operations=1 << 20) as board:
        flash(checkouts[1], board).ended()
        board.prints(r"program new\s")
    passed, operations = board.counted
    assert passed > 10_000
    assert operations > 40
    left = []
    for number in range(50):
        folder = tmp_path / f"cut-{number}"
        most, what = ((passed, "bytes"), (operations, "operations"))[number % 2]
        told = {what: chance.randrange(1, most) if number < 49 else most - 1}
        print(number, told, flush=True)
        left.append(cut(flash, checkouts, old_disk, folder, **told))
        shutil.rmtree(folder)
    assert "old" in left
    assert left[-1] == "new"


def test_power_that_fails_at_each_of_the_last_steps(
    flash: Flash, checkouts: tuple[Checkout, Checkout], older_disk: Path, tmp_path: Path
) -> None:
    """From the old program to the new one, when all of it has arrived."""
    shutil.copytree(older_disk, tmp_path / "whole")
    with Board(tmp_path / "whole", bytes=1 << 40, operations=1 << 20) as board:
        flash(checkouts[1], board).ended()
    _, operations = board.counted
    # At last: complete, slot.new (opened, written, closed), slot, main.py, the old config.json.
    left = [
        cut(flash, checkouts, older_disk, tmp_path / str(n), operations=operations - n)
        for n in range(8)
    ]
    assert left == ["new"] * 3 + ["old"] * 5


# ---------------------------------------------------------------- no hello

#: As boards/shared/program.py, but it does not wait for long before it tries again.
IMPATIENT = """
import time
import board
while True:
    try:
        board.connect()
    except Exception as e:
        print(e)
    time.sleep(0.5)
"""


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """A program that tries to connect again and again."""
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    return tmp_path / "impatient.py"


def test_a_wrong_wifi_password_is_told(
    natsbridge: Runner,
    fresh: tuple[Inside, Path],
    boards: Path,
    disk: Path,
    impatient: Path,
) -> None:
    shutil.copytree(fresh[1], disk, dirs_exist_ok=True)
    (disk / "slots" / "a" / "config.json").unlink()
    natsbridge.environ["WIFI_PASSWORD"] = "wrong horse"
    broker = natsbridge.environ["NATS_URL"]
    with Board(disk, **PICO) as board:
        words = ["flash", "rpi_pico_w", "--boards", boards, "--device", board.port]
        words += ["--program", impatient]
        config = disk.parent / "config.toml"
        config.write_text(
            f'broker = "{broker}"\nfileserver_url = ""\nntp = ""\n[wifi]\nssid = "lab"\n'
        )
        run = natsbridge(*words, "--config", config, "--timeout", "4").ended(1)
        assert "said no hello within 4 s" in run.err
        assert "Wi-Fi 'lab': the password is wrong (status -3)" in run.err
        assert "wrong horse" not in run.out + run.err
        # The configuration with the right one is all that is sent then.
        natsbridge.environ["WIFI_PASSWORD"] = SECRET
        run = natsbridge.inside(*words, "--json", "-v").ended()
        did = flashed(run)
        assert (did["sent"], did["kept"], did["config"]) == (
            ["slots/a/config.json"],
            FILES - 1,
            True,
        )
        assert run.records[-1]["hello"]["board"] == PICO["machine"]
        assert SECRET not in run.out + run.err


def test_a_broker_that_is_not_there(
    natsbridge: Runner,
    fresh: tuple[Inside, Path],
    boards: Path,
    disk: Path,
    impatient: Path,
) -> None:
    shutil.copytree(fresh[1], disk, dirs_exist_ok=True)
    nobody = f"nats://127.0.0.1:{free_ports(1)[0]}"
    words = ["flash", "unix", "--boards", boards, "--set", f"broker={nobody}"]
    heard = natsbridge.environ.pop("NATS_URL")
    with Board(disk) as board:
        # Nobody could hear the board here: it stays as it is.
        run = natsbridge.inside(*words, "--device", board.port)
        run.failed("NATS_CONNECTION_FAILED", "nothing was changed", "--no-wait")
        assert tree(disk) == tree(fresh[1])
        # It has another address than we.
        words += ["--server", heard, "--device", board.port, "--timeout", "3"]
        run = natsbridge.inside(*words, "--program", impatient)
        shown = run.ended(1).err
        assert "said no hello within 3 s" in shown
        assert "NATS_CONNECTION_FAILED" in shown.partition("the last it printed is")[2]
    assert json.loads((disk / "slots" / "b" / "config.json").read_text())["broker"] == nobody


# ---------------------------------------------------------------- what was there before


def test_a_main_of_one_s_own_is_kept_and_comes_back(
    flash: Flash, bare: Runner, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    own = b"print('program mine')\n"
    (disk / "main.py").write_bytes(own)
    with Board(disk) as board:
        board.prints(r"program mine\s")
        flash(checkouts[0], board).ended()
        board.prints(r"program old\s")
        assert (disk / "main.old.py").read_bytes() == own
        words = ["unflash", "--device", board.port]
        bare.inside(*words).failed("pass --yes")
        board.prints(r"program old\s")
        run = bare.inside(*words, "--yes").ended()
        assert "Removed main.py, slot, slots; the main.py from before is back" in run.out
        assert "config.json, with its passwords, stays on the board: --config" in run.out
        fits(run.out.splitlines())
        board.prints(r"program mine\s")
        assert tree(disk).keys() == {"main.py", "config.json"}
        assert json.loads((disk / "config.json").read_text())["name"] == "old"
        run = bare.inside(*words, "--yes", "--config", "--json").ended()
        assert run.records == [{"removed": ["config.json"]}]
        assert tree(disk) == {"main.py": own}
        assert "nothing to remove" in bare.inside(*words).ended().out


def test_what_is_configured_is_known_wherever_it_stands(
    bare: Runner, checkouts: tuple[Checkout, Checkout], older_disk: Path, disk: Path
) -> None:
    """At the root, by hand or as it was left there; then it is in the slot alone."""
    shutil.copytree(older_disk, disk, dirs_exist_ok=True)
    at_root = (disk / "config.json").read_bytes()
    with Board(disk) as board:
        board.prints(r"program old as old\s")
        words = ["flash", "unix", "--boards", checkouts[0].boards, "--device", board.port]
        words += ["--no-wait", "--json"]
        did = flashed(bare.inside(*words).ended())
        assert (did["sent"], did["kept"], did["config"]) == (["slots/b/config.json"], 6, True)
        assert (disk / "slots" / "b" / "config.json").read_bytes() == at_root
        # A new name takes the other slot, and nothing else travels.
        did = flashed(bare.inside(*words, "--set", "name=new").ended())
        assert (did["sent"], did["kept"], did["config"]) == (["slots/a/config.json"], 6, True)
        board.prints(r"program old as new\s")
        # That of the slot holds, also over one that comes to the root.
        (disk / "config.json").write_bytes(at_root)
        did = flashed(bare.inside(*words).ended())
        assert (did["slot"], did["bytes"], did["config"]) == (None, 0, False)
        board.prints(r"program old as new\s")
    assert not (disk / "config.json").exists()


def test_unflash_that_is_interrupted_keeps_the_configuration(
    bare: Runner, checkouts: tuple[Checkout, Checkout], old_disk: Path, tmp_path: Path
) -> None:
    """config.json.new is opened, written, closed and renamed; main.py, slot, slots/ are removed.

    What the other slot has is another configuration.
    """
    for n in (*range(7), 9, 12, 15, 18, 20, 24):
        disk = tmp_path / str(n)
        shutil.copytree(old_disk, disk)
        shutil.move(disk / "slots" / "a", disk / "slots" / "b")
        shutil.copytree(disk / "slots" / "b", disk / "slots" / "a")
        other = '{"name": "other", "broker": "nats://127.0.0.1"}'
        (disk / "slots" / "a" / "config.json").write_text(other)
        (disk / "slot").write_text("b")
        with Board(disk, operations=n) as board:
            bare.inside("unflash", "--yes", "--device", board.port).ended(1)
            assert board.lost_power()
        again = shutil.copytree(disk, tmp_path / f"{n} again")
        with Board(again) as board:
            words = ["flash", "unix", "--boards", checkouts[0].boards, "--device", board.port]
            bare.inside(*words, "--no-wait").ended()
            board.prints(r"program old as old\s")
        with Board(disk) as board:
            bare.inside("unflash", "--yes", "--device", board.port).ended()
        assert tree(disk) == {"config.json": (old_disk / "slots/a/config.json").read_bytes()}


def test_a_watchdog_of_somebody_else_s_main_is_not_paused(
    flash: Flash, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    """It would not know of `pause`, which the loader would find in the end."""
    (disk / "main.py").write_text("print('program mine')\n")
    (disk / "config.json").write_text('{"broker": "nats://127.0.0.1", "watchdog": 8000}')
    with Board(disk) as board:
        board.prints(r"program mine\s")
        flash(checkouts[0], board).ended()
        board.prints(r"program old as old\s")
    assert tree(disk).keys() >= {"main.old.py", "slots/a/config.json"}
    assert not tree(disk).keys() & {"pause", "config.json"}


def test_a_watchdog_does_not_end_a_long_copy(
    flash: Flash, checkouts: tuple[Checkout, Checkout], tmp_path: Path, disk: Path
) -> None:
    """It runs on in the raw REPL: only a reset ends it."""
    watched = tmp_path / "watched.py"
    watched.write_text(
        "import machine, time\nwdt = machine.WDT(timeout=4000)\nwhile True:\n"
        "    wdt.feed()\n    print('program watched')\n    time.sleep(0.1)\n"
    )
    large = tmp_path / "large.py"
    program = (checkouts[1].boards / "shared" / "program.py").read_text()
    large.write_text(program + "# all of this takes longer than that\n" * 2000)
    with Board(disk, usb=str(tmp_path / "ttyACM0")) as board:
        options = ["--set", "watchdog=4000"]
        flash(checkouts[0], board, *options, "--program", watched).ended()
        board.prints(r"program watched\s")
        did = flashed(flash(checkouts[1], board, *options, "--program", large).ended())
        assert did["seconds"] > 4
        board.prints(r"program new\s")
    assert not (disk / "pause").exists()


# ---------------------------------------------------------------- ports, questions, secrets


def test_ports_are_found(
    bare: Runner, noted: Callable[[], str], old_disk: Path, tmp_path: Path
) -> None:
    serial = "/dev/ttyS0 None 0000:0000 None None\n"
    bare.environ["PORTS"] = serial
    bare("logs").failed("no board is found", "--device")
    with Board(old_disk, usb=str(tmp_path / "ttyACM0")) as board:
        port = f"{board.port} e660 2e8a:0005 MicroPython Board in FS mode\n"
        bare.environ["PORTS"] = serial + port
        logs = bare.start("logs").says("Board in FS mode").says("program old")
        assert "/dev/ttyS0" not in logs.out
        assert logs.stop().code == 130
        bare.environ["PORTS"] = serial + port + "/dev/ttyACM7 None 303a:1001 None None\n"
        bare("logs").failed("several ports", board.port, "/dev/ttyACM7")
        code, text = bare.on_terminal("logs", typed=[("Which board", "1\n")], until_="program old")
        assert code == 130
        assert "2  /dev/ttyACM7" in text


def test_what_is_missing_is_asked_for_and_secrets_are_nowhere(
    bare: Runner,
    noted: Callable[[], str],
    checkouts: tuple[Checkout, Checkout],
    disk: Path,
) -> None:
    boards = checkouts[0].boards
    with Board(disk, **PICO) as board:
        words = ["flash", "rpi_pico_w", "--boards", boards, "--device", board.port, "--no-wait"]
        bare(*words).failed("lacks wifi.ssid, wifi.password, broker, fileserver_url")
        answers = [
            ("Name of the Wi-Fi", "lab\n"),
            ("Its password", f"{SECRET}\n"),
            ("Name of this board, as in NAME.command [pico-w]", "a b\n"),
            ("must be text without spaces", ""),  # what is of no use is asked for again
            ("[pico-w]", "\n"),
            ("Broker's URL, as the board reaches it:", "nats://127.0.0.1:1\n"),
            ("User at the broker (empty: none)", "me\n"),
            ("Password of that user", "sesame\n"),
            ("File server's URL, as the board reaches it (empty: none)", "http://127.0.0.1:1\n"),
            ("User at the file server (empty: none)", "me\n"),
            ("Password of that user", "ses@me\n"),
        ]
        code, text = bare.on_terminal(*words, "--set", "ntp=", typed=answers)
        assert (code, "Flashed: 7 of 7 files sent" in text) == (0, True)
        assert "`natsbridge up --lan`" in text
        fits(lines_of_screen(text))
        assert "sending" in text  # its bar
        config = disk / "slots" / "a" / "config.json"
        said = json.loads(config.read_text())
        assert said["wifi"] == {"ssid": "lab", "password": SECRET, "country": ""}
        login = said["name"], said["broker"], said["user"], said["password"]
        assert login == ("pico-w", "nats://127.0.0.1:1", "me", "sesame")
        assert said["fileserver_url"] == "http://me:ses%40me@127.0.0.1:1"
        for secret in (SECRET, "sesame", "ses@me", "ses%40me"):
            assert secret not in text + noted()
        # Now the board has them: nothing is asked, and nothing sent.
        assert flashed(bare(*words, "--json").ended())["bytes"] == 0
        # Ctrl-C at a question ends it, and the board goes on.
        config.write_text('{"broker": "nats://127.0.0.1:1"}')
        code, text = bare.on_terminal(*words, until_="Name of the Wi-Fi")
        assert code == 130
        board.prints(r"program old\s")


def test_mpremote_is_not_installed(
    bare: Runner, boards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named mpremote >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    words = ["flash", "unix", "--boards", boards]
    for port in ([], ["--device", "/dev/nothing"]):
        bare.inside(*words, *port).failed("mpremote is not installed: pip install mpremote")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("serial.serialutil.SerialException: device reports", "connection to the board was lost"),
        ("OSError: [Errno 28] ENOSPC", "flash is full"),
        ("OSError: 28", "flash is full"),
        ("mpremote: cp: No space left on device", "flash is full"),
        ("ValueError: program.py arrived damaged", "damaged"),
        ("could not enter raw repl", "does not answer as MicroPython does"),
        ("", "it says nothing"),
        ('board {"config": "secret"}', "it says nothing"),
        ("x\n  new trouble  \n", "new trouble"),
    ],
)
def test_what_mpremote_says_is_explained(said: str, word: str) -> None:
    assert word in fault("/dev/nothing", said).message


# ---------------------------------------------------------------- MicroPython itself


def described(name: str) -> Description:
    """What boards/ says of a board."""
    text = (ROOT / "boards" / name / "board.json").read_text()
    return Description.parse(name, text)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("rpi_pico_w", uf2(0xE48BFF56), None),
        ("rpi_pico2_w", uf2(0xE48BFF57) + uf2(0xE48BFF59), None),  # with a block for its erratum
        ("rpi_pico_w", uf2(0xE48BFF57) + uf2(0xE48BFF59), "another chip than that of rpi_pico_w"),
        ("rpi_pico2_w", uf2(0xE48BFF56), "another chip"),
        ("rpi_pico_w", uf2(0xE48BFF56, flags=0), r"\(none, not 0xe48bff56\)"),
        ("rpi_pico_w", b"UF2\n123", "is not UF2, or not all of it is there"),
        ("rpi_pico_w", uf2(0xE48BFF56) + uf2(0xE48BFF56)[:-1], "not all of it is there"),
        ("rpi_pico_w", bytes(508) + uf2(0)[508:], "is not UF2"),
        ("rpi_pico_w", b"", "another chip"),
        ("esp32", b"\xe9".ljust(300, b"\0"), None),
        ("esp32s3", b"\xe9".ljust(12, b"\0") + b"\x09".ljust(300, b"\0"), None),
        ("esp32c3", b"\xe9".ljust(12, b"\0") + b"\x09".ljust(300, b"\0"), "another chip"),
        ("esp32", uf2(0xE48BFF56), "no image of an ESP32"),
        ("esp32", b"\xe9", "no image of an ESP32"),
        ("unix", b"\xe9", "no image can be installed on unix"),
    ],
)
def test_an_image_is_for_this_board(
    name: str, data: bytes, why: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    if why is None:
        image.check_image(described(name), path)
    else:
        with pytest.raises(NATSBridgeError, match=why):
            image.check_image(described(name), path)


def test_an_image_for_an_esp32_is_written_with_esptool(
    bare: Runner,
    noted: Callable[[], str],
    checkouts: tuple[Checkout, Checkout],
    tmp_path: Path,
    disk: Path,
) -> None:
    boards = checkouts[0].boards
    file = tmp_path / "ESP32.bin"
    file.write_bytes(b"\xe9\x00\x00\x00" + bytes(300))
    esptool = tmp_path / "instead" / "esptool.py"
    told = {"machine": "Generic ESP32 module with ESP32", "platform": "esp32", "flash": 2 << 20}
    with Board(disk, **told) as board:
        words = ["flash", "esp32", "--boards", boards, "--device", board.port, "--image", file]
        words += ["--no-wait", "--set", "broker=nats://h", "--set", "fileserver_url="]
        words += ["--set", "wifi.ssid=x"]
        bare.environ["WIFI_PASSWORD"] = "x"
        esptool.write_text("raise SystemExit('No module named esptool')")
        bare(*words).ended(1)
        esptool.write_text("print('A fatal error occurred: no serial data'); raise SystemExit(2)")
        assert "esptool failed: A fatal error" in bare(*words).ended(1).err
        assert not tree(disk)
        note = "print(json.dumps(sys.argv[1:]), file=open(os.environ['NOTES'], 'a'))"
        esptool.write_text(f"import json, os, sys\n{note}\n")
        run = bare(*words).ended()
        assert "MicroPython is installed." in run.out
        [line] = [json.loads(x) for x in noted().splitlines() if "write_flash" in x]
        port = ["--port", board.port, "--baud", "460800"]
        assert line == [*port, "write_flash", "-z", "0x1000", str(file)]
        assert tree(disk)["slot"] == b"a"


def test_an_image_for_a_pico_is_copied_to_its_drive(
    bare: Runner, checkouts: tuple[Checkout, Checkout], tmp_path: Path, disk: Path
) -> None:
    boards = checkouts[0].boards
    file = tmp_path / "pico.uf2"
    file.write_bytes(uf2(0xE48BFF56) + uf2(0xE48BFF56))
    drive = tmp_path / "RPI-RP2"
    drive.mkdir()
    with Board(disk, **PICO) as board:
        words = ["flash", "rpi_pico_w", "--boards", boards, "--device", board.port, "--no-wait"]
        words += ["--set", "broker=nats://h", "--set", "fileserver_url=", "--set", "wifi.ssid=x"]
        bare.environ["WIFI_PASSWORD"] = "x"
        words += ["--drive", drive, "--image"]
        bare.inside(*words, file).failed("has no INFO_UF2.TXT", "BOOTSEL")
        (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v1.0\nBoard-ID: RP2350\n")
        bare.inside(*words, file).failed("is the drive of another board", "does not say RPI-RP2")
        (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v3.0\r\nBoard-ID: RPI-RP2\r\n")
        bare.inside(*words, Path(__file__)).failed("is no image for rpi_pico_w", "is not UF2")
        assert not tree(disk)
        bare.inside(*words, file).ended()
    assert (drive / "pico.uf2").read_bytes() == file.read_bytes()
    assert tree(disk)["slot"] == b"a"


def test_the_drive_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, info in (("usb", None), ("other", "Board-ID: SAMD21"), ("x", "Board-ID: RPI-RP2")):
        (tmp_path / name).mkdir()
        if info:
            (tmp_path / name / image.INFO).write_text(info)
    monkeypatch.setattr(image, "_mounted", lambda: sorted(tmp_path.iterdir()))
    boards = {name: described(name) for name in ("rpi_pico_w", "rpi_pico2_w")}
    assert image.find_drive(boards["rpi_pico_w"]) == tmp_path / "x"
    assert image.find_drive(boards["rpi_pico2_w"]) is None
    (tmp_path / "x" / image.INFO).unlink()
    assert image.find_drive(boards["rpi_pico_w"]) is None


# ---------------------------------------------------------------- the simulated board


def test_mpremote_installs_our_package_for_mip(tmp_path: Path, disk: Path) -> None:
    """The real one, on the simulated board: as on any other."""
    release = tmp_path / "release"
    shutil.copytree(compiled() / "natsbridge", release / "natsbridge")
    names = sorted(path.name for path in (release / "natsbridge").iterdir())
    urls = [[f"natsbridge/{name}", f"natsbridge/{name}"] for name in names]
    (release / "package.json").write_text(json.dumps({"urls": urls, "version": "1"}))
    with Board(disk) as board:
        # Unbuffered: what the board prints, it writes past what it prints itself.
        line = [sys.executable, "-u", "-m", "mpremote", "connect", board.port]
        line += ["mip", "install", str(release / "package.json"), "+"]
        line += ["exec", "import natsbridge; print(natsbridge.__version__)"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done
        assert done.stdout.splitlines()[-1] == package.__version__, done
    assert len(list((disk / "lib" / "natsbridge").iterdir())) == len(names)


def test_the_simulated_board_is_stopped_at_any_moment(tmp_path: Path) -> None:
    """Ctrl-C and Ctrl-A lead to the raw REPL: while it starts, with a program that ends, and with
    one that does not."""
    for number, (main, ms) in enumerate(
        (main, ms) for main in ("", "while True: print(1)") for ms in range(0, 100, 8)
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "main.py").write_text(main)
        with Board(folder) as board:
            time.sleep(ms / 1000)
            port = os.open(board.port, os.O_WRONLY | os.O_NOCTTY)
            os.write(port, b"\r\x03\r\x01")
            os.close(port)
            board.prints(r"raw REPL; CTRL-B to exit\r\n>", 20)


def test_the_port_of_a_simulated_board_that_lost_its_power(disk: Path) -> None:
    """No other terminal has it; as long as somebody may believe in it."""
    with Board(disk, bytes=1) as board:
        with contextlib.suppress(AssertionError):
            board.prints("MicroPython")
        assert board.lost_power()
        with pytest.raises(AssertionError, match="its simulator ended: 0"):
            board.prints("MicroPython")
        others = [pty.openpty() for _ in range(3)]
        names = [os.ttyname(side) for _, side in others]
        for file in itertools.chain(*others):
            os.close(file)
        assert board.port not in names
