"""A payload is moved without a byte of heap for each chunk, but for the one result of base64."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device import compiled, printed

SIZES = {"direct": 499_999, "link": 1_000_000}
#: Chunks of a step that may take more: the first, which the envelope's text moves along, and the
#: one at which nats-server asks for a PONG.
RARE = 2


@pytest.fixture(scope="module")
def growths(
    nats_url: str, file_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[int, int]]:
    """For each step the bytes by which the heap grew between two chunks, and how often it did.

    The heap is so large that nothing need be collected.
    """
    folder = tmp_path_factory.mktemp("allocation")
    for name, size in SIZES.items():
        (folder / name).write_bytes(os.urandom(size))
    inbox = folder / "inbox"
    inbox.mkdir()
    script = Path(__file__).with_name("no_allocation_device.py")
    servers = {"NATS_URL": nats_url, "FILESERVER_URL": file_url}
    out = printed(script, str(folder), str(inbox), heap="4M", path=compiled(), env=servers)
    found = {}
    for line in out.splitlines():
        step, *counts = line.split()
        if step == "base64":
            found["base64 out"], found["base64 in"] = ({int(n): 1} for n in counts)
        else:
            found[step] = {int(n): int(times) for n, times in (c.split(":") for c in counts)}
    return found


@pytest.mark.parametrize(
    ("step", "result"),
    [
        ("direct-out", "base64 out"),
        ("link-out", None),
        ("direct-in", "base64 in"),
        ("link-in", None),
    ],
)
def test_a_chunk_takes_no_heap_but_a_base64_result(
    growths: dict[str, dict[int, int]], step: str, result: str | None
) -> None:
    allowed = next(iter(growths[result])) if result else 0
    growth = growths[step]
    assert sum(growth.values()) > 600
    assert sum(chunks for n, chunks in growth.items() if n > allowed) <= RARE, growth
