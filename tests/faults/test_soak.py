"""A device and a desktop that talk for long over a network and servers at their worst: all that was
sent is there in the end, and neither has grown."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import NatsServer, free_ports
from device import command, compiled, main_of
from fault_proxy import PLAIN, Ending, FaultProxy, Link, Way
from figures import Figures
from natsbridge.errors import CODES
from scale import SCALE, runs

SCRIPT = Path(__file__).with_name("soak_device.py")
HEAP = "80K"
#: For how long there are faults.
SECONDS = int(os.environ.get("NATSBRIDGE_SOAK") or runs(5, 3600, 60))
#: Seconds that the peers have for their last messages, the faults over.
PATIENCE_S = 60
#: Bytes of heap, by the least of ten samples.
DRIFT = 1024
#: Bytes of resident memory, by the median of a tenth of the samples: allocators keep some. In a
#: few seconds they have not yet all that they will.
GROWTH = (2 if SCALE != "quick" else 16) << 20
#: Samples before all is loaded that ever is, and of which the least is taken.
WARM = 10
LEAST = 10


class Peer:
    """A process that runs the script, and what it prints."""

    def __init__(self, line: list[str], log: Path, **place: object) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, **place
            )  # type: ignore[call-overload]

    def events(self, kind: str) -> list[list[str]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [words[1:] for words in lines if words[:1] == [kind]]

    def wait(self, kind: str, seconds: float) -> list[str]:
        """Wait until it has printed a line of a kind: its words."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None  # before what it said last is read
            if found := self.events(kind):
                break
            assert not ended, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, (kind, self.log.read_text()[-2000:])
            time.sleep(0.05)
        return found[-1]

    def say(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Chaos:
    """What happens to connections: by the dice, until it is over."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.over = False
        self.done: Counter[str] = Counter()

    def _way(self, corrupt: bool) -> Way:
        rng = self._rng
        what = rng.choice(["late", "slow", "split", "end", "end", "end"] + ["corrupt"] * corrupt)
        self.done[what] += 1
        if what == "late":
            return Way(delay_s=rng.uniform(0, 0.05))
        if what == "slow":
            return Way(rate=rng.randrange(50_000, 500_000))
        if what == "split":
            return Way(split=rng.randrange(20, 1000))
        if what == "corrupt":
            return Way(corrupt=rng.randrange(1000))
        endings = list(Ending)
        return Way(end_after=int(rng.expovariate(1 / 20_000)), ending=rng.choice(endings))

    def link(self, corrupt: bool) -> Link:
        """What happens to one connection."""
        dice = self._rng.random()
        if self.over or dice < 0.5:
            return PLAIN
        if dice < 0.55:
            self.done["refused"] += 1
            return Link(refused=True)
        return Link(**{self._rng.choice(["up", "down"]): self._way(corrupt)})


class Result(NamedTuple):
    """A peer's samples, with the numbers that it sent and those that it got."""

    samples: list[list[int]]
    sent: int
    got: set[int]
    lost: Counter[str]


def enough(peers: Iterable[Peer], deadline: float) -> bool:
    """Whether they have samples enough to be compared: on a slow machine they take longer."""
    assert time.monotonic() < deadline, "too few samples to be compared"
    return all(len(peer.events("sample")) >= WARM + 2 * LEAST for peer in peers)


def soak(folder: Path, file_url: str, rng: random.Random) -> tuple[dict[str, Result], Counter[str]]:
    """Let a device and a desktop talk: what came of it, and what was done to them."""
    chaos = Chaos(rng)
    [port] = free_ports(1)
    with contextlib.ExitStack() as stack:
        server = NatsServer(folder, port=port)
        stack.callback(lambda: server.stop())
        url = f"nats://127.0.0.1:{port}"
        # Bytes are damaged only on the way of files, which have a digest.
        files = stack.enter_context(FaultProxy(file_url, lambda n: chaos.link(corrupt=True)))
        peers = {}
        brokers = []
        main = main_of(SCRIPT, folder)
        for me, other in (("device", "desk"), ("desk", "device")):
            broker = stack.enter_context(
                FaultProxy(url, lambda n: chaos.link(corrupt=False) if n else PLAIN)
            )
            brokers.append(broker)
            own = folder / me
            own.mkdir()
            arguments = [broker.url, files.url, me, other, str(own)]
            log = folder / f"{me}.log"
            if me == "device":
                line, place = command(main, *arguments, heap=HEAP, path=compiled())
                peers[me] = Peer(line, log, **place)
            else:
                peers[me] = Peer([sys.executable, "-u", str(SCRIPT), *arguments], log)
            stack.callback(peers[me].stop)
        for peer in peers.values():
            peer.wait("ready", 30)
        end = time.monotonic() + SECONDS
        restart = time.monotonic() + rng.uniform(1, 10)
        while time.monotonic() < end or not enough(peers.values(), end + PATIENCE_S):
            time.sleep(rng.uniform(0.1, 2))
            for peer in peers.values():
                assert peer.process.poll() is None, peer.log.read_text()[-2000:]
            chaos.done["cut"] += 1
            rng.choice(brokers).cut(rng.choice([Ending.CLOSE, Ending.RESET]))
            if time.monotonic() > restart:
                chaos.done["restart"] += 1
                server.kill()
                server = NatsServer(folder, port=port)
                restart = time.monotonic() + rng.uniform(5, 20)
        chaos.over = True
        for broker in brokers:
            broker.cut()
        for peer in peers.values():
            peer.say()
        sent = {me: int(peer.wait("done", PATIENCE_S)[0]) for me, peer in peers.items()}
        for peer in peers.values():
            peer.say()
        results = {}
        for me, peer in peers.items():
            assert peer.wait("left", PATIENCE_S) == ["0"]
            assert peer.process.wait(10) == 0
            assert peer.events("wrong") == []
            results[me] = Result(
                [[int(n) for n in words] for words in peer.events("sample")],
                sent[me],
                {int(words[0]) for words in peer.events("got")},
                Counter(words[0] for words in peer.events("lost")),
            )
        return results, chaos.done


def median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


@pytest.mark.faults
def test_nothing_is_lost_and_nothing_grows(
    file_url: str, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    results, done = soak(tmp_path, file_url, rng)
    device, desk = results["device"], results["desk"]
    for one, other in ((device, desk), (desk, device)):
        assert other.got == set(range(1, one.sent + 1))
        assert one.lost.keys() <= set(CODES)
    heap = [used for (used,) in device.samples[WARM:]]
    drift = min(heap[-LEAST:]) - min(heap[:LEAST])
    memory, descriptors, threads = zip(*desk.samples[WARM:], strict=True)
    tenth = max(5, len(memory) // 10)
    growth = median(list(memory[-tenth:])) - median(list(memory[tenth : 2 * tenth]))
    more = [min(each[-LEAST:]) - min(each[:LEAST]) for each in (descriptors, threads)]
    figures.note(
        9,
        "device",
        f"device, {SECONDS} s with {done.total()} faults: {device.sent} messages sent,"
        f" {len(device.got)} received, none lost, heap {drift:+} B",
        met=drift <= DRIFT,
    )
    figures.note(
        9,
        "desktop",
        f"desktop: RSS {growth / 1e6:+.1f} MB, descriptors {more[0]:+}, threads {more[1]:+}",
        met=growth <= GROWTH and more == [0, 0],
    )
    assert drift <= DRIFT, heap
    assert growth <= GROWTH, memory
    assert more == [0, 0], (descriptors, threads)
