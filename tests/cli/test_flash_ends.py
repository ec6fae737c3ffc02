"""How natsbridge flash, logs and unflash end: what a board's user is told, and left with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from checkouts import Checkout, Flash, tree
from command import PATIENCE, Runner, until
from natsbridge.flashing import console, link
from natsbridge.flashing.link import Link, MpremoteError, fault
from simulator import Board

# ---------------------------------------------------------------- what a board prints


def test_why_a_program_fails_is_told_and_logged(
    natsbridge: Runner, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    """From its first start on, though the port is away meanwhile; and again, for who comes late."""
    boards = shutil.copytree(checkouts[0].boards, disk.parent / "checkout" / "boards")
    shutil.copytree(checkouts[0].boards.parent / "build", boards.parent / "build")
    main = boards / "shared" / "main.py"
    main.write_text(main.read_text().replace("_DELAY = 10 ", "_DELAY = 4 "))
    wrong = disk.parent / "wrong.py"
    wrong.write_text("if True\n    pass\n")
    url = natsbridge.environ["NATS_URL"]
    with Board(disk, usb=str(disk.parent / "ttyACM0")) as board:
        words = ["flash", "unix", "--boards", boards, "--device", board.port, "--timeout", "1"]
        words += ["--set", f"broker={url}", "--set", "fileserver_url=", "--program", wrong]
        run = natsbridge.inside(*words)
        assert "said no hello within 1 s; the last it printed is 'SyntaxError: " in run.err
        logs = natsbridge.start("logs", "--device", board.port)
        logs.says(f"Following {board.port} until Ctrl-C:").says("SyntaxError")
        assert logs.stop().code == 130


async def told_until(told: list[object], what: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while not what():
        assert asyncio.get_running_loop().time() < end, told
        await asyncio.sleep(0.01)


def test_the_first_line_of_each_start_is_read(disk: Path) -> None:
    """A board may print nothing else, at once, and then be reset."""
    (disk / "n").write_text("0")
    (disk / "main.py").write_text(
        "import machine, time\n"
        "n = int(open('n').read()) + 1\n"
        "with open('n', 'w') as f:\n    f.write(str(n))\n"
        "print('start', n)\n"
        "time.sleep(0.3)\n"
        "machine.reset()\n"
    )
    port = str(disk.parent / "ttyACM0")
    told: list[object] = []

    async def follow() -> None:
        async with console.follow(port, told.append):
            await told_until(told, lambda: len(told) >= 4)

    with Board(disk, usb=port):
        asyncio.run(follow())
    first = int(str(told[0]).split()[1])
    assert told == [f"start {n}" for n in range(first, first + len(told))]


def test_that_a_board_is_away_is_told_and_that_it_is_back(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (disk / "main.py").write_text("while True: print('here')\n")
    monkeypatch.setattr(console, "AWAY_S", 0.3)
    port = str(disk.parent / "ttyACM0")
    told: list[object] = []

    async def follow() -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(Board(disk, usb=port))
            async with console.follow(port, told.append, told.append):
                await told_until(told, lambda: "here" in told)
                stack.close()
                await told_until(told, lambda: True in told)
                stack.enter_context(Board(disk, usb=port))
                await told_until(told, lambda: False in told)

    asyncio.run(follow())
    assert [x for x in told if isinstance(x, bool)] == [True, False]


# ---------------------------------------------------------------- Ctrl-C while it is paused

WATCHED = """
import machine, time
wdt = machine.WDT(timeout=4000)
while True:
    wdt.feed()
    print("program watched")
    time.sleep(0.1)
