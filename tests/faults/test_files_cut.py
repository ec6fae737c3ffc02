"""A real file server behind a network at its worst: what passes is whole, nothing else stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from conftest import FileServerProcess
from fault_proxy import PLAIN, Ending, FaultProxy, Link, Way
from figures import Figures
from jobs import Device, Tally
from natsbridge import plik, sync
from natsbridge.client import Msg
from natsbridge.errors import NATSBridgeError
from scale import dice, runs

TIMES = runs(1, 25, 5)
TIMEOUT_S = 0.5
SOON_S = 8
SIZES = (0, 1, 1024, 5000, 70_000, 400_000)
DOCUMENTED = {"UPLOAD_FAILED", "DOWNLOAD_FAILED", "INTEGRITY_ERROR", "URL_NOT_ALLOWED"}
#: Faults after which another attempt always helps.
ENDS = {
    "closed": Ending.CLOSE,
    "reset": Ending.RESET,
    "half-closed": Ending.HALF_CLOSE,
}

Make = Callable[[random.Random, int], Link]


def ends(ending: Ending, up: bool) -> Make:
    """A connection that ends after some bytes, of a request and its answer of `n` bytes."""

    def make(rng: random.Random, n: int) -> Link:
        way = Way(end_after=rng.choice((rng.randrange(400), rng.randrange(n + 400))), ending=ending)
        return Link(up=way) if up else Link(down=way)

    return make


def corrupts(up: bool) -> Make:
    """A connection that turns one byte over."""

    def make(rng: random.Random, n: int) -> Link:
        way = Way(corrupt=rng.choice((rng.randrange(400), rng.randrange(n + 400))))
        return Link(up=way) if up else Link(down=way)

    return make


FAULTS: dict[str, Make] = {
    f"{name} on the way {'up' if up else 'down'}": ends(ending, up)
    for name, ending in ENDS.items()
    for up in (True, False)
}
FAULTS |= {
    "refused": lambda rng, n: Link(refused=True),
    "byte by byte": lambda rng, n: Link(up=Way(split=1), down=Way(split=1)),
    "in pieces": lambda rng, n: Link(up=Way(split=rng.randint(2, 900)), down=Way(split=1000)),
    "late": lambda rng, n: Link(up=Way(delay_s=0.02), down=Way(delay_s=0.02)),
}
#: Where it may be an error.
HARD: dict[str, Make] = {
    "stalled on the way up": ends(Ending.STALL, True),
    "stalled on the way down": ends(Ending.STALL, False),
    "a byte turned over on the way up": corrupts(True),
    "a byte turned over on the way down": corrupts(False),
    "slow": lambda rng, n: Link(up=Way(rate=20_000), down=Way(rate=20_000)),
}
ALL = {**FAULTS, **HARD}
#: Those that may be an error take their time.
CASES = [*FAULTS, *(pytest.param(name, marks=pytest.mark.faults) for name in HARD)]


class Rig:
    """The file server, the proxy before it, and who uses them."""

    def __init__(self, server: FileServerProcess, proxy: FaultProxy, device: Device) -> None:
        self.server = server
        self.proxy = proxy
        self.device = device
        self.folder = server.folder

    def plan(self, make: Make, rng: random.Random, n: int) -> int:
        """Have the fault befall the next one to three connections: so many."""
        links = [make(rng, n) for _ in range(rng.randint(1, 3))]
        first = self.proxy.connections
        self.proxy.plan = lambda i: links[i - first] if i - first < len(links) else PLAIN
        return len(links)

    def stored(self) -> list[Path]:
        """The files that the server has."""
        return [path for path in self.folder.glob("*/*") if path.suffix not in (".json", ".upload")]

    def settled(self, count: int) -> bool:
        """Whether the server has so many files, once it has noticed what has ended."""
        deadline = time.monotonic() + SOON_S
        while len(self.stored()) != count and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(self.stored()) == count


@pytest.fixture(scope="module")
def rig(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    server = FileServerProcess(tmp_path_factory.mktemp("files"))
    device = Device(nats_url, "faults.cut")
    try:
        with FaultProxy(server.url) as proxy:
            yield Rig(server, proxy, device)
    finally:
        device.close()
        server.stop()


@pytest.fixture(scope="module")
def tallies(figures: Figures) -> Iterator[dict[str, Tally]]:
    both = {side: Tally(f"{side}, behind a fault proxy") for side in ("device", "desktop")}
    yield both
    for side, tally in both.items():
        tally.note(figures, 6, f"proxy-{side}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plik, "BASE_DELAY", 1)
    monkeypatch.setattr(plik, "MAX_DELAY", 2)


def outcome(work: Any) -> dict[str, Any]:
    """What came of the desktop's work."""
    begin = time.monotonic()
    try:
        got = {"code": "", "result": asyncio.run(work)}
    except NATSBridgeError as e:
        got = {"code": e.code, "message": e.message}
    return {**got, "ms": (time.monotonic() - begin) * 1000}


