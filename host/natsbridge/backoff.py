"""When a lost connection is tried again, and at which server."""

from __future__ import annotations

import random
import time

from nats.aio.client import Server

__all__ = ["Backoff"]

#: Seconds between two rounds of attempts at least, however short `base_delay` is.
ROUND_S = 0.01


class Backoff:
    """Which server to try next, and in how many seconds: nats-py's `reconnect_to_server_handler`.

    The first round through all servers is within `base_delay`, or at once when moving. `base_delay`
    and `max_delay` are ms.

    Attributes:
        moving: whether the connection is left for another server, which is asked at once.
    """

    def __init__(self, base_delay: float, max_delay: float) -> None:
        self._base = base_delay
        self._max = max_delay
        self._first = base_delay
        self._attempts = 0
        self._stands_since: float | None = None
        self.moving = False

    def connected(self) -> None:
        """Note that the connection stands."""
        self._stands_since = time.monotonic()
        self.moving = False

    def __call__(self, servers: list[Server], info: object) -> tuple[Server, float]:
        if self._stands_since is not None:
            # Who was connected for a moment only comes back later each time.
            short = time.monotonic() - self._stands_since < self._base / 1000
            self._first = min(self._first * 2, self._max) if short else self._base
            self._attempts = 0
            self._stands_since = None
        turn, place = divmod(self._attempts, len(servers))
        self._attempts += 1
        if place or (self.moving and not turn):
            return servers[place], 0
        if not turn:  # many clients do not come all at once
            return servers[place], self._first * random.random() / 1000
        delay = min(self._first * 2 ** min(turn, 32), self._max) / 1000
        # Whoever is alone is back soon, and many are never in step.
        return servers[place], max(delay * random.uniform(0.25, 1), ROUND_S)
