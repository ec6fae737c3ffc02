"""What is durable, of every kind and size, passes through a small heap (README, "Devices that
sleep")."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from conftest import NatsServer
from device import compiled, main_of, printed
from fault_proxy import FaultProxy, Link, Way
from harness import run_micropython

SCRIPT = Path(__file__).with_name("durable_heap_device.py")
FILES = Path(__file__).with_name("files_device.py")
SIZES = (20, 99_999, 499_999, 2_000_000, 20) * 2


async def make_stream(url: str) -> None:
    nc = await nats.connect(url)
    await nc.jetstream().add_stream(name="HEAP", subjects=["heap.>"])
    await nc.close()


@pytest.mark.parametrize(("heap", "spool"), [("66K", 0), ("70K", 3_000_000)])
def test_every_kind_passes(heap: str, spool: int, file_url: str, tmp_path: Path) -> None:
    with NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "streams")) as server:
        asyncio.run(make_stream(server.url))
        main = main_of(SCRIPT, tmp_path)
        arguments = server.url, file_url, str(tmp_path), str(spool)
        out = printed(main, *arguments, heap=heap, path=compiled())
    told = [line for line in out.splitlines() if line.endswith("True")]
    assert told == [f"{size} True" for size in SIZES for _ in range(1 + bool(spool))]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A board's paths are short, and lie in its heap: here the folder's, time and again."""
    with tempfile.TemporaryDirectory(prefix="nb") as folder:
        yield Path(folder)


def test_files_pass_through_64_kb(file_url: str, short_path: Path) -> None:
    """What test_memory.py does, by a stream: sent, fetched, acknowledged."""
    sizes = {"a": 99_999, "b": 499_999, "c": 1_000_000, "d": 20_000_000, "e": 1_000_000}
    for name, size in sizes.items():
        (short_path / name).write_bytes(random.Random(name).randbytes(size))
    with NatsServer(short_path, "-js", "-sd", str(short_path / "streams")) as server:
        asyncio.run(make_stream(server.url))
        main = main_of(FILES, short_path)
        arguments = server.url, file_url, str(short_path), *sizes
        out = printed(main, *arguments, heap="64K", path=compiled())
    rows = [line.split() for line in out.splitlines()]
    assert [name for name, _ in rows] == list(sizes) * 2
    for name, path in rows:
        assert Path(path).name != name
        assert Path(path).read_bytes() == (short_path / name).read_bytes()


def test_what_is_acknowledged_is_so_without_heap_to_remove_its_file(
    file_url: str, tmp_path: Path
) -> None:
    script = """
import sys
import natsbridge, natsbridge.recover

def consume(*arguments):
    tried.append(1)
    raise MemoryError

tried = []
nc = natsbridge.connect(sys.argv[1], name="me")
natsbridge.smartsend(
    "heap.a",
    [("x", b"y" * 3000, "binary")],
    nats_connection=nc,
    fileserver_url=sys.argv[2],
    size_threshold=1000,
    receiver_name="me",
    durable=True,
)
inbox = nc.inbox("HEAP", "device", ack_wait=1)
for msg in inbox.fetch(1, 5):
    natsbridge.smartreceive(msg, fileserver_url=sys.argv[2])
    natsbridge.recover.consume = consume
    msg.ack()
print(len(tried), [msg for msg in inbox.fetch(1, 2)])
"""
    with NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "streams")) as server:
        asyncio.run(make_stream(server.url))
        assert run_micropython(script, server.url, file_url, heap="256K") == "1 []\n"


def test_a_connection_lost_inside_a_send_comes_back_at_once(tmp_path: Path) -> None:
    """Also in a heap of which what connects takes half; and whatever was lost with it."""
    with NatsServer(tmp_path, "-js", "-sd", str(tmp_path / "streams")) as server:
        asyncio.run(make_stream(server.url))
        # Inside the third of its messages.
        with FaultProxy(server.url, Link(up=Way(end_after=2500))) as proxy:
            main = main_of(SCRIPT.with_name("lost_send_device.py"), tmp_path)
            assert printed(main, proxy.url, heap="66K", path=compiled()) == "19\n"
        assert proxy.connections > 5
