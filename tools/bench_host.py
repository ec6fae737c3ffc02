# ruff: noqa: ASYNC240 (files may block between what is measured)
"""make bench, second part: the desktop's rates beside plain nats-py and curl.

Every ratio is the median over several rounds in which both take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats

import natsbridge
from natsbridge.client import Connection
from stage import ToolError, device, nats_server, process, run_bench

#: Bytes of a payload, messages in a round, and what share of plain nats-py's rate is the goal.
DIRECT = ((100, 400, 0.5), (10_000, 300, 0.55), (400_000, 30, 0.6))
LINK_BYTES = 200_000_000
LINK_GOAL = 0.9
#: Bytes of messages that are under way at once, so that no queue fills up.
WINDOW = 2 << 20
SENDERS = 100
PATIENCE_S = 60

Step = Callable[[], Awaitable[object]]


@contextlib.asynccontextmanager
async def file_server(folder: Path) -> AsyncIterator[str]:
    """Run our file server in a process of its own: its URL."""
    command = [sys.executable, "-m", "natsbridge.fileserver", "--folder", str(folder)]
    async with process(*command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        line = (await asyncio.wait_for(child.stdout.readline(), PATIENCE_S)).decode()
        found = [word for word in line.split() if word.startswith("http://")]
        if not found:
            raise ToolError("the file server did not start")
        yield found[0].rstrip("/")


async def stream(count: int, limit: int, send: Step, take: Step) -> float:
    """Send and take so many messages, `limit` of them under way at most: the seconds."""
    gate = asyncio.Semaphore(limit)

    async def receiver() -> None:
        for _ in range(count):
            await take()
            gate.release()

    start = time.perf_counter()
    task = asyncio.create_task(receiver())
    for _ in range(count):
        await gate.acquire()
        await send()
    await asyncio.wait_for(task, PATIENCE_S)
    return time.perf_counter() - start


async def direct(url: str, size: int, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """The messages/s of plain nats-py and of ours, with the same bytes on the wire."""
    data = os.urandom(size)
    payload = [("block", data, "binary")]
    async with await natsbridge.connect(url) as out, await natsbridge.connect(url) as into:
        ours = await into.subscribe("bench.ours")
        _, text = await natsbridge.smartsend("bench.none", payload, nats_connection=out)
        wire = text.encode()
        plain_out, plain_into = await nats.connect(url), await nats.connect(url)
        plain = await plain_into.subscribe("bench.plain")
        await asyncio.sleep(0)  # nats-py's flush overtakes a SUB that is not written yet
        await plain_into.flush()

        async def send() -> None:
            await natsbridge.smartsend("bench.ours", payload, nats_connection=out)

        async def take() -> None:
            env = await natsbridge.smartreceive(await ours.next(PATIENCE_S))
            if len(env["payloads"][0][1]) != size:
                raise ToolError("something else arrived than was sent")

        async def plain_send() -> None:
            await plain_out.publish("bench.plain", wire)

        async def plain_take() -> None:
            await plain.next_msg(PATIENCE_S)

        limit = max(4, min(100, WINDOW // len(wire)))
        rates: tuple[list[float], list[float]] = ([], [])
        for n in range(rounds + 1):
            before = count / await stream(count, limit, plain_send, plain_take)
            after = count / await stream(count, limit, send, take)
            if n:  # the first one is for warming up
                rates[0].append(before)
                rates[1].append(after)
        await plain_out.close()
        await plain_into.close()
    return rates


async def shell(command: str, *arguments: str) -> None:
    """Run a line of shell, in which `$1` and so on are the arguments."""
    async with process("sh", "-c", command, "sh", *arguments, stdout=subprocess.DEVNULL) as child:
        if await child.wait():
            raise ToolError(f"this failed: {command}")


def plik(url: str, method: str = "POST", token: str = "") -> Any:
    """Ask the file server for something: its JSON."""
    headers = {"X-UploadToken": token, "User-Agent": "curl"}
    body = b"{}" if method == "POST" else None
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        text = answer.read()
    return json.loads(text) if method == "POST" else None


async def curl(file_url: str, source: Path, target: Path) -> tuple[float, float]:
    """Upload and download a file as a careful user of curl would: the seconds of each."""
    upload = await asyncio.to_thread(plik, file_url + "/upload")
    token = upload["uploadToken"]
    answer = target.with_suffix(".json")
    start = time.perf_counter()
    await shell(
        'sha256sum "$1" & curl -sf -H Expect: -H "X-UploadToken: $2" -F "file=@$1" -o "$3" "$4"'
        " && wait $!",
        *(str(source), token, str(answer), f"{file_url}/file/{upload['id']}"),
    )
    up = time.perf_counter() - start
    file = json.loads(answer.read_text())
    url = f"{file_url}/file/{upload['id']}/{file['id']}/{source.name}"
    start = time.perf_counter()
    await shell('curl -sf "$1" | tee "$2" | sha256sum', url, str(target))
    down = time.perf_counter() - start
    if target.stat().st_size != source.stat().st_size:
        raise ToolError("curl did not get the whole file")
    target.unlink()
    await asyncio.to_thread(plik, f"{file_url}/upload/{upload['id']}", "DELETE", token)
    return up, down


async def link(nc: Connection, file_url: str, source: Path, inbox: Path) -> tuple[float, float]:
    """The same with `smartsend` and `smartreceive`."""
    sub = await nc.subscribe("bench.link")
    start = time.perf_counter()
    with source.open("rb") as file:
        await natsbridge.smartsend(
            "bench.link",
            [("file", file, "binary")],
            nats_connection=nc,
            fileserver_url=file_url,
            receiver_name=nc.name,  # who deletes it then
            fallback_direct=False,
            size_threshold=0,
        )
    up = time.perf_counter() - start
    msg = await sub.next(PATIENCE_S)
    start = time.perf_counter()
    env = await natsbridge.smartreceive(msg, fileserver_url=file_url, sink=inbox)
    down = time.perf_counter() - start
    Path(env["payloads"][0][1]).unlink()
    await sub.unsubscribe()
    return up, down


async def many(url: str, folder: Path, count: int) -> tuple[int, int, float]:
    """Many devices send to one `natsbridge receive` at once.

    Returns:
        How many messages it received, how many of them as they were sent, and the seconds.
    """
    command = [sys.executable, "-m", "natsbridge", "receive", "bench.many", "--json"]
    environment = {**os.environ, "NATS_URL": url}
    async with contextlib.AsyncExitStack() as running:
        nc = await running.enter_async_context(await natsbridge.connect(url))
        receiver = await running.enter_async_context(
            process(*command, cwd=folder, env=environment, stdout=subprocess.PIPE)
        )
        if "listening" not in await next_record(receiver):
            raise ToolError("natsbridge receive did not start")
        devices = [
            await running.enter_async_context(
                device("bench_sender_device", "64K", url, "", str(i), "bench.many", str(count))
            )
            for i in range(SENDERS)
        ]
        for sender in devices:
            assert sender.stdout is not None
            said = await asyncio.wait_for(sender.stdout.readline(), PATIENCE_S)
            if said != b"ready\n":
                raise ToolError(f"a device did not start: {said.decode()}")
        start = last = time.perf_counter()
        await nc.publish("bench.go", b"")
        sent = {(f"device-{i}", n) for i in range(SENDERS) for n in range(count)}
        seen: list[tuple[str, int]] = []
        while len(seen) < len(sent) and (record := await next_record(receiver)):
            last = time.perf_counter()
            reading, block = (folder / "received" / p["file"] for p in record["payloads"])
            if block.read_bytes() == bytes(1024):
                seen.append((record["sender_name"], json.loads(reading.read_text())["number"]))
        receiver.send_signal(signal.SIGINT)
        await asyncio.wait_for(receiver.wait(), PATIENCE_S)
    return len(seen), len(sent & set(seen)), last - start


async def next_record(receiver: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next line that it says; empty: no more come."""
    assert receiver.stdout is not None
    try:
        line = await asyncio.wait_for(receiver.stdout.readline(), PATIENCE_S)
    except asyncio.TimeoutError:
        return {}
    record: dict[str, Any] = json.loads(line or "{}")
    return record


