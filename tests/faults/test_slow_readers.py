"""Readers that are slower than what comes, and brokers that cut those, or ask them for a PONG every
second: nothing is delivered in part, and nobody is cut who need not be."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import FileServerProcess
from device import freeze
from fault_proxy import FaultProxy, Link, Way
from figures import Figures
from monitored import PATIENCE_S, MonitoredBroker
from natsbridge import sync
from scale import runs
from sides import SIDES, Side

#: What the broker is told for those who do not read, and for those who may be dead.
DEADLINE = 'write_deadline: "1s"\n'
PINGS = 'ping_interval: "1s"\nping_max: 2\n'
LARGE = "max_payload: 67108864\nmax_pending: 268435456\n"
MIB = 1 << 20
BLOCK = hashlib.sha256(b"slow").digest() * 31


def pattern(size: int) -> bytes:
    """What slow_device.py compares with."""
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


def send(broker: MonitoredBroker, *messages: tuple[int, int]) -> None:
    """Publish messages of (size, number), by a client of our own, and wait until they are taken."""
    with socket.create_connection(("127.0.0.1", broker.port), PATIENCE_S) as there:
        there.sendall(b'CONNECT {"verbose":false,"pedantic":false,"name":"source"}\r\n')
        for size, n in messages:
            there.sendall(b"PUB slow.%d_%d %d\r\n%s\r\n" % (size, n, size, pattern(size)))
        there.sendall(b"PING\r\n")
        got = b""
        while b"PONG" not in got:
            more = there.recv(4096)
            assert more, got
            got += more


def lines_until(side: Side, *last: str, wait_s: float = 30) -> list[str]:
    """What it prints, up to and including one of `last`; without what is only said meanwhile."""
    deadline = time.monotonic() + wait_s
    lines: list[str] = []
    while not lines or lines[-1] not in last:
        assert time.monotonic() < deadline, lines
        line = side.line(wait_s)
        if line != "quiet" or "quiet" in last:
            lines.append(line)
    return lines


def peers(broker: MonitoredBroker) -> int:
    """How many connections the peer has had."""
    found = broker.ask("connz?state=any&limit=4096")["connections"]
    return [c.get("name") for c in found].count("peer")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(1_000_000, id="large"),
        pytest.param(200_000, id="medium", marks=pytest.mark.faults),
    ],
)
def test_a_reader_that_is_cut_in_the_middle_of_a_message_is_told_and_comes_back(
    side: str, size: int, tmp_path: Path, figures: Figures
) -> None:
    """It is stopped while more than 10 MiB come for it, so the server cuts it off."""
    count = 12 * MIB // size
    with (
        MonitoredBroker(tmp_path, DEADLINE) as broker,
        Side(side, "slow_device.py", tmp_path, "take", broker.url, "", "1") as peer,
    ):
        assert peer.line() == "ready"
        before = broker.last()
        freeze(peer.process)
        send(broker, *((size, n) for n in range(count)))
        deadline = time.monotonic() + PATIENCE_S
        while not broker.ask("varz").get("slow_consumers"):
            assert time.monotonic() < deadline, "the server cut nobody"
            time.sleep(0.05)
        peer.process.send_signal(signal.SIGCONT)
        broker.wait_for({"peer": ["slow.*"]}, after=before + 1)
        send(broker, (300, 999))
        lines = lines_until(peer, "took 999")
        peer.rest()
    taken = [line for line in lines if line.startswith("took")]
    broken = [line for line in lines if line.startswith("broke")]
    assert taken[:-1] == [f"took {n}" for n in range(len(taken) - 1)]
    assert len(taken) <= count  # at least the one that was cut is not among them
    assert not [line for line in lines if line.startswith("wrong")], lines
    if side == "device":  # the desktop's user never sees the half of a message
        assert broken == [f"broke {len(taken) - 1} NATS_CONNECTION_FAILED"]
    if size == 1_000_000:
        text = f"{side}: cut with 12 MiB unread, {len(taken)} messages whole, none in part; back"
        figures.note(4, f"cut-{side}", text)


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_without_reconnecting_being_cut_is_an_error(side: str, tmp_path: Path) -> None:
    with (
        MonitoredBroker(tmp_path, DEADLINE) as broker,
        Side(side, "slow_device.py", tmp_path, "take", broker.url, "", "0") as peer,
    ):
        assert peer.line() == "ready"
        freeze(peer.process)
        send(broker, *((1_000_000, n) for n in range(12)))
        while not broker.ask("varz").get("slow_consumers"):
            time.sleep(0.05)
        peer.process.send_signal(signal.SIGCONT)
        lines = lines_until(peer, "lost NATS_CONNECTION_FAILED")
        peer.rest()
    assert not [line for line in lines if line.startswith("wrong")], lines


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_a_trickle_does_not_cut_a_slow_consumer(side: str, tmp_path: Path, rng: Any) -> None:
    """20 messages a second for one that takes 8, under a write deadline of a second. (PINGs each
    second would cut it: it answers in the order in which all comes, and falls behind by more.)"""
    count = runs(30, 300, 120)
    with (
        MonitoredBroker(tmp_path, DEADLINE) as broker,
        Side(side, "slow_device.py", tmp_path, "trickle", broker.url, "", "125") as peer,
    ):
        assert peer.line() == "ready"
        for n in range(count):
            send(broker, (rng.choice((20, 700, 1900)), n + 1000))
            time.sleep(0.05)
        send(broker, (20, 999))
        lines = lines_until(peer, "took 999", wait_s=count * 0.2 + 30)
        assert peers(broker) == 1
        assert broker.ask("varz")["slow_consumers"] == 0
        peer.rest()
    assert lines == [*(f"took {n + 1000}" for n in range(count)), "took 999"]


def sizes() -> tuple[int, int]:
    """Bytes of a transfer, and bytes a second: it takes five PINGs, of which two would be too many
    without an answer."""
    size = runs(3 * MIB, 64 * MIB, 64 * MIB)
    return size, size // runs(4, 7, 7)


def check_kept(broker: MonitoredBroker, begin: float) -> float:
    """Seconds since then, which were enough for PINGs to be missed; nobody was cut."""
    assert peers(broker) == 1
    told = broker.ask("varz")
    assert told["slow_consumers"] == 0
    assert not told.get("stale_connections")
    seconds = time.monotonic() - begin
    assert seconds > 3
    return seconds


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_a_file_that_goes_out_slowly_costs_no_connection(
    side: str, tmp_path: Path, file_server: FileServerProcess, figures: Figures
) -> None:
    """By link, while the broker PINGs every second."""
    size, rate = sizes()
    with (
        MonitoredBroker(tmp_path, PINGS) as broker,
        FaultProxy(file_server.url, Link(up=Way(rate=rate))) as files,
        sync.connect(broker.url, name="other") as nc,
        nc.subscribe("slow.out") as sub,
        Side(
            side, "slow_device.py", tmp_path, "send", broker.url, files.url, str(size), heap="128K"
        ) as peer,
    ):
        begin = time.monotonic()
        assert peer.line(60) == "sent"
        seconds = check_kept(broker, begin)
        env = sync.smartreceive(sub.next(5), fileserver_url=files.url)
        assert env["payloads"][0][1] == pattern(size)
        peer.rest()
    text = f"{side}: {size // MIB} MiB sent in {seconds:.0f} s under PINGs each second, not cut"
    figures.note(4, f"out-{side}", text)


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_a_file_that_comes_slowly_costs_no_connection(
    side: str, tmp_path: Path, file_server: FileServerProcess, figures: Figures
) -> None:
    size, rate = sizes()
    with (
        MonitoredBroker(tmp_path, PINGS) as broker,
        FaultProxy(file_server.url, Link(down=Way(rate=rate))) as files,
        sync.connect(broker.url, name="other") as nc,
        Side(
            *(side, "slow_device.py", tmp_path, "receive", broker.url, files.url, str(size)),
            heap="128K",
        ) as peer,
    ):
        assert peer.line() == "ready"
        sync.smartsend(
            "slow.in",
            [("x", pattern(size), "binary")],
            nats_connection=nc,
            fileserver_url=files.url,
            size_threshold=1,
        )
        begin = time.monotonic()
        assert peer.line(60) == "whole"
        seconds = check_kept(broker, begin)
        peer.rest()
    text = f"{side}: {size // MIB} MiB fetched in {seconds:.0f} s under PINGs each second, not cut"
    figures.note(4, f"in-{side}", text)


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_messages_that_go_out_slowly_cost_no_connection(side: str, tmp_path: Path) -> None:
    """One after the other, from the first moment on: in between PINGs are read and answered."""
    size, rate = sizes()
    size -= size % (100 * len(BLOCK))
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(MonitoredBroker(tmp_path, PINGS))
        line = stack.enter_context(FaultProxy(broker.url, Link(up=Way(rate=rate))))
        nc = stack.enter_context(sync.connect(broker.url, name="other"))
        sub = stack.enter_context(nc.subscribe("slow.out"))
        arguments = "stream", line.url, "", str(size)
        peer = stack.enter_context(Side(side, "slow_device.py", tmp_path, *arguments))
        begin = time.monotonic()
        assert peer.line(60) == "sent"
        check_kept(broker, begin)
        for _ in range(size // (100 * len(BLOCK))):
            assert sub.next(5).data == BLOCK * 100
        assert sub.next(0) is None
        peer.rest()


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_one_message_that_goes_out_too_slowly_is_an_error_and_nothing_of_it_comes(
    side: str, tmp_path: Path
) -> None:
    """No PONG fits into a PUB: the server takes who sends one for longer than its PINGs may wait
    for dead. It says so, and the next message arrives."""
    size, rate = sizes()
    size = size * 3 // 4 - 100_000  # as base64 in an envelope
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(MonitoredBroker(tmp_path, PINGS + LARGE))
        line = stack.enter_context(FaultProxy(broker.url, Link(up=Way(rate=rate // 2))))
        nc = stack.enter_context(sync.connect(broker.url, name="other"))
        sub = stack.enter_context(nc.subscribe("slow.out"))
        arguments = "direct", line.url, "", str(size)
        peer = stack.enter_context(Side(side, "slow_device.py", tmp_path, *arguments, heap="128K"))
        assert peer.line(60) == "failed NATS_CONNECTION_FAILED"
        peer.rest()
        msg = sub.next(5)
        assert msg is not None
        assert msg.data == b"after"


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_publishing_to_a_broker_that_is_stopped_is_an_error_in_time(
    side: str, tmp_path: Path
) -> None:
    """PINGs every 4 s, two of which may wait for an answer, would take 12."""
    with (
        MonitoredBroker(tmp_path) as broker,
        Side(side, "slow_device.py", tmp_path, "publish", broker.url, "", "0") as peer,
    ):
        assert peer.line() == "ready"
        broker.signal(signal.SIGSTOP)
        begin = time.monotonic()
        assert peer.line() == "stuck NATS_CONNECTION_FAILED"
        assert time.monotonic() - begin < 13
        peer.rest()
