"""make flash BOARD=unix: the whole way onto a board that needs no board, and its hello.

Everything is real but the board: mpremote, a nats-server, a file server, and MicroPython's unix
port behind a pseudo-terminal (tests/simulator.py), with a folder as its file system.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from natsbridge.fileserver import FileServer
from stage import MICROPYTHON, PATIENCE_S, ROOT, ToolError, nats_server, process

HEAP = "256K"


async def flash(scratch: Path, options: list[str]) -> int:
    """Flash the simulated board, and wait for its hello: the command's exit code."""
    disk, files, port = scratch / "disk", scratch / "files", scratch / "port"
    disk.mkdir()
    files.mkdir()
    told = json.dumps({"heap": HEAP, "usb": str(port)})
    simulator = (sys.executable, str(ROOT / "tests" / "simulator.py"), str(disk), told)
    async with (
        nats_server(scratch) as url,
        FileServer(files) as server,
        process(*simulator, stdout=subprocess.PIPE) as board,
    ):
        assert board.stdout is not None
        if not await asyncio.wait_for(board.stdout.readline(), PATIENCE_S):
            raise ToolError(f"the simulated board does not start; is {MICROPYTHON} there?")
        print(f"Broker {url}, file server {server.url}, board {port}", flush=True)
        line = [sys.executable, "-m", "natsbridge", "flash", "unix", "--device", str(port)]
        line += ["--set", f"broker={url}", "--set", f"fileserver_url={server.url}", *options]
        async with process(*line, cwd=ROOT) as command:
            return await command.wait()


def main() -> int:
    """Run it in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="natsbridge-") as name:
        try:
            return asyncio.run(flash(Path(name), sys.argv[1:]))
        except (ToolError, asyncio.TimeoutError) as e:
            print(f"make flash BOARD=unix failed: {e}", file=sys.stderr)
        except KeyboardInterrupt:
            return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
