"""make bench: the device's rates over loopback, medians of several rounds of one run.

They depend on the machine: compare rows of one run, not runs.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from natsbridge.fileserver import FileServer
from stage import ToolError, device, nats_server

HEAP = "64K"


async def bench() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "store").mkdir()
        for size in (99_999, 499_999, 5_000_000):
            (folder / str(size)).write_bytes(bytes(range(250)) * (size // 250 + 1))
            with (folder / str(size)).open("r+b") as f:
                f.truncate(size)
        async with (
            nats_server(folder) as url,
            FileServer(folder / "store") as server,
            device("bench_device", HEAP, url, server.url, scratch) as child,
        ):
            out = (await child.communicate())[0].decode()
            if child.returncode:
                raise ToolError(out)
    print(f"unix port, heap {HEAP}: median of 5 rounds (fastest, slowest)")
    for line in out.splitlines():
        what, how, count, *rounds = line.split()
        times = sorted(int(t) / 1e6 for t in rounds)
        n = int(count)
        if what == "publish":
            rates, unit = [n / t for t in times], "messages/s"
        else:
            rates, unit = [n / 1e6 / t for t in times], "MB/s"
        name = f"{what} {how}" + (f" {n:,} B" if unit == "MB/s" else " messages")
        span = f"({max(rates):,.1f}, {min(rates):,.1f})"
        print(f"  {name:32}{statistics.median(rates):>12,.1f} {unit:11}{span}")


if __name__ == "__main__":
    try:
        asyncio.run(bench())
    except ToolError as e:
        sys.exit(f"bench failed: {e}")