@pytest.mark.parametrize("side", ["device", "desktop"])
@pytest.mark.parametrize("name", CASES)
def test_an_upload_through_a_connection_that_is(
    name: str, side: str, rig: Rig, tallies: dict[str, Tally], tmp_path: Path
) -> None:
    rng = dice(f"up {name}")
    for _ in range(TIMES):
        data = rng.randbytes(rng.choice(SIZES[:4] if "byte by" in name else SIZES))
        timeout = TIMEOUT_S if name in HARD else None
        (tmp_path / "f.bin").write_bytes(data)
        faults = rig.plan(ALL[name], rng, len(data) + 400)
        url = rig.proxy.url
        if side == "device":
            place = {"path": str(tmp_path / "f.bin"), "files": url}
            got = rig.device.do(do="upload", once=False, timeout=timeout, **place)
        else:
            got = outcome(natsbridge.plik_upload(url, "f.bin", data, timeout=timeout))
        verdict = "bad"
        try:
            assert got["ms"] < SOON_S * 1000
            if got["code"]:
                assert got["code"] in DOCUMENTED
                assert name in HARD, got
            else:
                at = got["result"]["url"].replace(url, rig.server.url)
                assert sync.fetch_with_backoff(at, 1) == data
            # The removal of what failed is tried once: another fault may befall that.
            if faults == 1:
                assert rig.settled(not got["code"]), (got, rig.stored())
            verdict = "error" if got["code"] else "right"
        finally:
            for path in rig.stored():
                path.unlink()
            tallies[side].add(f"up, {name}", verdict, got["ms"] / 1000)


@pytest.mark.parametrize("side", ["device", "desktop"])
@pytest.mark.parametrize("name", CASES)
def test_a_download_through_a_connection_that_is(
    name: str, side: str, rig: Rig, tallies: dict[str, Tally], tmp_path: Path
) -> None:
    rng = dice(f"down {name}")
    for _ in range(TIMES):
        data = rng.randbytes(rng.choice(SIZES[:4] if "byte by" in name else SIZES))
        timeout = TIMEOUT_S if name in HARD else None
        sent = sync.plik_upload(rig.server.url, "f.bin", data)
        url = rig.proxy.url
        item = {"dataname": "f.bin", "payload_type": "binary", "transport": "link"}
        item["data"] = sent["url"].replace(rig.server.url, url)
        item |= {"size": len(data), "metadata": {"sha256": hashlib.sha256(data).hexdigest()}}
        wire = json.dumps({"payloads": [item]}).encode()
        rig.plan(ALL[name], rng, len(data) + 200)
        if side == "device":
            place = {"folder": str(tmp_path), "files": url}
            got = rig.device.do(wire, do="receive", retries=5, timeout=timeout, **place)
        else:
            delays = {"base_delay": 1, "max_delay": 2, "timeout": timeout}
            message = Msg("s", "", wire)
            got = outcome(
                natsbridge.smartreceive(message, sink=tmp_path, fileserver_url=url, **delays)
            )
        verdict = "bad"
        try:
            assert got["ms"] < SOON_S * 1000
            files = [path.read_bytes() for path in tmp_path.iterdir()]
            assert files == ([] if got["code"] else [data])
            assert not got["code"] or (got["code"] in DOCUMENTED and name in HARD), got
            verdict = "error" if got["code"] else "right"
        finally:
            for path in [*tmp_path.iterdir(), *rig.stored()]:
                path.unlink()
            tallies[side].add(f"down, {name}", verdict, got["ms"] / 1000)
