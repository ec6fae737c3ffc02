"""The receiver of test_arrow_bombs.py: a process with little memory. It reads lines of JSON, and
answers each with how that ended, in how many seconds, and by how much its memory rose meanwhile.

python arrow_receiver.py MEMORY FILE: bytes that it may take beside what it has when it is ready,
and a table to begin with.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

import natsbridge
from natsbridge.cli.files import converted
from natsbridge.client import Msg
from natsbridge.errors import NATSBridgeError


def status(name: str) -> int:
    """Bytes, as the system has them under this name."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def received(path: str, limit: int) -> int:
    """The rows of a table that came in a message."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    payload = {
        **{"dataname": "d", "payload_type": "arrowtable", "transport": "direct"},
        **{"encoding": "base64", "data": data},
    }
    msg = Msg("s", "", json.dumps({"payloads": [payload]}).encode())
    del data, payload
    env = asyncio.run(natsbridge.smartreceive(msg, max_payload_size=limit))
    table = env["payloads"][0][1]
    assert table.nbytes <= limit
    return int(table.num_rows)


def do(path: str, form: str, limit: int) -> Any:
    """The code of the error, or the number of rows, or of bytes of the file to be written."""
    try:
        if not form:
            return received(path, limit)
        return len(converted(Path(path), "arrowtable", form) or b"")
    except NATSBridgeError as e:
        return e.code


def main() -> None:
    """Work through what is asked."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    memory, warm = sys.argv[1:]
    for form in ("", "csv", "json", "parquet", "arrow"):
        do(warm, form, 1 << 20)
    most = status("VmSize") + int(memory)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before = status("VmRSS")
        start = time.monotonic()
        result = do(**json.loads(line))
        seconds = time.monotonic() - start
        print(json.dumps([result, seconds, status("VmHWM") - before]), flush=True)


main()
