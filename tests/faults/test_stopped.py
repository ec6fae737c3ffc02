"""A broker that is stopped (SIGSTOP) says nothing and ends nothing: only PINGs tell."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from figures import Figures
from monitored import MonitoredBroker
from natsbridge import sync
from sides import SIDES, Side

#: Seconds between PINGs, and how many of them may wait for an answer.
INTERVAL_S = 0.4
OUTSTANDING = 2
#: Seconds within which it is to be noticed.
NOTICED_S = INTERVAL_S * (OUTSTANDING + 1) + 1


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with MonitoredBroker(tmp_path) as one:
        yield one


@pytest.fixture
def spare(tmp_path: Path) -> Any:
    (tmp_path / "spare").mkdir()
    with MonitoredBroker(tmp_path / "spare") as one:
        yield one


def peer(side: str, folder: Path, urls: str, reconnect: bool, interval: float) -> Side:
    return Side(side, "stopped_device.py", folder, urls, str(reconnect), str(interval))


def told(line: str | None) -> list[Any]:
    assert line is not None
    what: list[Any] = json.loads(line)
    return what


def wait_for_loss(side: Side, wait_s: float) -> float:
    """Seconds until it notices."""
    begin = time.monotonic()
    what = told(side.line(wait_s + 10))
    assert what[0] in ("lost", "NATS_CONNECTION_FAILED"), what
    return time.monotonic() - begin


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_a_stopped_broker_is_an_error_that_tells(
    side: str, tmp_path: Path, broker: MonitoredBroker, figures: Figures
) -> None:
    with peer(side, tmp_path, broker.url, False, INTERVAL_S) as one:
        assert told(one.line()) == ["ready", broker.url]
        one.say()
        time.sleep(0.3)
        broker.signal(signal.SIGSTOP)
        seconds = wait_for_loss(one, NOTICED_S)
        rest = [told(line) for line in one.rest()]
        broker.signal(signal.SIGCONT)
    text = f"{side}: SIGSTOP noticed after {seconds:.1f} s, of {NOTICED_S:.1f}"
    figures.note(3, f"stopped-{side}", text, seconds <= NOTICED_S)
    assert seconds <= NOTICED_S
    assert all(what[0] in ("lost", "NATS_CONNECTION_FAILED") for what in rest)


@pytest.mark.parametrize("side", SIDES)
def test_it_goes_on_when_the_broker_does(
    side: str, tmp_path: Path, broker: MonitoredBroker
) -> None:
    with peer(side, tmp_path, broker.url, True, INTERVAL_S) as one:
        assert told(one.line()) == ["ready", broker.url]
        broker.wait_for({"peer": ["stopped"]})
        before = broker.last()
        one.say()
        broker.signal(signal.SIGSTOP)
        assert wait_for_loss(one, NOTICED_S) <= NOTICED_S
        broker.signal(signal.SIGCONT)
        broker.wait_for({"peer": ["stopped"]}, after=before)
        with sync.connect(broker.url) as nc:
            nc.publish("stopped", b"again")
            nc.flush()
        assert [told(line) for line in one.rest()][-1] == ["message", "again", broker.url]


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_it_moves_to_another_broker(
    side: str, tmp_path: Path, broker: MonitoredBroker, spare: MonitoredBroker
) -> None:
    with peer(side, tmp_path, f"{broker.url},{spare.url}", True, INTERVAL_S) as one:
        assert told(one.line()) == ["ready", broker.url]
        one.say()
        begin = time.monotonic()
        broker.signal(signal.SIGSTOP)
        spare.wait_for({"peer": ["stopped"]})
        # Each of the two servers is given its time, where the first one is the stopped one.
        assert time.monotonic() - begin < NOTICED_S + 2
        with sync.connect(spare.url) as nc:
            nc.publish("stopped", b"here")
            nc.flush()
        assert [told(line) for line in one.rest()][-1] == ["message", "here", spare.url]


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_a_broker_that_stops_for_less_than_that_is_kept(
    side: str, tmp_path: Path, broker: MonitoredBroker
) -> None:
    with peer(side, tmp_path, broker.url, True, 1) as one:
        assert told(one.line()) == ["ready", broker.url]
        broker.wait_for({"peer": ["stopped"]})
        one.say()
        broker.signal(signal.SIGSTOP)
        time.sleep(1.3)
        broker.signal(signal.SIGCONT)
        with sync.connect(broker.url) as nc:
            nc.publish("stopped", b"still")
            nc.flush()
        assert [told(line) for line in one.rest()] == [["message", "still", broker.url]]
        every = [c.get("name") for c in broker.ask("connz?state=any")["connections"]]
        assert every.count("peer") == 1
