"""What the tools play on: real servers on free loopback ports, the device, and their command line.

No child outlives its tool, whatever ends that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from natsbridge.cli.child import die_with

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
BIN = Path(sys.executable).parent
MICROPYTHON = os.environ.get("MICROPYTHON") or str(BIN / "micropython")
if os.sep in MICROPYTHON:
    MICROPYTHON = str(Path(MICROPYTHON).absolute())
#: Seconds that any step may take.
PATIENCE_S = 30


class ToolError(Exception):
    """What went wrong, for the person at the terminal."""


@contextlib.asynccontextmanager
async def process(*command: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a child in a session of its own, so that Ctrl-C reaches the tool alone."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            preexec_fn=functools.partial(die_with, os.getpid(), signal.SIGKILL),
            start_new_session=True,
            **options,
        )
    except OSError as e:
        raise ToolError(f"{command[0]} can't be started: {e.strerror}") from e
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def announced(folder: Path) -> str:
    """The URL in the file that nats-server writes once it listens, "" before."""
    for path in folder.glob("*.ports"):
        text = path.read_text()
        if text.rstrip().endswith("}"):
            return text.split('"nats"')[1].split('"')[1]
    return ""


@contextlib.asynccontextmanager
async def nats_server(folder: Path, *options: str) -> AsyncIterator[str]:
    """Run nats-server on a free loopback port: its URL."""
    command = [str(BIN / "nats-server"), "-a", "127.0.0.1", "-p", "-1"]
    command += ["--ports_file_dir", str(folder), *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    async with process(*command, **quiet) as child:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and child.returncode is None:
            if url := announced(folder):
                yield url
                return
            await asyncio.sleep(0.02)
        raise ToolError("nats-server did not start; try: .venv/bin/nats-server -a 127.0.0.1")


@contextlib.asynccontextmanager
async def mqtt_server(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Run nats-server with a listener for MQTT: both URLs."""
    log = folder / "nats.log"
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: tools\njetstream {{ store_dir: "{folder}" }}\n'
        'mqtt { listen: "127.0.0.1:-1" }\n'
    )
    async with nats_server(folder, "-c", str(config), "-l", str(log)) as nats_url:
        listens = re.search(r"mqtt://\S+", log.read_text())
        if not listens:
            raise ToolError("nats-server has no MQTT listener")
        yield nats_url, listens[0]


@contextlib.asynccontextmanager
async def device(
    module: str, heap: str, nats_url: str, fileserver_url: str, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one of the tools' device programs, with the firmware, as .mpy on the unix port."""
    environment = {
        **os.environ,
        "NATS_URL": nats_url,
        "FILESERVER_URL": fileserver_url,
        # Relative: paths lie in the device's heap, which must not depend on where this folder is.
        "MICROPYPATH": "tools:firmware:.frozen",
    }
    command = [MICROPYTHON, "-X", f"heapsize={heap}", "-m", module, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    async with process(*command, env=environment, cwd=BUILD, **pipes) as child:
        yield child


def run_bench(bench: Callable[[int, bool], Coroutine[Any, Any, None]], about: str | None) -> None:
    """Run a benchmark, a number of rounds, as the command line says; exit if it fails."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="small and coarse: does it work?")
    options = parser.parse_args()
    try:
        asyncio.run(bench(options.rounds, options.quick))
    except ToolError as e:
        sys.exit(f"bench failed: {e}")
    except KeyboardInterrupt:
        sys.exit(130)
