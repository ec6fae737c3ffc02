"""Every message that was published is delivered, or is said to be unknown.

What a peer says of a message (README's table of calls, and the docstrings of publish, flush and
close on both sides):

* refused: publish() raised PAYLOAD_TOO_LARGE. It is never delivered.
* unknown: publish() raised NATS_CONNECTION_FAILED; or it returned, and the first flush() after it
  raised, or close() did. It is delivered once or not at all.
* sure: publish() returned, and the first flush() after it returned too. It is delivered, once.

So what is published, the calls that returned, is what was delivered and what is unknown. Who
receives is not the peer that is tested, and is connected without the proxy. In the runs whose
broker is killed, it subscribes to the next one before the peer can reach that.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fault_proxy import Ending, FaultProxy, Link, Way
from figures import Figures
from monitored import MonitoredBroker
from observer import Observer, payload
from scale import runs
from sides import SIDES, Side

#: Messages of a run.
COUNT = 60
#: The number of the message that ends a run.
END = 10**6
#: Connections of a run that are cut: those that come later are not, so that it ends.
CUTS = 8
PENDING = (0, 6000, 60_000)


class Account:
    """What a peer said of its messages in a run."""

    def __init__(self) -> None:
        self.returned: set[int] = set()
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self.sure: set[int] = set()
        self.took: list[int] = []
        self.wrong: list[str] = []
        self._open: set[int] = set()
        self._said: list[str] = []

    def take(self, line: str) -> None:
        """Take down a line that it printed."""
        self._said.append(line)
        kind, *rest = line.split()
        if kind == "returned":
            self._open.add(int(rest[0]))
            self.returned.add(int(rest[0]))
        elif kind == "raised":
            n, code = int(rest[0]), rest[1]
            assert code in ("PAYLOAD_TOO_LARGE", "NATS_CONNECTION_FAILED"), line
            (self.refused if code == "PAYLOAD_TOO_LARGE" else self.unknown).add(n)
        elif kind == "flushed":
            self.sure |= self._open
            self._open = set()
        elif kind in ("unsure", "unsent"):
            assert rest == ["NATS_CONNECTION_FAILED"], line
            self.unknown |= self._open
            self._open = set()
        elif kind == "took":
            self.took.append(int(rest[0]))
        elif kind == "closed":
            assert not self._open, f"closed without a word of {self._open}"
        else:
            self.wrong.append(line)

    def check(self, seen: dict[int, int]) -> None:
        """Compare with what was delivered."""
        delivered = {n for n in seen if n != END}
        assert self.wrong == []
        lost = sorted(self.sure - delivered)
        assert not lost, f"lost without a word: {lost} of {self._said}"
        assert not self.refused & delivered, "refused, and delivered all the same"
        assert delivered <= self.returned | self.unknown
        assert self.returned <= delivered | self.unknown
        assert [n for n, times in seen.items() if times > 1] == [], "delivered twice"
        assert len(set(self.took)) == len(self.took), "taken twice"


def chaos(rng: random.Random) -> list[Link]:
    """What happens to the connections of a run."""

    def way(size: int) -> Way:
        return Way(
            split=rng.choice((None, None, 64, 999)),
            end_after=rng.randrange(1, size) if rng.random() < 0.6 else None,
            ending=rng.choice((Ending.CLOSE, Ending.RESET, Ending.HALF_CLOSE, Ending.STALL)),
        )

    return [
        Link(up=way(40_000), down=way(4000), refused=rng.random() < 0.15)
        for _ in range(rng.randrange(1, CUTS))
    ]


class Killing(threading.Thread):
    """Kills the broker at random moments, and starts it again; or cuts what there is."""

    def __init__(
        self, broker: MonitoredBroker, observer: Observer, proxy: FaultProxy, rng: random.Random
    ) -> None:
        super().__init__()
        self.over = threading.Event()
        self.kills = 0
        self._parts = broker, observer, proxy, rng

    def run(self) -> None:
        broker, observer, proxy, rng = self._parts
        while not self.over.wait(rng.uniform(0.02, 0.3)) and self.kills < 3:
            self.kills += 1
            plan = proxy.plan
            proxy.plan = Link(refused=True)
            broker.kill()
            broker.start()
            observer.connect(broker.port)
            proxy.plan = plan


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredBroker]:
    with MonitoredBroker(tmp_path_factory.mktemp("accounting")) as one:
        yield one


@pytest.fixture
def observer(broker: MonitoredBroker) -> Iterator[Observer]:
    one = Observer("account.out")
    one.connect(broker.port)
    yield one
    one.close()


def listen(peer: Side, observer: Observer, account: Account) -> None:
    """Take down what a peer says until its run is done, and send it messages."""
    deadline = time.monotonic() + 60
    n = 0
    while (line := peer.said(0.01)) != "done":
        assert time.monotonic() < deadline, "the run does not end"
        if line is not None:
            account.take(line)
        n += 1
        if n % 3 == 0:
            observer.publish(f"account.in.{n}", payload(n, 100))


def one_run(
    peer: Side, broker: MonitoredBroker, observer: Observer, rng: random.Random, kill: bool
) -> Account:
    """Have a peer publish through chaos, and compare what it says with what was delivered."""
    observer.clear()
    links = [] if kill else chaos(rng)
    account = Account()
    with FaultProxy(broker.url, lambda n: links[n] if n < len(links) else Link()) as proxy:
        task: dict[str, Any] = {"url": proxy.url, "seed": rng.getrandbits(30), "count": COUNT}
        task |= {"pending": rng.choice(PENDING), "pause": 0.03 if kill else 0}
        peer.say(json.dumps(task))
        killing = Killing(broker, observer, proxy, rng)
        if kill:
            killing.start()
        try:
            listen(peer, observer, account)
        finally:  # else it would start one more when the test has failed
            killing.over.set()
            if kill:
                killing.join(30)
    observer.wait_for(END)
    account.check(observer.seen)
    assert observer.wrong == []
    return account


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kill", [False, True], ids=["cut", "killed"])
def test_what_is_published_is_delivered_or_said_to_be_unknown(
    side: str,
    kill: bool,
    broker: MonitoredBroker,
    observer: Observer,
    tmp_path: Path,
    rng: random.Random,
    figures: Figures,
) -> None:
    """While the connections are cut at any byte, stall, are refused; or the broker is killed."""
    count = runs(2, 50, 10) if kill else runs(3, 160, 30)
    sums = dict.fromkeys(("returned", "unknown", "refused"), 0)
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(Side(side, "accounting_device.py", tmp_path, heap="512K"))
        assert peer.line() == "ready"
        for _ in range(count):
            account = one_run(peer, broker, observer, rng, kill)
            for name in sums:
                sums[name] += len(getattr(account, name))
    what = "broker killed" if kill else "cut"
    text = (
        f"{side}, {what}: {count} runs, {sums['returned']} published = delivered or unknown;"
        f" {sums['refused']} overflows raised"
    )
    figures.note(5, f"{'killed' if kill else 'cut'}-{side}", text)
    assert sums["returned"] > 20 * count
    assert sums["unknown"] > 0 or count < 10  # so few runs may have lost nothing


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "sent", [400, *(pytest.param(n, marks=pytest.mark.faults) for n in (20, 41))]
)
def test_what_overflows_where_messages_wait_is_counted(
    side: str, sent: int, broker: MonitoredBroker, observer: Observer, tmp_path: Path
) -> None:
    """What is taken and what is said to be dropped is what was sent, in its order."""
    size = 200
    with Side(side, "accounting_device.py", tmp_path, heap="512K") as peer:
        assert peer.line() == "ready"
        peer.say(json.dumps({"flood": True, "url": broker.url, "pending": 0}))
        assert peer.line() == "subscribed"
        for n in range(sent):
            observer.publish(f"account.in.{n}", payload(n, size))
        observer.publish("account.quiet", b"now")
        taken, dropped = [], 0
        while (line := peer.line()) != "done":
            kind, number = line.split()
            assert kind in ("took", "dropped"), line
            if kind == "took":
                taken.append(int(number))
            else:
                dropped += int(number)
    assert taken == sorted(set(taken))
    assert len(taken) + dropped == sent
    assert (dropped > 0) == (sent > 40)
