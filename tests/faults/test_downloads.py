"""Downloads from file servers that misbehave: the right bytes or a documented error, in time.

Never a bad file under its final name, nor a temporary one that stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from answers import Run, good
from figures import Figures
from jobs import Device, Tally
from misbehaviours import AGAIN, CASES, EITHER, GOOD, LATE, Case
from natsbridge.client import Msg
from natsbridge.errors import NATSBridgeError
from scale import dice, runs
from scripted import ScriptedServer, Step, answer

#: Runs of a case on each side. Those that are cut in the head are cut at every byte of it.
TIMES = runs(1, 44, 10)
HEADS = runs(1, 70, 10)
#: Seconds after which one is given up that stalls, and that any may take.
TIMEOUT_S = 0.2
SOON_S = 6
DOCUMENTED = {"DOWNLOAD_FAILED", "INTEGRITY_ERROR", "URL_NOT_ALLOWED"}
SIZES = (2, 3, 100, 1023, 1024, 1025, 4096, 20_000)


class Download:
    """One run of a case: the connections of its server, the message, and what must come of it."""

    def __init__(self, case: Case, outcome: str, rng: random.Random, turn: int) -> None:
        self.body = rng.randbytes(rng.choice((*SIZES, rng.randint(2, 20_000))))
        run = Run(self.body, rng, turn)
        again = 1
        bad = case.script(run)
        #: Whether the message tells the size, and not the digest alone.
        self.tells = rng.random() < 0.85
        self.outcome = outcome if self.tells or outcome in (GOOD, LATE) else EITHER
        if self.outcome == AGAIN:
            if len(bad) == case.hops and rng.random() < 0.3:
                bad += case.script(run)
            again = len(bad) // case.hops
            if rng.random() < 0.2:
                self.outcome = "an error, after so many"
                again -= 1
        #: Connections that may come, and attempts.
        self.most = len(bad) + 3 * (self.outcome in (AGAIN, EITHER))
        self.retries = again + 1 if outcome == AGAIN else 5
        self.timeout = TIMEOUT_S if outcome == LATE else None
        goods: list[list[Step]] = [[good(run)] for _ in range(3)]
        ok = answer(b"ok", 200, "Connection: close")  # to DELETE
        if self.outcome in (GOOD, AGAIN):
            goods = [*goods[: self.outcome == AGAIN], [ok]]
        elif self.outcome == EITHER:
            goods.append([ok])
        self.script = [[step] for step in bad] + goods

    def message(self, url: str) -> bytes:
        """What is received: one file, for this receiver alone."""
        metadata = {"sha256": hashlib.sha256(self.body).hexdigest(), "removable": True}
        payload: dict[str, Any] = {
            "dataname": "f.bin",
            "payload_type": "binary",
            "transport": "link",
        }
        if self.tells:
            payload["size"] = len(self.body)
        payload |= {"data": url + "/file/a/b/f.bin", "metadata": metadata}
        return json.dumps({"receiver_name": "device", "payloads": [payload]}).encode()

    def judge(self, got: dict[str, Any], server: ScriptedServer, folder: Path, s: float) -> str:
        """Whether it was the right bytes or an error; neither is a failure of the test."""
        files = {path: path.read_bytes() for path in folder.iterdir()}
        for path in files:
            path.unlink()
        lines = server.lines
        deleted = [line for line in lines if line.startswith("DELETE")]
        # Asked when an URL is not allowed.
        asked = [line for line in lines if line.startswith("GET /config ")]
        if not got["code"]:
            assert files == {Path(path): self.body for path in got["result"]}
            assert self.outcome in (GOOD, AGAIN, EITHER), "it was delivered"
        else:
            assert got["code"] in DOCUMENTED, got
            assert files == {}
            assert deleted == []
            assert self.outcome not in (GOOD, AGAIN), got
        assert server.connections - len(deleted) - len(asked) <= self.most
        assert s < SOON_S
        return "error" if got["code"] else "right"


def times(name: str, case: Case) -> int:
    """How often a case is run."""
    return HEADS if "in the head" in name else TIMES


@pytest.fixture(scope="module")
def tallies(figures: Figures) -> Iterator[dict[str, Tally]]:
    both = {side: Tally(f"{side}, downloads") for side in ("device", "desktop")}
    yield both
    for side, tally in both.items():
        tally.note(figures, 6, f"downloads-{side}")


@pytest.fixture(scope="module")
def device(nats_url: str) -> Iterator[Device]:
    it = Device(nats_url, "faults.downloads")
    yield it
    it.close()


@pytest.mark.parametrize("name", CASES)
def test_the_device_gets_the_right_bytes_or_an_error_from(
    name: str, device: Device, tallies: dict[str, Tally], tmp_path: Path
) -> None:
    case = CASES[name]
    rng = dice(name)
    start = rng.randrange(1000)
    for turn in range(times(name, case)):
        download = Download(case, case.outcome, rng, start + turn)
        outcome, s = "bad", 0.0
        try:
            with ScriptedServer(*download.script) as server:
                got = device.do(
                    download.message(server.url),
                    do="receive",
                    folder=str(tmp_path),
                    files=server.url,
                    retries=download.retries,
                    timeout=download.timeout,
                )
                s = got["ms"] / 1000
            outcome = download.judge(got, server, tmp_path, s)
        finally:
            tallies["device"].add(name, outcome, s)


@pytest.mark.parametrize("name", CASES)
def test_the_desktop_gets_the_right_bytes_or_an_error_from(
    name: str, nats_url: str, tmp_path: Path, tallies: dict[str, Tally]
) -> None:
    case = CASES[name]
    rng = dice(name)
    start = rng.randrange(1000)

    async def all_of_it() -> None:
        async with await natsbridge.connect(nats_url, name="device") as nc:
            for turn in range(times(name, case)):
                await one(nc, start + turn)

    async def one(nc: Any, turn: int) -> None:
        download = Download(case, case.desktop or case.outcome, rng, turn)
        outcome, s = "bad", 0.0
        try:
            with ScriptedServer(*download.script) as server:
                begin = time.monotonic()
                got: dict[str, Any] = {"code": ""}
                try:
                    env = await natsbridge.smartreceive(
                        Msg("s", "", download.message(server.url)),
                        sink=tmp_path,
                        fileserver_url=server.url,
                        max_retries=download.retries,
                        base_delay=1,
                        max_delay=2,
                        timeout=download.timeout,
                        nats_connection=nc,
                    )
                    got["result"] = [payload[1] for payload in env["payloads"]]
                except NATSBridgeError as e:
                    got = {"code": e.code, "message": e.message}
                s = time.monotonic() - begin
            outcome = download.judge(got, server, tmp_path, s)
        finally:
            tallies["desktop"].add(name, outcome, s)

    asyncio.run(all_of_it())


@pytest.mark.faults
@pytest.mark.parametrize("side", ["device", "desktop"])
def test_without_a_timeout_a_stall_ends_after_ten_seconds(
    side: str, device: Device, tmp_path: Path
) -> None:
    download = Download(CASES["an answer stalled in the body"], LATE, dice(side), 0)
    begin = time.monotonic()
    with ScriptedServer(*download.script) as server:
        wire, place = download.message(server.url), {"fileserver_url": server.url}
        if side == "device":
            options = {"folder": str(tmp_path), "files": server.url, "retries": 1, "timeout": None}
            code = device.do(wire, do="receive", **options)["code"]
        else:
            receiving = natsbridge.smartreceive(
                Msg("s", "", wire), sink=tmp_path, max_retries=1, **place
            )
            with pytest.raises(NATSBridgeError) as e:
                asyncio.run(receiving)
            code = e.value.code
    assert code == "DOWNLOAD_FAILED"
    assert 9 < time.monotonic() - begin < 20
    assert list(tmp_path.iterdir()) == []
