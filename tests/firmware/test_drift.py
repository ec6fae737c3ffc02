"""However long a device runs, its heap does not fill up."""

from __future__ import annotations

from pathlib import Path

import pytest

from device import FIRMWARE, main_of, micropython
from fault_proxy import FaultProxy, Link, Way

SCRIPT = Path(__file__).with_name("drift_device.py")
#: Cycles after which all is loaded that ever is.
WARM = 20
#: Bytes.
MOST = 256
#: With what the device's program takes.
HEAP = "64K"
MPY = FIRMWARE.parent / "build" / "firmware"


@pytest.mark.parametrize("cycles", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_nothing_is_kept_of_what_is_over(
    cycles: int, nats_url: str, file_url: str, tmp_path: Path
) -> None:
    """Each cycle is a text sent and received, a file of 20 KB by link, and a lost connection."""
    (tmp_path / "a.bin").write_bytes(bytes(20_000))
    with FaultProxy(nats_url, Link(up=Way(end_before=b"PUB drift.cut"))) as proxy:
        main = main_of(SCRIPT, tmp_path)
        arguments = proxy.url, file_url, str(tmp_path), str(cycles)
        device = micropython(main, *arguments, heap=HEAP, path=MPY)
        try:
            out, _ = device.communicate(timeout=cycles)
        finally:
            device.kill()
        assert device.returncode == 0, out
        assert proxy.connections == cycles + 1
    free = [int(line) for line in out.splitlines()]
    assert len(free) == cycles
    assert min(free[-10:]) >= min(free[WARM : WARM + 10]) - MOST, free
