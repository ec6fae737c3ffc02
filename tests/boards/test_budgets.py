"""Every board: its budget holds what is put on it, and its files are what they must be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device import MICROPYTHON, compiled

ROOT = Path(__file__).parent.parent.parent
BOARDS = ROOT / "boards"
NAMES = sorted(path.parent.name for path in BOARDS.glob("*/board.json"))
#: What a flash file system gives out at a time: littlefs and FAT as MicroPython sets them up.
BLOCK = 4096
#: Bytes that TLS adds on the 64-bit unix port, without its buffers: `make tls` measures them.
TLS_CODE = 3 * 1024 + 3_700


def board(name: str) -> dict[str, Any]:
    return json.loads((BOARDS / name / "board.json").read_text(encoding="utf-8"))


def constant(module: str, name: str) -> int:
    """A constant of the firmware's source."""
    source = (ROOT / "firmware/natsbridge" / f"{module}.py").read_text(encoding="utf-8")
    [value] = re.findall(rf"^{name} = const\((\d+)\)", source, re.M)
    return int(value)


@pytest.fixture(scope="session")
def held() -> dict[str, int]:
    """Bytes that the firmware's code holds, as `make footprint` measures them."""
    out = subprocess.run(
        [sys.executable, ROOT / "tools/footprint.py", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(out.stdout)


@pytest.fixture(scope="session")
def shared() -> int:
    """Bytes of heap that board.py and program.py hold, without what they import."""
    folder = compiled(BOARDS / "shared", "")
    code = (
        "import gc, sys, json, time\nfrom micropython import const\n"
        "class nothing: pass\n"
        "def heap():\n    gc.collect()\n    return gc.mem_alloc()\n"
        "a = heap()\nimport board\n"
        "board.connect = sys.exit\n"  # the program only begins
        "sys.modules['natsbridge'] = nothing\n"
        "nothing.NATSBridgeError = OSError\n"
        "try:\n    import program\nexcept SystemExit:\n    pass\n"
        "print(heap() - a)\n"
    )
    out = subprocess.run(
        [MICROPYTHON, "-c", code],
        cwd=folder,
        env={**os.environ, "MICROPYPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(out.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_the_heap_holds_both_ways_with_tls_and_a_payload(
    name: str, held: dict[str, int], shared: int
) -> None:
    about = board(name)
    code = held["direct and link, both ways"] + shared + TLS_CODE
    assert 2_000 < shared < 20_000  # it was measured
    need = code * about["heap_factor"] + about["tls_in_heap"]
    need += constant("errors", "_RESERVE") + constant("client", "_QUEUE")
    need += about["memory_payload"]
    assert need <= about["heap"], f"{name} lacks {need - about['heap']:.0f} bytes"


#: Sends a payload of that size out of memory and receives it into memory, in a message and by link.
BOTH_WAYS = """
import gc, sys
import board, natsbridge
n = int(sys.argv[1])
nc = board.connect()
sub = nc.subscribe("budget")
for threshold in (1 << 30, 1) * 3:
    options = board.options(nc)
    options["size_threshold"] = threshold
    natsbridge.smartsend("budget", [("p", bytearray(n), "binary")], **options)
    data = natsbridge.smartreceive(sub.next(10), **board.options())["payloads"][0][1]
    print(len(data))
    data = None
"""


@pytest.mark.parametrize("name", [name for name in NAMES if name != "unix"])
def test_it_runs_in_that_heap(name: str, nats_url: str, file_url: str, tmp_path: Path) -> None:
    """On the 64-bit port, where the objects have more room, and the payload has none more."""
    about = board(name)
    size = about["memory_payload"]
    code = about["heap"] - size - about["tls_in_heap"]
    heap = int(code / about["heap_factor"]) + size
    for path in [*compiled().iterdir(), *compiled(BOARDS / "shared", "").glob("board.mpy")]:
        (tmp_path / path.name).symlink_to(path)
    config = {"name": "b", "broker": nats_url, "fileserver_url": file_url, "ntp": ""}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "both.py").write_text(BOTH_WAYS)
    out = subprocess.run(
        [MICROPYTHON, "-X", f"heapsize={heap}", "both.py", str(size)],
        cwd=tmp_path,
        env={**os.environ, "MICROPYPATH": ".:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert out.stdout == f"{size}\n" * 6, out.stdout + out.stderr


def on_flash(files: list[int]) -> int:
    """Bytes that a folder takes: its files in whole blocks, and two blocks of its own."""
    return sum(-(-size // BLOCK) * BLOCK for size in files) + 2 * BLOCK


@pytest.mark.parametrize("name", [name for name in NAMES if board(name)["flash"]])
def test_the_flash_holds_two_slots_and_a_staged_one(name: str) -> None:
    package = [path.stat().st_size for path in (compiled() / "natsbridge").glob("*.mpy")]
    assert len(package) > 20
    parts = [(BOARDS / "shared" / f).stat().st_size for f in ("board.py", "program.py")]
    slot = on_flash(package) + on_flash([*parts, 2_000, 5_000])  # config.json, complete
    need = 3 * slot + on_flash([5_000, 1])  # main.py, slot
    assert need <= board(name)["flash"] * 0.9  # littlefs wants some free to work with


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_modules_load_on_it(name: str) -> None:
    """The docs' rules ('MicroPython .mpy files'): the version is the same, the small integers no
    larger, and the architecture any, where there is no native code."""
    mpy = board(name)["mpy"]
    for path in (compiled() / "natsbridge").glob("*.mpy"):
        head = path.read_bytes()[:4]
        assert head[:1] == b"M"
        assert head[1] == mpy["version"]
        assert head[2] >> 2 == 0, f"{path.name} has native code"
        assert head[3] <= mpy["small_int_bits"]


@pytest.mark.parametrize("name", NAMES)
def test_its_description_is_whole(name: str) -> None:
    about = board(name)
    assert set(about) == set(board("unix"))
    for key in ("flash_source", "heap_source", "watchdog_source"):
        assert len(about[key]) > 15
    assert re.fullmatch(r"1\.\d+(\.\d+)?", about["micropython"])
    if about["port"] != "unix":
        assert {"{date}", "{version}"} <= set(re.findall(r"{\w+}", about["image"]))
    assert (BOARDS / name / "README.md").read_text(encoding="utf-8").count("\n") < 30


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("Generic ESP32 module with ESP32", "esp32"),
        ("Generic ESP32S3 module with ESP32S3", "esp32s3"),
        ("ProS3 with ESP32-S3", "esp32s3"),
        ("ESP32C3 module with ESP32C3", "esp32c3"),
        ("LOLIN_C3_MINI with ESP32-C3FH4", "esp32c3"),
        ("Raspberry Pi Pico W with RP2040", "rpi_pico_w"),
        ("Raspberry Pi Pico 2 W with RP2350", "rpi_pico2_w"),
        ("Raspberry Pi Pico with RP2040", None),
        ("linux [GCC 14.2.1] version", "unix"),
    ],
)
def test_a_board_is_told_by_its_machine(machine: str, name: str | None) -> None:
    found = [n for n in NAMES if re.search(board(n)["machine"], machine)]
    assert found == [name][: name is not None]


@pytest.mark.parametrize("name", NAMES)
def test_its_configuration_is_a_template(name: str) -> None:
    """board.py takes it, once it names a network; it has no secret, and its watchdog is one that
    the port has."""
    text = (BOARDS / name / "config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    about = board(name)
    source = (BOARDS / "shared" / "board.py").read_text(encoding="utf-8")
    [defaults] = re.findall(r"_DEFAULTS = \{(.*?)\n\}", source, re.S)
    assert list(config) == re.findall(r'"(\w+)":', defaults)
    wifi = config["wifi"] or {}
    for secret in (config["user"], config["password"], config["token"], *wifi.values()):
        assert secret == ""
    assert config["watchdog"] <= (about["watchdog_max"] or 0)
    assert config["size_threshold"] == about["size_threshold"]
    assert re.fullmatch(r"[a-z0-9-]+", config["name"])


@pytest.mark.parametrize("name", NAMES)
def test_its_manifest_freezes_the_package_and_board_py(name: str) -> None:
    """With the functions that MicroPython's manifestfile.py gives it."""
    done = []

    def note(kind: str) -> Callable[..., None]:
        return lambda path, **options: done.append((kind, path, options))

    kinds = ("include", "package", "module")
    manifest = BOARDS / name / "manifest.py"
    exec(manifest.read_text(encoding="utf-8"), {kind: note(kind) for kind in kinds})
    assert [kind for kind, *_ in done] == list(kinds)
    assert re.match(r"\$\((PORT|BOARD)_DIR\)/.*manifest\.py$", done[0][1])
    for _, path, options in done[1:]:
        assert (manifest.parent / options["base_path"] / path).exists()
        assert options["opt"] == 3