"""


def test_ctrl_c_does_not_leave_a_watched_board_paused(
    flash: Flash, bare: Runner, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    """It is reset once, to get rid of the watchdog: Ctrl-C comes before that, and after."""
    (disk.parent / "watched.py").write_text(WATCHED)
    pause = disk / "pause"
    with Board(disk, usb=str(disk.parent / "ttyACM0")) as board:
        options = ["--set", "watchdog=4000", "--program", disk.parent / "watched.py"]
        flash(checkouts[0], board, *options).ended()
        board.prints(r"program watched\s")
        words = ["flash", "unix", "--boards", checkouts[1].boards, "--device", board.port]
        for when in (pause.exists, lambda: not pause.exists()):
            running = bare.start(*words, "--no-wait")
            until(pause.exists, "the pause")
            until(when)
            said = running.stop().ended(130).err
            assert said == "Interrupted: the board has what it had before, and goes on.\n"
            board.prints(r"program watched\s")
            assert not pause.exists()


# ---------------------------------------------------------------- what is somebody else's


def test_a_configuration_of_somebody_else_s_program_stays(
    flash: Flash, bare: Runner, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    """And a main.py that only looks like a loader."""
    theirs = {
        "main.py": b"# my slots/ are complete\nprint('program mine')\n",
        "config.json": b'{"api_key": "the only copy", "name": "by chance"}',
    }
    for name, data in theirs.items():
        (disk / name).write_bytes(data)
    with Board(disk) as board:
        flash(checkouts[0], board).ended()
        assert (disk / "config.json").read_bytes() == theirs["config.json"]
        board.prints(r"program old as old\s")
        run = bare.inside("unflash", "--yes", "--device", board.port).ended()
        assert "config.json is none of ours, and stays." in run.out
    assert tree(disk) == theirs


def test_unflash_that_is_declined_removes_nothing(bare: Runner, old_disk: Path, disk: Path) -> None:
    shutil.copytree(old_disk, disk, dirs_exist_ok=True)
    with Board(disk) as board:
        words = ["unflash", "--device", board.port]
        code, text = bare.on_terminal(*words, typed=[("Remove main.py, slot, slots", "n\n")])
        assert (code, "Nothing is removed; the board is reset." in text) == (0, True)
        board.prints(r"program old\s")
    assert tree(disk) == tree(old_disk)


# ---------------------------------------------------------------- ports, and no answer


def test_what_is_no_port_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for port, word in (
        ("nope", "there is no port nope"),
        ("/dev/nope", "there is no port /dev/nope"),
        (str(tmp_path), "is no serial port"),
        (str(tmp_path / "file"), "is no serial port"),
        ("/dev/null", "/dev/null is no serial port"),
        ("rfc2217://h", "close the program that uses it"),
    ):
        assert word in fault(port, "mpremote: failed to access it").message


@pytest.mark.parametrize("errors", [1, 2])
def test_a_board_that_does_not_answer_is_tried_once_more(
    errors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ["could not enter raw repl", "device disconnected"][:errors]
    seen: list[str] = []

    async def mpremote(*words: str, port: str, **options: object) -> str:
        seen.append(words[2])
        if left:
            raise fault(port, left.pop(0))
        return "nonsense"

    async def interrupt(port: str, patience: float) -> None:
        seen.append("interrupt")

    async def survey() -> None:
        board = Link("rfc2217://h", lambda: seen.append("told"))
        try:
            await board.survey()
        finally:
            await board.release()

    monkeypatch.setattr(link, "mpremote", mpremote)
    monkeypatch.setattr(console, "interrupt", interrupt)
    with pytest.raises(MpremoteError, match="no answer that makes" if errors == 1 else "was lost"):
        asyncio.run(survey())
    # What did answer is released.
    tried = ["exec", "told", "interrupt", "exec"]
    assert seen == [*tried, *(["exec"] if errors == 1 else [])]


@pytest.mark.long
def test_a_program_that_ignores_ctrl_c_is_replaced_when_reset_is_pressed(
    flash: Flash, bare: Runner, checkouts: tuple[Checkout, Checkout], disk: Path
) -> None:
    # What a board imports before its loop takes it that long: there Ctrl-C still ends it.
    (disk / "main.py").write_text(
        "import time\ntime.sleep(0.2)\nwhile True:\n    try:\n        while True:\n"
        "            print('deaf')\n"
        "            time.sleep(0.1)\n    except BaseException:\n        pass\n"
    )
    with Board(disk) as board:
        board.prints("deaf")
        words = ["flash", "unix", "--boards", checkouts[0].boards, "--device", board.port]
        words += ["--no-wait", "--set", "broker=nats://h", "--set", "fileserver_url="]
        running = bare.start(*words)
        running.says("The board does not answer.")
        board.press_reset()
        running.wait().ended()
        board.prints(r"program old as unix\s")
    assert "main.old.py" in tree(disk)


def test_what_no_option_can_be(bare: Runner) -> None:
    for seconds in ("-5", "0", "nan", "inf"):
        bare.inside("flash", "unix", "--timeout", seconds).ended(2)
    assert "--drive is for an --image" in bare.inside("flash", "unix", "--drive", "x").ended(2).err
    for command in ("flash", "unflash", "logs"):
        assert [x for x in bare.inside(command, "--help").out.splitlines() if len(x) > 80] == []


def test_what_is_wrong_is_told_before_the_board_is_touched(bare: Runner, boards: Path) -> None:
    words = ("flash", "rpi_pico_w", "--boards", boards, "--device", "/dev/nothing")
    for setting, word in (
        ("watchdog=99999999", "watchdog must be a number of milliseconds, 0 for none, at most 83"),
        ("watchdog=abc", "watchdog must be"),
        ("name=a b", "name must be"),
        ("broker=null", "broker must be"),
        ("colour=red", "unknown key 'colour'"),
    ):
        bare.inside(*words, "--set", setting).failed("--set", word)
    config = bare.cwd / "c.json"
    config.write_text(json.dumps({"wifi": "lab"}))
    bare.inside(*words, "--config", config).failed("c.json: wifi must be null, or a table")
    bare.environ["WIFI_SSID"] = "x" * 33
    bare.inside(*words).failed("$WIFI_SSID: wifi.ssid must be text of 1 to 32 bytes")
    bare.inside(*words, "--program", "/dev/zero").failed("/dev/zero has more than 868,352 bytes")
