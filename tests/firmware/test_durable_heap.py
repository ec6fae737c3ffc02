"""What is durable, of every kind and size, passes through a small heap (README, "Devices that
sleep")."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import pytest

from conftest import NatsServer
from device import compiled, main_of, micropython

SCRIPT = Path(__file__).with_name("durable_heap_device.py")
SIZES = (20, 99_999, 499_999, 2_000_000, 20) * 2


async def make_stream(url: str) -> None:
    nc = await nats.connect(url)
    await nc.jetstream().add_stream(name="HEAP", subjects=["heap.>"])
    await nc.close()


@pytest.mark.parametrize(("heap", "spool"), [("68K", 0), ("80K", 3_000_000)])
def test_every_kind_passes(heap: str, spool: int, file_url: str, tmp_path: Path) -> None:
    with NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "streams")) as server:
        asyncio.run(make_stream(server.url))
        main = main_of(SCRIPT, tmp_path)
        arguments = server.url, file_url, str(tmp_path), str(spool)
        device = micropython(main, *arguments, heap=heap, path=compiled())
        try:
            out, _ = device.communicate(timeout=60)
        finally:
            device.kill()
            device.wait()
    assert device.returncode == 0, out
    told = [line for line in out.splitlines() if line.endswith("True")]
    assert told == [f"{size} True" for size in SIZES for _ in range(1 + bool(spool))]
