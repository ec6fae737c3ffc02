"""Starts the firmware on MicroPython's unix port, as a process of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FIRMWARE = Path(__file__).parent.parent / "firmware"
#: The unix port: $MICROPYTHON, or the one that was installed beside this Python.
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).with_name("micropython"))


def micropython(
    script: Path, *arguments: str, heap: str = "64K", path: Path = FIRMWARE, **options: Any
) -> subprocess.Popen[str]:
    """Start `script` under a heap of that size, importing natsbridge from `path`."""
    environment = {**os.environ, "MICROPYPATH": f"{path}:.frozen", **options.pop("env", {})}
    return subprocess.Popen(
        [MICROPYTHON, "-X", f"heapsize={heap}", str(script), *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )
