"""Many devices that lose their broker at once do not come back at once, and one is soon back.

The 1,000 are simulated: for each, the code that decides when to try again (the firmware's Dialer
and its recover.again, the desktop's Backoff and its http.pause) runs in a time of its own, which
passes only where it waits, and its random numbers are the test's. An attempt fails at once until
the outage is over, and succeeds then. "The retries" are all attempts of all devices until each has
succeeded. The 20 are real, and so are their broker and the times at which they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import pytest
from nats.aio.client import Server

from board import Board
from conftest import NatsServer, free_ports
from fault_proxy import FaultProxy, Link
from figures import Figures
from harness import PACKAGE, load_firmware
from natsbridge import backoff, http
from natsbridge.backoff import Backoff
from scale import runs
from sides import SIDES

DEVICES = 1000
#: Seconds that an outage takes.
OUTAGES = (0.5, 1, 2, 5, 10, 30, 60)
#: Those of a broker that was only restarted.
SHORT = (0.1, 0.25, 0.5, 1)
#: ms, connect's defaults.
DELAYS = (100, 5000)

#: When a client tries again, in seconds since it lost its broker, for an outage of so many seconds.
Attempts = Callable[[float], list[float]]


class Clock:
    """Stands for the firmware's time: it passes in sleep_ms, and whenever the test wants it to."""

    def __init__(self) -> None:
        self.ms = 0

    def ticks_ms(self) -> int:
        return self.ms

    def ticks_add(self, ticks: int, ms: int) -> int:
        return ticks + ms

    def ticks_diff(self, a: int, b: int) -> int:
        return a - b

    def sleep_ms(self, ms: int) -> None:
        self.ms += ms


@contextlib.contextmanager
def firmware(module: str, rng: random.Random) -> Iterator[tuple[Any, Clock]]:
    """A part of the firmware, with a clock and dice of the test's."""
    load_firmware("errors")
    sys.modules[PACKAGE].__version__ = "0"  # type: ignore[attr-defined]
    clock = Clock()
    dice = SimpleNamespace(urandom=rng.randbytes)
    with pytest.MonkeyPatch.context() as patch:
        part, stream = load_firmware(module), load_firmware("stream")
        patch.setattr(part, "time", clock)
        patch.setattr(stream, "time", clock)
        patch.setattr(part, "os", dice)
        yield part, clock


def device_options(since: int) -> dict[str, Any]:
    """What a connection of the firmware keeps that has stood since then, in ms."""
    base, most = DELAYS
    return {
        **{"servers": [("broker", 4222)], "found": [], "server": ("broker", 4222)},
        **{"delay": base, "base_delay": base, "max_delay": most, "hold": None},
        **{"since": since, "timeout": 5, "why": ""},
    }


def device_connects(
    greet: Any, clock: Clock, outage: float, options: dict[str, Any]
) -> list[float]:
    """Reconnecting, by the firmware."""
    since = clock.ms
    attempts: list[float] = []

    class Dialer(greet.Dialer):  # type: ignore[misc]
        def greet(self, server: object) -> Iterator[int]:
            attempts.append((clock.ms - since) / 1000)
            if attempts[-1] < outage:
                raise OSError("refused")
            yield from ()

    nc = SimpleNamespace(_stream=None, url="nats://broker:4222", _options=options)
    for _ in Dialer(nc).generator:
        clock.ms = max(clock.ms, options["hold"] or 0)
    return attempts


def host_connects(waits: Backoff, outage: float) -> list[float]:
    """Reconnecting, by the desktop."""
    servers = [Server(urlparse("nats://broker:4222"))]
    attempts = [waits(servers, {})[1]]
    while attempts[-1] < outage:
        attempts.append(attempts[-1] + waits(servers, {})[1])
    return attempts


