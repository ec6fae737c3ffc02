"""make demo: a device and a desktop exchange payloads of every kind, small and large.

Everything is real but the board: nats-server, the file server, the firmware as .mpy on
MicroPython's unix port under a 64 KB heap, and the desktop's package.
"""

from __future__ import annotations

import signal

# Until the demo itself handles it, Ctrl-C ends it without a word: nothing has been started yet.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import asyncio
import base64
import hashlib
import json
import mimetypes
import os
import random
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pyarrow as pa

import natsbridge
from natsbridge.client import Connection, Msg, Subscription
from natsbridge.fileserver import FileServer
from stage import PATIENCE_S, ROOT, ToolError, device, nats_server

HEAP_KB = 64


# ---------------------------------------------------------------- showing


class Screen:
    """Writes what happens, line by line; on a terminal with colour and a line that moves."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.moving = False

    def line(self, text: str = "") -> None:
        """Write a line, over the moving one if there is one."""
        print(("\r\x1b[K" if self.moving else "") + text, flush=True)
        self.moving = False

    def move(self, text: str) -> None:
        """Show progress where the terminal can."""
        if self.live:
            print("\r\x1b[K" + text, end="", flush=True)
            self.moving = True

    def paint(self, code: str, text: str) -> str:
        """Colour `text` where the terminal can."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.live else text

    def title(self, text: str) -> None:
        """Begin a step."""
        self.line()
        self.line(self.paint("1", text))

    def payload(self, name: str, kind: str, transport: str, size: int, digest: str) -> None:
        """Show one payload that has arrived and is identical."""
        mark = self.paint("32", "identical")
        name = name if len(name) <= 20 else name[:19] + "~"
        self.line(f"  {name:20} {kind:11}{transport:7}{size:>10,} B   {digest[:12]} {mark}")


# ---------------------------------------------------------------- what is sent


def picture() -> bytes:
    """A PNG of just under 100,000 bytes: noise, so that it does not compress."""
    side = 181
    noise = random.Random(1).randbytes
    rows = b"".join(b"\0" + noise(side * 3) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0))
    filling = 99_999 - len(png) - 12 - 12
    return png + chunk(b"tEXt", b"Comment\0" + b" " * (filling - 8)) + chunk(b"IEND", b"")


