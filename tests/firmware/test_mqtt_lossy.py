"""MQTT over a network that breaks off anywhere: at QoS 1 nothing is lost, in either direction."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from board import Board, run
from fault_proxy import Ending, FaultProxy, Link, Way
from mqtt_broker import MqttServer
from natsbridge import sync
from scale import runs

#: Messages in each direction.
MESSAGES = runs(quick=4, full=1000, short=200)
#: Bytes a second, so that the device keeps up: what it acknowledges is not cut off with the rest.
RATE = 300_000


def proxy(server: MqttServer, rng: random.Random, up: bool) -> FaultProxy:
    """Connections that end after a few KB, or in the handshake (but for the first)."""

    def plan(n: int) -> Link:
        way = Way(
            end_after=rng.randrange(rng.choice([100, 12_000])) if n else 1000,
            ending=rng.choice([Ending.CLOSE, Ending.RESET]),
        )
        return Link(up=way) if up else Link(down=replace(way, rate=RATE))

    return FaultProxy(server.mqtt.replace("mqtt:", "http:"), plan)


def through(it: FaultProxy) -> str:
    return it.url.replace("http:", "mqtt:")


def sizes(rng: random.Random) -> list[int]:
    return [rng.choice([0, 10, 2000, 3000, rng.randrange(6000)]) for _ in range(MESSAGES)]


OPTIONS = "base_delay=1, max_delay=20, timeout=20"


def test_what_is_published_over_connections_that_break_off_all_arrives(
    tmp_path: Path, rng: random.Random
) -> None:
    """In order; what comes twice has the same msg_id."""
    expected = sizes(rng)
    script = f"""
nc = natsbridge.connect(sys.argv[1], {OPTIONS})
for i, size in enumerate({expected}):
    natsbridge.smartsend("up", [("n", {{"n": i}}, "dictionary"), ("d", bytes(size), "binary")],
                         nats_connection=nc)
nc.close()
"""
    with (
        MqttServer(tmp_path) as server,
        proxy(server, rng, up=True) as lossy,
        sync.connect(server.url) as desk,
    ):
        sub = desk.subscribe("up")
        desk.flush()
        with Board(script, through(lossy)) as board:
            assert board.rest(60 + MESSAGES) == []
        desk.flush()
        got: dict[str, Any] = {}
        while (msg := sub.next(0.1)) is not None:
            env = sync.smartreceive(msg)
            got.setdefault(env["msg_id"], env["payloads"])
        assert lossy.connections > 1
    numbers = [payloads[0][1]["n"] for payloads in got.values()]
    assert numbers == list(range(MESSAGES))
    assert [len(payloads[1][1]) for payloads in got.values()] == expected


@pytest.mark.long
def test_what_comes_over_connections_that_break_off_all_arrives(
    tmp_path: Path, rng: random.Random
) -> None:
    """To a session: what was not acknowledged comes again."""
    session = """
nc = natsbridge.connect(sys.argv[1], id="r", session=True)
nc.subscribe("down")
nc.flush()
nc.close()
"""
    receiver = f"""
nc = natsbridge.connect(sys.argv[1], id="r", session=True, {OPTIONS})
while not isinstance(code(nc.subscribe, "down"), natsbridge.subscription.Subscription):
    pass
seen = set()
while len(seen) < {MESSAGES}:
    try:
        msg = nc.next(20)
        env = natsbridge.smartreceive(msg)
        n = env["payloads"][0][1]["n"]
        if n not in seen:
            print(n, len(env["payloads"][1][1]))
        seen.add(n)
    except natsbridge.NATSBridgeError as e:
        if e.code not in ("NATS_CONNECTION_FAILED", "INVALID_ENVELOPE"):
            raise
nc.close()
"""
    expected = sizes(rng)
    sender = f"""
nc = natsbridge.connect(sys.argv[1])
for i, size in enumerate({expected}):
    natsbridge.smartsend("down", [("n", {{"n": i}}, "dictionary"), ("d", bytes(size), "binary")],
                         nats_connection=nc)
nc.close()
"""
    with (
        MqttServer(tmp_path, listener='ack_wait: "200ms"') as server,
    ):
        assert run(session, server.mqtt) == []
        assert run(sender, server.mqtt, timeout=60) == []
        with (
            proxy(server, rng, up=False) as lossy,
            Board(receiver, through(lossy)) as board,
        ):
            lines = board.rest(60 + 2 * MESSAGES)
            assert lossy.connections > 1
    got = {int(line.split()[0]): int(line.split()[1]) for line in lines}
    assert got == dict(enumerate(expected))