def device_fetches(recover: Any, clock: Clock, outage: float) -> list[float]:
    """Asking a file server again, by the firmware."""
    clock.ms = 0
    attempts: list[float] = []

    def attempt() -> bool:
        attempts.append(clock.ms / 1000)
        if attempts[-1] < outage:
            raise recover.Fault("503")
        return True

    base, most = DELAYS
    job = SimpleNamespace(
        **{"stream": None, "attempt": attempt, "attempts": 1, "tries": (5, base, most)},
        **{"status": 503, "headers": [None] * 8, "done": 0, "id": ""},
        **{
            "dataname": "x",
            "correlation_id": "",
            "code": "DOWNLOAD_FAILED",
            "origin": "",
            "url": "",
        },
        **{"close": lambda: None, "tick": lambda: None},
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(recover.Fault):
        patch.setattr(recover, "_error", lambda job, key, why: why)  # its text takes a while
        recover.again(job, recover.Fault("503"))
    return attempts


def host_fetches(outage: float) -> list[float]:
    """Asking a file server again, by the desktop."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        for attempt in range(1, 5):
            with contextlib.suppress(StopIteration):
                http.pause(attempt, *DELAYS).send(None)
            if sum(waited) >= outage:
                break
    return [sum(waited[: n + 1]) for n in range(len(waited))]


@contextlib.contextmanager
def clients(side: str, what: str, rng: random.Random) -> Iterator[Attempts]:
    """What gives the attempts of one simulated client after another."""
    if side == "device":
        with firmware("greet" if what == "connects" else "recover", rng) as (part, clock):
            if what == "connects":
                yield lambda outage: device_connects(
                    part, clock, outage, device_options(clock.ms - 60_000)
                )
            else:
                yield lambda outage: device_fetches(part, clock, outage)
        return
    with pytest.MonkeyPatch.context() as patch:
        for module in (backoff, http):
            patch.setattr(module, "random", rng)
        if what == "connects":
            yield lambda outage: host_connects(Backoff(*DELAYS), outage)
        else:
            yield host_fetches


def most_at_once(attempts: list[float], begin: float) -> float:
    """The largest share of all attempts that any 100 ms hold, from `begin` on (seconds)."""
    windows = Counter(int((at - begin) * 10) for at in attempts if at >= begin)
    return max(windows.values(), default=0) / len(attempts)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", ["connects", "fetches"])
def test_from_the_first_second_on_no_100_ms_hold_a_twentieth_of_the_retries(
    side: str, what: str, rng: random.Random, figures: Figures
) -> None:
    worst = 0.0
    with clients(side, what, rng) as client:
        for outage in OUTAGES:
            attempts = [at for _ in range(DEVICES) for at in client(outage)]
            assert len(attempts) >= DEVICES
            worst = max(worst, most_at_once(attempts, 1))
    if what == "connects":
        text = f"{side}: of 1,000, {100 * worst:.1f} % of the retries in the fullest 100 ms"
        figures.note(8, f"fleet-{side}", text, worst <= 0.05)
    assert worst <= 0.05


@pytest.mark.parametrize("side", SIDES)
def test_even_a_long_outage_ends_without_a_crowd(side: str, rng: random.Random) -> None:
    """Of those who come back after it, a fifteenth at most do so in any 100 ms."""
    with clients(side, "connects", rng) as client:
        back = [client(30)[-1] for _ in range(DEVICES)]
    assert most_at_once(back, 0) <= 1 / 15
    assert max(back) < 30 + DELAYS[1] / 1000 + 0.01


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("outage", SHORT)
def test_alone_it_is_back_within_2_seconds_of_a_short_restart(
    side: str, outage: float, rng: random.Random
) -> None:
    """99 of 100 times."""
    with clients(side, "connects", rng) as client:
        late = sorted(client(outage)[-1] - outage for _ in range(3000))
    assert late[2970] < 2


@pytest.mark.parametrize("side", SIDES)
def test_however_often_a_broker_restarts_it_is_back_within_2_seconds(
    side: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """99 of 100 times, where no connection stands for more than a second."""
    restarts = [(rng.uniform(0, 1), rng.uniform(0, 0.2)) for _ in range(3000)]
    if side == "device":
        late = []
        with firmware("greet", rng) as (greet, clock):
            options = device_options(clock.ms)
            for stood, outage in restarts:
                options["since"] = clock.ms
                clock.ms += int(stood * 1000)
                late.append(device_connects(greet, clock, outage, options)[-1] - outage)
    else:
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        monkeypatch.setattr(backoff, "random", rng)
        waits = Backoff(*DELAYS)
        late = []
        for stood, outage in restarts:
            waits.connected()
            now[0] += stood
            late.append(host_connects(waits, outage)[-1] - outage)
            now[0] += outage + late[-1]
    assert sorted(late)[2970] < 2


@pytest.mark.parametrize("side", SIDES)
def test_without_jitter_it_would_be_seen(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is, the share that is measured is not small by itself."""
    monkeypatch.setattr(random.Random, "uniform", lambda self, low, high: high)
    monkeypatch.setattr(random.Random, "random", lambda self: 0.5)
    monkeypatch.setattr(random.Random, "randbytes", lambda self, n: b"\xff" * n)
    with clients(side, "connects", random.Random(1)) as client:
        attempts = [at for _ in range(100) for at in client(5)]
    assert most_at_once(attempts, 1) > 0.1


PEER = """
nc = natsbridge.connect(sys.argv[1], name=sys.argv[2])
sub = nc.subscribe("fleet")
print("ready")
while not said():
    code(nc.next, 0.5)
print("done")
"""


def test_real_devices_are_all_back_soon_and_not_in_step(tmp_path: Path, figures: Figures) -> None:
    """Through a proxy that takes the time at which each of their connections comes."""
    count = runs(4, 20)
    came: list[float] = []

    def plan(n: int) -> Link:
        came.append(time.monotonic())
        return Link()

    port = free_ports(1)[0]
    with contextlib.ExitStack() as stack:
        server = NatsServer(tmp_path, port=port)
        stack.callback(lambda: server.stop())
        proxy = stack.enter_context(FaultProxy(server.url, plan))
        boards = [
            stack.enter_context(Board(PEER, proxy.url, f"d{n}", heap="72K")) for n in range(count)
        ]
        for board in boards:
            assert board.line() == "ready"
        server.kill()
        time.sleep(0.3)
        server = NatsServer(tmp_path, "-m", "-1", port=port)
        opened = time.monotonic()
        monitoring = json.loads((tmp_path / f"nats-server_{server.process.pid}.ports").read_text())
        everybody = {f"d{n}" for n in range(count)}
        while listening(monitoring["monitoring"][0]) != everybody:
            assert time.monotonic() < opened + 10, came
            time.sleep(0.02)
        took = time.monotonic() - opened
        for board in boards:
            board.say()
            assert board.rest()[-1] == "done"
    figures.note(8, "real-device", f"device: {count} real ones back after {took:.1f} s", took < 3)
    assert took < 3  # 2 for one; the last of many may be later, and the machine is busy
    assert len(came) >= 2 * count  # each came again at least once
    assert came[-1] - came[-count] > count / 200, "they came back in step"


def listening(monitoring: str) -> set[str]:
    """The names of a server's clients whose subscription is there."""
    with urllib.request.urlopen(f"{monitoring}/connz?subs=1", timeout=5) as answer:
        connections = json.load(answer)["connections"]
    return {c["name"] for c in connections if c.get("subscriptions_list") == ["fleet"]}
