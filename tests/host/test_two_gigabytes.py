"""A file of 2 GB goes out and comes in by link, and the memory that takes stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import FileServerProcess, NatsServer

SIZE = 2_000_000_000
#: Bytes of memory over those of the idle process.
ROOM = 64 << 20

PROGRAM = """
import hashlib, json, os, sys
from pathlib import Path
from natsbridge import sync as natsbridge

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

def peak():
    found = status("VmHWM:")
    Path("/proc/self/clear_refs").write_text("5")  # which starts it again
    return found

source, folder = sys.argv[1:]
with natsbridge.connect() as nc, nc.subscribe("long.memory") as sub:
    peak()
    figures = {"idle": status("VmRSS:")}
    with open(source, "rb") as file:
        natsbridge.smartsend("long.memory", [("zeros.bin", file, "binary")], nats_connection=nc)
    figures["out"] = peak()
    env = natsbridge.smartreceive(sub.next(10), sink=folder)
    figures["in"] = peak()
(name, path, kind), = env["payloads"]
figures["size"] = os.path.getsize(path)
print(json.dumps(figures))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_two_gigabytes_pass_through_little_memory(
    nats_server: NatsServer, file_server: FileServerProcess, tmp_path: Path
) -> None:
    source = tmp_path / "zeros.bin"
    with source.open("wb") as file:
        file.truncate(SIZE)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(source), str(inbox)],
            capture_output=True,
            text=True,
            timeout=500,
            env={
                **os.environ,
                "NATS_URL": nats_server.url,
                "FILESERVER_URL": file_server.url,
            },
        )
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert figures["size"] == SIZE
        assert figures["out"] - figures["idle"] < ROOM, figures
        assert figures["in"] - figures["idle"] < ROOM, figures
    finally:
        for folder in (inbox, file_server.folder):
            for path in folder.rglob("zeros*"):
                path.unlink()