def prepare(folder: Path, own: Path | None) -> list[tuple[str, str]]:
    """Lay the device's files into `folder`: (name, payload type) of each."""
    if own is None:
        (folder / "photo.png").write_bytes(picture())
        (folder / "log.bin").write_bytes(random.Random(2).randbytes(5_000_000))
        return [("photo.png", "image"), ("log.bin", "binary")]
    if not own.is_file():
        raise ToolError(f"there is no file {own}")
    (folder / own.name).symlink_to(own.resolve())
    kind = (mimetypes.guess_type(own.name)[0] or "").split("/")[0]
    return [(own.name, kind if kind in ("image", "audio", "video") else "binary")]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    h = hashlib.sha256()
    with Path(path).open("rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


# ---------------------------------------------------------------- the play


class Play:
    """The demo's three steps."""

    def __init__(
        self,
        screen: Screen,
        device: asyncio.subprocess.Process,
        nc: Connection,
        fileserver_url: str,
    ) -> None:
        self.screen = screen
        self.device = device
        self.nc = nc
        self.fileserver_url = fileserver_url
        self.digests: dict[str, str] = {}
        self.heaps: list[int] = []
        self.identical = 0

    async def listen(self) -> None:
        """Follow what the device tells on stdout, until it ends."""
        assert self.device.stdout is not None
        said = []
        async for raw in self.device.stdout:
            words = raw.decode(errors="replace").rstrip().split(" ", 3)
            if words[0] == "digest":
                self.digests[" ".join(words[2:])] = words[1]
            elif words[0] == "heap":
                self.heaps.append(int(words[1]))
            elif words[0] == "progress" and len(words) == 4:
                done, total = int(words[1]), int(words[2])
                bar = "#" * (30 * done // max(total, 1))
                self.screen.move(f"  device: {words[3]:.20} [{bar:30}] {done:,} of {total:,} B")
            elif words[0] != "online":
                said.append(raw.decode(errors="replace").rstrip())
        if await self.device.wait() != 0 or said:
            raise ToolError("the device stopped:\n    " + "\n    ".join(said[-12:] or ["silent"]))

    def check(self, condition: bool, what: str) -> None:
        """Stop the demo where something is not identical."""
        if not condition:
            raise ToolError(f"{what} is NOT what was sent")
        self.identical += 1

    async def to_desktop(self, sub: Subscription, inbox: Path) -> None:
        """Step 1: the device sends, the desktop receives into the inbox."""
        started = time.monotonic()
        msg = await sub.next(PATIENCE_S)
        if msg is None:
            raise ToolError("nothing came from the device")
        how = transports(msg)
        env = await natsbridge.smartreceive(
            msg, sink=str(inbox), fileserver_url=self.fileserver_url, nats_connection=self.nc
        )
        took = time.monotonic() - started
        total = 0
        for name, value, kind in env["payloads"]:
            transport, size, raw = how[name]
            total += size
            if raw is None:
                digest = file_digest(value)
            else:
                digest = hashlib.sha256(raw).hexdigest()
                suffix = "txt" if kind == "text" else "json"
                (inbox / f"{name}.{suffix}").write_bytes(raw)
            self.check(digest == self.digests.get(name), name)
            self.screen.payload(name, kind, transport, size, digest)
        self.screen.line(f"  {total:,} bytes in {took:.2f} s, {rate(total, took)}")

    async def to_device(self, sub: Subscription) -> None:
        """Steps 2 and 3: the desktop sends, the device answers with an ACK."""
        command = {"relay": "off", "after_s": 5}
        table = pa.table({"t": list(range(200)), "volt": [3.0 + i / 1000 for i in range(200)]})
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        raw = stream.getvalue().to_pybytes()
        firmware = random.Random(3).randbytes(499_999)
        started = time.monotonic()
        env, _ = await natsbridge.smartsend(
            "demo.device",
            [
                ("command", command, "dictionary"),
                ("calibration.arrow", raw, "arrowtable"),
                ("firmware.bin", firmware, "binary"),
            ],
            nats_connection=self.nc,
            receiver_name="device",
        )
        msg = await sub.next(PATIENCE_S)
        if msg is None:
            raise ToolError("the device did not answer")
        took = time.monotonic() - started
        ack = await natsbridge.smartreceive(msg, nats_connection=self.nc)
        answer = ack["payloads"][0][1]
        self.check(answer["command"] == command, "command")
        sent = {"calibration.arrow": raw, "firmware.bin": firmware}
        for payload in env["payloads"]:
            name, kind = payload["dataname"], payload["payload_type"]
            digest = hashlib.sha256(sent.get(name, repr(command).encode())).hexdigest()
            if name in sent:
                self.check(answer[name] == digest, name)
            self.screen.payload(name, kind, payload["transport"], payload["size"], digest)
        total = sum(p["size"] for p in env["payloads"])
        self.screen.line(f"  {total:,} bytes in {took:.2f} s, {rate(total, took)}")
        self.screen.title("3  the device answers")
        good = ack["msg_purpose"] == "ACK" and ack["correlation_id"] == env["correlation_id"]
        self.check(good and ack["reply_to_msg_id"] == env["msg_id"], "the ACK")
        self.screen.line(f"  {ack['msg_purpose']} to correlation id {ack['correlation_id']}")


def transports(msg: Msg) -> dict[str, tuple[str, int, bytes | None]]:
    """How each payload of a message travels, its bytes, and, of a value, the serialized form."""
    found = {}
    for p in json.loads(msg.data)["payloads"]:
        value = p["payload_type"] in ("text", "dictionary", "jsontable")
        raw = base64.b64decode(p["data"]) if value else None
        found[p["dataname"]] = p["transport"], p["size"], raw
    return found


def rate(size: int, seconds: float) -> str:
    """Megabytes a second."""
    return f"{size / 1e6 / max(seconds, 1e-6):.1f} MB/s"


async def demo(screen: Screen, own: Path | None, scratch: Path) -> None:
    """Run the three steps between fresh servers. Raises ToolError."""
    started = time.monotonic()
    inbox = ROOT / "inbox" / time.strftime("%Y%m%d-%H%M%S")
    (inbox / "device").mkdir(parents=True, exist_ok=True)
    store, disk = scratch / "store", scratch / "disk"
    store.mkdir()
    disk.mkdir()
    files = prepare(disk, own)
    async with nats_server(scratch) as url, FileServer(store) as server:
        screen.line(screen.paint("1", "A microcontroller and a desktop, over a real NATS server"))
        screen.line(f"  broker       {url}  (nats-server)")
        screen.line(f"  file server  {server.url}")
        screen.line(f"  device       MicroPython's unix port, heap {HEAP_KB} KB, firmware as .mpy")
        received = f"../inbox/{inbox.name}/device"  # as the device, which runs in build/, sees it
        words = [str(disk), received, *(word for pair in files for word in pair)]
        async with await natsbridge.connect(url, name="desktop") as nc:
            sub = await nc.subscribe("demo.desktop")
            async with device("demo_device", f"{HEAP_KB}K", url, server.url, *words) as child:
                play = Play(screen, child, nc, server.url)
                listener = asyncio.ensure_future(play.listen())
                steps = asyncio.ensure_future(run_steps(play, sub, inbox, own))
                try:
                    await asyncio.wait({listener, steps}, return_when=asyncio.FIRST_EXCEPTION)
                    if listener.done():
                        listener.result()
                    await steps
                    await listener
                finally:
                    listener.cancel()
                    steps.cancel()
                    await asyncio.gather(listener, steps, return_exceptions=True)
    heap = max(play.heaps)
    screen.line()
    screen.line(f"The device's heap held {heap:,} bytes at most, of {HEAP_KB * 1024:,}.")
    screen.line(
        screen.paint("32", f"All {play.identical} checks passed")
        + f" in {time.monotonic() - started:.1f} s: everything is identical on both sides."
    )
    screen.line(f"What arrived is in {inbox.relative_to(ROOT)}/")
    if own is None:
        screen.line("Next: make demo FILE=path/to/your/picture.jpg")


async def run_steps(
    play: Play,
    sub: Subscription,
    inbox: Path,
    own: Path | None,
) -> None:
    """Play the steps, one after the other."""
    play.screen.title("1  device -> desktop, in one smartsend")
    await play.to_desktop(sub, inbox)
    play.screen.title("2  desktop -> device, written to files there")
    await play.to_device(sub)


def main() -> int:
    """Run the demo: 0 if everything was identical."""
    screen = Screen()
    own = Path(sys.argv[1]) if len(sys.argv) > 1 else None

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        with tempfile.TemporaryDirectory(prefix="natsbridge-") as scratch:
            await demo(screen, own, Path(scratch))

    try:
        asyncio.run(cancellable())
    except (asyncio.CancelledError, KeyboardInterrupt):
        screen.line("\nInterrupted; everything is stopped.")
        return 130
    except BrokenPipeError:  # as in "make demo | head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ToolError, natsbridge.NATSBridgeError) as e:
        screen.line(f"\nThe demo failed: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
