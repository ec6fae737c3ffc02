"""A broker that keeps its port when it is killed, and tells who is connected."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

from conftest import NatsServer, free_ports
from device import freeze

#: Seconds for whatever should come soon.
PATIENCE_S = 20


class MonitoredBroker:
    """A nats-server at `url` with options, as a process of its own each time it is started."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self._folder = folder
        self.port, self._monitor = free_ports(2)
        self.url = f"nats://127.0.0.1:{self.port}"
        self._options = ["-m", str(self._monitor)]
        if config:
            path = folder / "broker.conf"
            path.write_text(config)
            self._options += ["-c", str(path)]
        self.server: NatsServer
        self.start()

    def start(self) -> None:
        """Start it."""
        self.server = NatsServer(self._folder, *self._options, port=self.port)

    def kill(self) -> None:
        """End it without warning."""
        self.server.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if number == signal.SIGSTOP:
            freeze(self.server.process)
        else:
            self.server.process.send_signal(number)

    def takes_connections(self) -> bool:
        """Whether its port is open."""
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def ask(self, what: str) -> dict[str, Any]:
        """What its monitoring says, {} where it does not answer."""
        with contextlib.suppress(OSError, ValueError):
            url = f"http://127.0.0.1:{self._monitor}/{what}"
            with urllib.request.urlopen(url, timeout=1) as answer:
                told: dict[str, Any] = json.load(answer)
                return told
        return {}

    def clients(self, after: int = 0) -> dict[str, list[str]]:
        """The subjects of each client's subscriptions, by its name; "" for one without.

        after: the number of a connection. Only those that came later count.
        """
        found = self.ask("connz?subs=1").get("connections", [])
        return {
            c.get("name", ""): sorted(c.get("subscriptions_list", []))
            for c in found
            if c["cid"] > after
        }

    def last(self) -> int:
        """The number of its last connection."""
        return max((c["cid"] for c in self.ask("connz")["connections"]), default=0)

    def wait_for(
        self, clients: dict[str, list[str]], wait_s: float = PATIENCE_S, after: int = 0
    ) -> None:
        """Wait until these, and no others, have these subscriptions."""
        deadline = time.monotonic() + wait_s
        while (now := self.clients(after)) != clients:
            assert time.monotonic() < deadline, now
            time.sleep(0.01)

    def __enter__(self) -> MonitoredBroker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.kill()  # it may be stopped
