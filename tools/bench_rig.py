"""What bench.py measures with: players, which are device programs that do one job each, and the
host's side of their jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import natsbridge
from natsbridge.client import Connection, Msg
from natsbridge.fileserver import FileServer
from stage import BUILD, MICROPYTHON, ToolError, mqtt_server, process

OURS = "bench_device"
BARE = "bench_bare_device"
REQUEST = "bench_request_device"
#: Seconds that one step of a job may take.
PATIENCE_S = 10
#: Seconds for what was published to arrive at a device that is not yet reading.
ARRIVAL_S = 0.03
#: KB of the largest heap to try.
MOST_KB = 65536


@dataclass(frozen=True)
class Job:
    """Something that a device does: `do` is its name in the device programs.

    size: bytes. count: messages in a round. goal: ours is to have this share of the bare loop's
    rate, or more. peers: programs beside ours and the bare loop, which is the program `bare`.
    """

    verb: str
    do: str
    size: int
    count: int
    goal: float
    peers: tuple[str, ...] = ()
    bare: str = BARE

    @property
    def title(self) -> str:
        """What the tables call it."""
        size = f"{self.size:,} B" if self.size < 1_000_000 else f"{self.size // 1_000_000} MB"
        return f"{self.verb} {size}"

    @property
    def unit(self) -> str:
        """What its rate is counted in."""
        return "msg/s" if self.size < 1000 else "MB/s"

    def rate(self, us: float) -> float:
        """The rate in a round that took so many us."""
        return self.count / us * (1e6 if self.size < 1000 else self.size)


class Player:
    """A running device program."""

    def __init__(self, child: asyncio.subprocess.Process, program: str, subject: str) -> None:
        self.child = child
        self.program = program
        self.subject = subject
        self.imported = 0

    async def _line(self) -> str:
        """The next line it prints. Raises ToolError with what else it says if that is its end."""
        assert self.child.stdout is not None
        try:
            line = (await asyncio.wait_for(self.child.stdout.readline(), PATIENCE_S)).decode()
        except asyncio.TimeoutError:
            raise ToolError(f"no answer within {PATIENCE_S} s") from None
        return line.rstrip()

    async def _number(self, text: str) -> int:
        if text.isdigit():
            return int(text)
        said = [text]
        while text := await self._line():
            said.append(text)
        status = await self.child.wait()
        raise ToolError(next((t for t in reversed(said) if t), f"it ended with status {status}"))

    async def ready(self) -> None:
        """Wait until it is connected."""
        while (line := await self._line()) != "ready":
            word, _, rest = line.partition(" ")
            self.imported = await self._number(rest if word == "import" else line)

    async def go(self) -> int:
        """Have it do its job: the us that it took."""
        assert self.child.stdin is not None
        self.child.stdin.write(b"go\n")
        return await self._number(await self._line())

    async def finish(self) -> str:
        """End it: what it still says."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        try:
            out, _ = await asyncio.wait_for(self.child.communicate(), PATIENCE_S)
        except asyncio.TimeoutError:
            raise ToolError(f"no end within {PATIENCE_S} s") from None
        text = out.decode().rstrip()
        if self.child.returncode:
            raise ToolError(text.rpartition("\n")[2])
        return text


