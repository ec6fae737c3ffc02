"""Messages of every kind, one after another, whatever was loaded and dropped before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from device import printed

MPY = Path(__file__).parent.parent.parent / "build" / "firmware"
#: The heap, the characters of a text by link, and a seed for the order.
RUNS = [("66K", 1000, 1), ("80K", 3000, 2), ("88K", 3000, 1), ("88K", 3000, 3), ("128K", 9000, 2)]
SIZES = {"small": 20_000, "middle": 120_000, "large": 99_999}


@pytest.mark.parametrize(("heap", "characters", "seed"), RUNS)
def test_messages_of_every_kind_in_any_order(
    nats_url: str, file_url: str, tmp_path: Path, heap: str, characters: int, seed: int
) -> None:
    """The package is the .mpy one: `make firmware` makes it."""
    (tmp_path / "in").mkdir()
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(random.Random(name).randbytes(size))
    script = Path(__file__).with_name("mixed_device.py")
    numbers = [str(seed), "60", str(characters)]
    out = printed(script, nats_url, file_url, str(tmp_path), *numbers, heap=heap, path=MPY)
    assert out == "ok []\n"
