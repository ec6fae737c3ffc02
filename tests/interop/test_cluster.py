"""A cluster of three brokers whose nodes go, one after another, and come again, while a device and
a desktop send each other messages: nobody has to do anything, no message is delivered twice, and
what was acknowledged is there."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import NatsServer, free_ports
from numbered import PATIENCE_S, Peer, Start, wait_for

ROUNDS = 20
#: Messages that nobody will have sent by then.
ENDLESS = 10**9
#: Seconds after which a message is sent again: those that a node took with it are lost.
AGAIN_S = 0.4


def told(port: int) -> set[str]:
    """The nodes that a node tells its clients of; none where nobody listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as node:
        node.settimeout(PATIENCE_S)
        with node.makefile("rb") as lines:
            line = lines.readline()
        if line.startswith(b"INFO "):
            return set(json.loads(line[5:]).get("connect_urls", ()))
    return set()


class Cluster:
    """Three nodes on ports that stay theirs; `urls` is where they listen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = free_ports(3)
        self._routes = free_ports(3)
        self.urls = [f"nats://127.0.0.1:{port}" for port in self._ports]
        self._config = folder / "node.conf"
        # A lame duck's clients have half a second to leave, and are closed one a second after
        # that. So it is gone soon, although 30 seconds is the least that can be asked for.
        self._config.write_text("lame_duck_grace_period: 500ms\nlame_duck_duration: 30s\n")
        self._nodes: list[NatsServer] = []
        try:
            for i in range(3):
                self._nodes.append(self._start(i))
            self._wait_until_whole()
        except BaseException:
            self.stop()
            raise

    def _start(self, i: int) -> NatsServer:
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        return NatsServer(
            self._folder,
            *("-c", str(self._config), "--cluster_name", "c", "--routes", routes),
            *("--cluster", f"nats://127.0.0.1:{self._routes[i]}"),
            port=self._ports[i],
        )

    def _wait_until_whole(self) -> None:
        every = {f"127.0.0.1:{port}" for port in self._ports}
        wait_for(
            lambda: all(told(port) == every for port in self._ports),
            lambda: f"the nodes tell of {[told(port) for port in self._ports]}",
        )

    def replace(self, i: int, how: signal.Signals) -> None:
        """End a node by a signal, start it again, and wait until each node tells of all three."""
        process = self._nodes[i].process
        process.send_signal(how)
        process.wait(PATIENCE_S)
        self._nodes[i].kill()  # and its file of ports
        self._nodes[i] = self._start(i)
        self._wait_until_whole()

    def stop(self) -> None:
        """End all."""
        for node in self._nodes:
            node.kill()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture
def peers(nodes: Cluster, file_url: str, tmp_path: Path) -> Iterator[tuple[Peer, Peer]]:
    """A device and a desktop, each of which was told one node."""
    start = Start(tmp_path, file_url, ENDLESS, AGAIN_S)
    with contextlib.ExitStack() as stack:
        device = start.device(nodes.urls[0], "device", "desk")
        stack.callback(device.stop)
        device.wait("ready")
        desk = start.desk(nodes.urls[1], "desk", "device")
        stack.callback(desk.stop)
        desk.wait("ready")
        yield device, desk


@pytest.mark.fleet
def test_every_node_goes_and_comes_again(nodes: Cluster, peers: tuple[Peer, Peer]) -> None:
    """In each round all are restarted, in order or without warning, and then all are lame ducks."""
    for n in range(ROUNDS):
        for how in (signal.SIGKILL if n % 2 else signal.SIGTERM, signal.SIGUSR2):
            for i in range(3):
                nodes.replace(i, how)
                acked = [len(peer.events("acked")) for peer in peers]
                for peer, before in zip(peers, acked, strict=True):
                    peer.wait("acked", before)
    for peer in peers:
        peer.say()
    for peer in peers:
        peer.wait("done")
    for peer in peers:
        peer.say()
        assert peer.process.wait(PATIENCE_S) == 0, peer.tail()

    for sender, receiver in (peers, peers[::-1]):
        got = [(int(n), int(attempt)) for n, attempt in receiver.events("got")]
        assert len(got) == len(set(got)), "an attempt was delivered twice"
        acked = [int(n) for (n,) in sender.events("acked")]
        assert acked == [*range(1, len(acked) + 1)]
        assert {n for n, _ in got} == set(acked), "what was acknowledged is not there"
        assert receiver.events("wrong") == []
        # When all nodes have gone, whoever is connected has moved.
        assert len(receiver.events("moved")) >= 2 * ROUNDS