class Rig:
    """Servers, files, and the host's connection."""

    def __init__(self, folder: Path, nats_url: str, mqtt_url: str, file_url: str, nc: Connection):
        self.folder = folder
        self.store = folder / "store"
        self.nats_url = nats_url
        self.file_url = file_url
        self.nc = nc
        self.environment = {
            **os.environ,
            "NATS_URL": nats_url,
            "MQTT_URL": mqtt_url,
            "FILESERVER_URL": file_url,
            # Relative, as all paths: they lie in the device's heap, which must not depend on where
            # this folder is.
            "MICROPYPATH": "tools:firmware:peers:.frozen",
        }
        self.data = b""
        self.envelope = b""
        self.players = 0

    async def lay(self, job: Job) -> None:
        """Make what a job takes: its file, and the message that it receives."""
        self.data = b"x" * 16 if job.size == 16 else os.urandom(job.size)
        (self.folder / "file").write_bytes(self.data)
        self.envelope = b""
        if job.do in ("receive", "download", "keep"):
            env, text = await natsbridge.smartsend(
                "bench.out",
                [("a", self.data, "binary")],
                nats_connection=self.nc,
                fileserver_url=self.file_url,
                size_threshold=1 if job.do == "download" else 1_000_000,
            )
            self.envelope = text.encode()
            if job.do == "keep":
                (self.folder / "file").write_bytes(self.envelope)
            if job.do == "download":
                self.environment["FILE_URL"] = env["payloads"][0]["data"]

    @contextlib.asynccontextmanager
    async def play(self, job: Job, program: str, heap_kb: int) -> AsyncIterator[Player]:
        """Run a device program for a job until it is ready."""
        self.players += 1
        subject = f"bench.p{self.players}"
        inbox = self.folder / subject
        inbox.mkdir()
        path = inbox if job.do in ("receive", "download") else self.folder / "file"
        command = [MICROPYTHON, "-X", f"heapsize={heap_kb}K", "-m", program, job.do, subject]
        async with process(
            *(*command, _relative(path), str(job.count)),
            env=self.environment,
            cwd=BUILD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as child:
            player = Player(child, program, subject)
            await player.ready()
            yield player

    async def go(self, job: Job, player: Player, verify: bool = False) -> int:
        """One round of a player: the us that it took. Raises ToolError if it did not work."""
        sub = await self.nc.subscribe("bench.out") if verify else None
        try:
            message = self.data
            if player.program in (OURS, BARE) and self.envelope:
                message = self.envelope
            if job.do in ("receive", "take") or (job.do == "download" and message is self.envelope):
                for _ in range(job.count):
                    await self.nc.publish(player.subject, message)
            await self.nc.flush()
            await asyncio.sleep(ARRIVAL_S)
            us = await player.go()
            if sub:
                await self.nc.flush()
                if job.do in ("send", "publish", "acknowledged"):
                    for _ in range(job.count):
                        await self._check(await sub.next(PATIENCE_S), player)
        finally:
            if sub:
                await sub.unsubscribe()
        if job.do == "upload" and not self.clear(job.size):
            raise ToolError("what the file server has is not what was sent")
        if job.do in ("receive", "download"):
            paths = list((self.folder / player.subject).iterdir())
            if len(paths) != job.count or any(p.read_bytes() != self.data for p in paths):
                raise ToolError("what was received is not what was sent")
            for path in paths:
                path.unlink()
        return us

    async def _check(self, msg: Msg | None, player: Player) -> None:
        data = msg and msg.data
        if msg and player.program == OURS and len(msg) > 16:
            data = (await natsbridge.smartreceive(msg))["payloads"][0][1]
        if data != self.data:
            raise ToolError("what the broker got is not what was sent")

    def clear(self, size: int) -> bool:
        """Remove what lies on the file server: whether a file of our data was among it."""
        found = False
        for path in self.store.rglob("*"):
            if path.is_file() and path.stat().st_size == size:
                found = found or path.read_bytes() == self.data
                path.unlink()
        return found

    async def works(self, job: Job, program: str, heap_kb: int, times: int) -> Player:
        """Do a job `times` times in a fresh process, and verify it. Raises ToolError."""
        async with self.play(job, program, heap_kb) as player:
            for _ in range(times):
                await self.go(job, player, verify=True)
            await player.finish()
            return player

    async def smallest(self, job: Job, program: str, step_kb: int, times: int) -> tuple[int, int]:
        """KB of the smallest heap in which a job works `times` times in a row, and the bytes that
        the import takes. Raises ToolError if it works in none.
        """
        small = 0
        heap = 64
        while True:
            try:
                player = await self.works(job, program, heap, times)
                break
            except ToolError as e:
                # What else goes wrong does not get better with more memory.
                if heap >= MOST_KB or not re.search("memory|no (answer|end)|status", str(e), re.I):
                    raise
                small = heap
                heap *= 2
        while heap - small > max(step_kb, heap // 64):
            middle = (small + heap) // 8 * 4
            try:
                await self.works(job, program, middle, times)
                heap = middle
            except ToolError:
                small = middle
        return heap, player.imported


def _relative(path: Path) -> str:
    return os.path.relpath(path, BUILD)


@contextlib.asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """Start the servers."""
    (folder / "store").mkdir()
    async with (
        mqtt_server(folder) as (nats_url, mqtt_url),
        FileServer(folder / "store") as server,
        await natsbridge.connect(nats_url) as nc,
    ):
        await nc.client.jetstream().add_stream(name="KEPT", subjects=["bench.kept"])
        yield Rig(folder, nats_url, mqtt_url, server.url, nc)
