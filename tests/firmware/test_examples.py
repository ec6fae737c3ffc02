"""The examples run as they stand, with the test's broker in place of the one they name."""

from __future__ import annotations

from pathlib import Path

from device import FIRMWARE, micropython
from natsbridge import sync

BROKER = "nats://192.168.1.10:4222"


def test_asyncio_loop(nats_url: str, tmp_path: Path) -> None:
    source = (FIRMWARE / "examples" / "asyncio_loop.py").read_text()
    assert BROKER in source
    script = tmp_path / "main.py"
    script.write_text(source.replace(BROKER, nats_url))
    with sync.connect(nats_url) as nc, nc.subscribe("lab.hello") as hello:
        device = micropython(script, heap="192K")
        try:
            assert hello.next(10) is not None
            for text in ("blue", "stop"):
                sync.smartsend("lab.command", [("lamp", text, "text")], nats_connection=nc)
            out, _ = device.communicate(timeout=10)
        finally:
            device.kill()
            device.wait()
    assert out == "lamp text blue\nlamp text stop\n"
