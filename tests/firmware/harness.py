"""What the firmware's tests share: MicroPython processes, and the firmware under CPython."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import tempfile
import types
from pathlib import Path

from device import FIRMWARE, command, compiled

#: The name under which CPython knows the firmware; the host's package has its own name.
PACKAGE = "firmware_natsbridge"


def run_micropython(
    script: str,
    *arguments: str,
    heap: str = "64K",
    timeout: float = 30,
    env: dict[str, str] | None = None,
    path: Path | None = None,
) -> str:
    """Run `script` (text) on the unix port and return what it printed.

    The firmware is the compiled one unless `path` says otherwise. A script that ends with an
    error fails the test.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        line, place = command(
            Path(file.name), *arguments, heap=heap, path=path or compiled(), env=env
        )
        done = subprocess.run(line, **place, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load_firmware(module: str, name: str = PACKAGE) -> types.ModuleType:
    """Import a part of the firmware that needs no board (no socket, no ticks) under CPython, as a
    part of the package `name`."""
    if "micropython" not in sys.modules:
        stub = types.ModuleType("micropython")
        stub.const = lambda value: value  # type: ignore[attr-defined]
        sys.modules["micropython"] = stub
        gc.mem_free = lambda: 1 << 20  # type: ignore[attr-defined] # what only the device has
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(FIRMWARE / "natsbridge")]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.{module}")