def row(title: str, unit: str, other: list[float], ours: list[float], goal: float) -> None:
    """Print a line of the table."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{title:25}{statistics.median(other):>7,.0f}{statistics.median(ours):>8,.0f} {unit:5}"
        f"{ratio:>6.2f}  {min(ratios):.2f}-{max(ratios):.2f}{goal:>6}"
        f"{'ok' if ratio >= goal else 'below goal':>11}",
        flush=True,
    )


async def bench(rounds: int, quick: bool) -> None:
    """Print the table."""
    print(
        f"The desktop: CPython {platform.python_version()}, over loopback."
        f" Medians of {rounds} rounds,\nof {(rounds + 1) // 2} for files.\n"
        "Direct: beside plain nats-py with the same bytes on the wire. Files: beside curl\n"
        "and sha256sum, with the same file server.\n\n"
        f"{'':25}{'other':>7}{'ours':>8} {'':5}{'ratio':>6}  {'min-max':9}{'goal':>6}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (store := folder / "store").mkdir()
        (inbox := folder / "inbox").mkdir()
        async with nats_server(folder) as url, file_server(store) as file_url:
            for size, count, goal in DIRECT:
                some = count // 10 if quick else count
                plain, ours = await direct(url, size, some, rounds)
                row(f"direct {size:,} B", "msg/s", plain, ours, goal)
            await links(url, file_url, folder, inbox, (rounds + 1) // 2, quick)
            count = 5 if quick else 50
            arrived, whole, seconds = await many(url, folder, count)
            sent = SENDERS * count
            verdict = "ok" if arrived == whole == sent else "some are lost"
            print(
                f"\n{SENDERS} devices (unix port) send {sent:,} messages of 1 KB to one `natsbridge"
                f" receive`:\n{arrived:,} arrived, {whole:,} as sent,"
                f" {arrived / seconds:,.0f} msg/s: {verdict}"
            )


async def links(
    url: str, file_url: str, folder: Path, inbox: Path, rounds: int, quick: bool
) -> None:
    """Print the lines of the files."""
    size = 1_000_000 if quick else LINK_BYTES
    if not (shutil.which("curl") and shutil.which("sha256sum")):
        print(f"up and down {size // 1_000_000} MB: not measured, as curl or sha256sum is missing")
        return
    source = folder / "source.bin"
    source.write_bytes(os.urandom(size))
    theirs, ours = [], []
    async with await natsbridge.connect(url, name="bench") as nc:
        for n in range(rounds + 1):
            before = await curl(file_url, source, folder / "target.bin")
            after = await link(nc, file_url, source, inbox)
            if n:
                theirs.append(before)
                ours.append(after)
    for i, verb in enumerate(("upload", "download")):
        row(
            f"{verb} {size // 1_000_000} MB",
            "MB/s",
            [size / seconds[i] / 1e6 for seconds in theirs],
            [size / seconds[i] / 1e6 for seconds in ours],
            LINK_GOAL,
        )


if __name__ == "__main__":
    run_bench(bench, __doc__)
