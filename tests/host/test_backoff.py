"""backoff: when and where a lost connection is tried again."""

import time
from urllib.parse import urlparse

import pytest
from nats.aio.client import Server

from natsbridge.backoff import ROUND_S, Backoff

SERVERS = [Server(urlparse(f"nats://{host}:4222")) for host in ("a", "b", "c")]


def test_a_round_soon_then_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    monkeypatch.setattr("random.random", lambda: 0.5)
    backoff = Backoff(100, 500)
    got = [backoff(SERVERS, {}) for _ in range(15)]
    assert [server for server, _ in got] == SERVERS * 5
    assert [delay for _, delay in got[::3]] == [0.05, 0.2, 0.4, 0.5, 0.5]
    assert {delay for i, (_, delay) in enumerate(got) if i % 3} == {0}


def test_devices_do_not_come_back_in_step() -> None:
    first, second = set(), set()
    for _ in range(50):
        backoff = Backoff(100, 5000)
        first.add(backoff(SERVERS[:1], {})[1])
        second.add(backoff(SERVERS[:1], {})[1])
    assert len(first) > 40
    assert len(second) > 40
    assert all(0 <= delay <= 0.1 for delay in first)
    assert all(0.05 <= delay <= 0.2 for delay in second)


def test_no_delay_is_still_one() -> None:
    backoff = Backoff(0, 0)
    assert [backoff(SERVERS[:1], {})[1] for _ in range(3)] == [0, ROUND_S, ROUND_S]


def test_a_moving_connection_waits_for_nothing() -> None:
    backoff = Backoff(10_000, 60_000)
    backoff.moving = True
    assert [backoff(SERVERS, {})[1] for _ in SERVERS] == [0, 0, 0]
    assert backoff(SERVERS, {})[1] >= 5
    backoff.connected()
    assert not backoff.moving


def test_only_who_is_thrown_out_at_once_comes_back_later_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("random.random", lambda: 1.0)
    backoff = Backoff(100, 5000)
    for _ in range(6):
        backoff(SERVERS[:1], {})
    delays = []
    for stood in (0.05, 0.05, 0.05, 0.9, 0.05):
        backoff.connected()
        now[0] += stood
        delays.append(backoff(SERVERS[:1], {})[1])
    assert delays == [0.2, 0.4, 0.8, 0.1, 0.2]
