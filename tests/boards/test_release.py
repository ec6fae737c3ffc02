"""build/release is what mip installs: mpremote's, and the device's own."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import natsbridge
from device import MICROPYTHON
from simulator import Board

ROOT = Path(__file__).parent.parent.parent


def make(folder: Path, tools: Path = ROOT / "tools") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, tools / "release.py", folder]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "out"
    done = make(folder)
    assert done.returncode == 0, done.stderr
    assert f"natsbridge {natsbridge.__version__} for mip: " in done.stdout
    return folder


def test_it_is_the_whole_package_with_its_version(release: Path) -> None:
    package = json.loads((release / "package.json").read_text())
    assert package["version"] == natsbridge.__version__
    sources = {f"{path.stem}.mpy" for path in (ROOT / "firmware/natsbridge").glob("*.py")}
    assert {path.name for path in (release / "natsbridge").iterdir()} == sources
    assert package["urls"] == [[name, name] for name in sorted(f"natsbridge/{s}" for s in sources)]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"M\x05\x00\x1f", "its format is 5, and 6 is loaded there"),
        (b"M\x06\x08\x1f", "it has native code"),
        (b"M\x06\x00\x3e", "its integers have 62 bits, and 31 are had there"),
    ],
)
def test_what_a_board_does_not_load_is_not_released(head: bytes, why: str, tmp_path: Path) -> None:
    """In a copy of the tree, with one module that was compiled for another board."""
    for part in ("boards", "firmware"):
        (tmp_path / part).symlink_to(ROOT / part)
    for part in ("tools", "build/firmware/natsbridge"):
        shutil.copytree(ROOT / part, tmp_path / part)
    modules = tmp_path / "build/firmware/natsbridge"
    data = (modules / "send.mpy").read_bytes()
    (modules / "send.mpy").write_bytes(head + data[4:])
    done = make(tmp_path / "out", tmp_path / "tools")
    assert done.returncode == 1
    assert done.stderr.startswith("release failed: send.mpy does not load on esp32: ")
    assert why in done.stderr
    assert not (tmp_path / "out" / "package.json").exists()


def installed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "natsbridge").iterdir()}


def runs(lib: Path) -> None:
    """What was installed there can be imported, whole."""
    modules = [path.stem for path in (lib / "natsbridge").glob("[!_]*.mpy")]
    code = "import natsbridge\n"
    code += "".join(f"import natsbridge.{name}\n" for name in modules)
    code += "print(natsbridge.__version__)"
    out = subprocess.run(
        [MICROPYTHON, "-c", code],
        env={**os.environ, "MICROPYPATH": f"{lib}:.frozen"},
        capture_output=True,
        text=True,
    )
    assert out.stdout == natsbridge.__version__ + "\n", out.stderr


def test_mpremote_installs_it(release: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    with Board(tmp_path) as board:
        line = [sys.executable, "-m", "mpremote", "connect", board.port, "mip", "install"]
        done = subprocess.run(
            [*line, release / "package.json"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(lib) == installed(release)
    runs(lib)


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_device_installs_it(release: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    with web_server(release) as url:
        out = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=256K", "-c", f"import mip\nmip.install('{url}/')"],
            env={**os.environ, "MICROPYPATH": f"{lib}:.frozen"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert out.stdout.endswith("Done\n"), out.stdout + out.stderr
    assert installed(lib) == installed(release)
    runs(lib)
