"""What the tests of natsbridge flash begin with: programs, and boards that have them already."""

from __future__ import annotations

import shutil
import struct
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Inside, Runner
from device import MPY_CROSS, compiled
from simulator import Board

ROOT = Path(__file__).parent.parent
SECRET = "open sesame"
#: What a Pico W with its Wi-Fi says it is.
PICO: dict[str, Any] = {
    "platform": "rp2",
    "machine": "Raspberry Pi Pico W with RP2040",
    "version": [1, 24, 0],
    "wifi": {"ssid": "lab", "password": SECRET},
}


class Checkout:
    """boards/ and build/firmware/ of a small program, all of whose files say its version.

    Its configuration says that too, as the name of the board.
    """

    MAIN = "from natsbridge import same, first, last\n"
    PROGRAM = """
    import sys, time
    import board, natsbridge
    from natsbridge import first, last, same
    versions = {VERSION, board.VERSION, natsbridge.VERSION, first.VERSION, last.VERSION}
    while True:
        print("program", *versions, "as", board.config()["name"])
        time.sleep(0.1)
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.version = version
        self.boards = folder / "boards"
        shared = self.boards / "shared"
        shared.mkdir(parents=True)
        for name in ("unix", "esp32", "rpi_pico_w"):
            shutil.copytree(ROOT / "boards" / name, self.boards / name)
        says = f"VERSION = {version!r}\n"
        (shared / "program.py").write_text(says + textwrap.dedent(self.PROGRAM))
        board = (ROOT / "boards" / "shared" / "board.py").read_text()
        (shared / "board.py").write_text(f"{board}{says}")
        main = (ROOT / "boards" / "shared" / "main.py").read_text()
        (shared / "main.py").write_text(f"{main}# {version}\n")
        built = folder / "build" / "firmware" / "natsbridge"
        built.mkdir(parents=True)
        rest = "".join(f"    {n}\n" for n in range(300))
        for name, text in (
            ("__init__", says),
            ("first", says),
            ("same", f"TEXT = '''{rest}'''\n"),
            ("last", f"{says}TEXT = '''{rest}'''\n"),
        ):
            source = folder / f"{name}.py"
            source.write_text(text)
            line = [MPY_CROSS, "-s", name, "-o", built / f"{name}.mpy", source]
            subprocess.run(line, check=True)


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's boards/, beside a firmware that was built."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "build").mkdir()
    (folder / "boards").symlink_to(ROOT / "boards")
    (folder / "build" / "firmware").symlink_to(compiled())
    return folder / "boards"


@pytest.fixture(scope="session")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Checkout]:
    """Two versions of a program."""
    folder = tmp_path_factory.mktemp("versions")
    return Checkout(folder / "1", "old"), Checkout(folder / "2", "new")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A board's empty file system."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


Flash = Callable[..., Any]


@pytest.fixture
def flash(bare: Runner) -> Flash:
    """Runs `natsbridge flash` of a checkout's program, on the unix port."""

    def run(checkout: Checkout, board: Board, *options: object, inside: bool = True) -> Any:
        words = ["flash", "unix", "--boards", checkout.boards, "--device", board.port, "--json"]
        words += ["--no-wait", "--set", "broker=nats://127.0.0.1", "--set", "fileserver_url="]
        words += ["--set", f"name={checkout.version}", *options]
        return bare.inside(*words) if inside else bare(*words)

    return run


@pytest.fixture(scope="session")
def old_disk(
    checkouts: tuple[Checkout, Checkout], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The file system of a board that has the old program."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "disk").mkdir()
    runner = Runner(folder, folder)
    with Board(folder / "disk") as board:
        words = ["flash", "unix", "--boards", checkouts[0].boards, "--device", board.port]
        words += ["--no-wait", "--set", "broker=nats://127.0.0.1", "--set", "fileserver_url="]
        runner.inside(*words, "--set", "name=old").ended()
        board.prints(r"program old\s")
    return folder / "disk"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a board."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flashed(run: Inside) -> dict[str, Any]:
    """What `flash --json` did."""
    [said] = [r["flashed"] for r in run.records if "flashed" in r]
    return dict(said)


def uf2(family: int, flags: int = 0x2000) -> bytes:
    """A block of an image for a chip."""
    head = struct.pack("<IIIIIIII", 0x0A324655, 0x9E5D5157, flags, 0x10000000, 256, 0, 1, family)
    return head.ljust(508, b"\0") + struct.pack("<I", 0x0AB16F30)


#: In the place of mpremote: it notes its command lines, and shows ports that are not there.
MPREMOTE = """
import json, os, runpy, sys
with open(os.environ["NOTES"], "a") as notes:
    print(json.dumps(sys.argv[1:]), file=notes)
if sys.argv[1:] == ["connect", "list"]:
    print(os.environ["PORTS"], end="")
    sys.exit()
sys.path.remove(os.environ["PYTHONPATH"])
for name in [n for n in sys.modules if n.startswith("mpremote")]:
    del sys.modules[name]
runpy.run_module("mpremote", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def noted(bare: Runner, tmp_path: Path) -> Callable[[], str]:
    """Has mpremote find what $PORTS says, and returns all of its command lines."""
    module = tmp_path / "instead" / "mpremote"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    (module / "__main__.py").write_text(MPREMOTE)
    notes = tmp_path / "notes"
    notes.touch()
    bare.environ.update(PYTHONPATH=str(module.parent), NOTES=str(notes), PORTS="")
    return notes.read_text
