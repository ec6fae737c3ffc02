"""Waiting for something to happen on a connection, up to a deadline."""

from __future__ import annotations

import asyncio

__all__ = ["Changes", "deadline_of"]


def deadline_of(timeout: float | None) -> float | None:
    """Return the event loop's time in `timeout` seconds; None is never."""
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


class Changes:
    """Those who wait for a change: whatever it was, they look for themselves what is new."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Wake everybody."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, deadline: float | None, *tasks: asyncio.Task[None]) -> bool:
        """Wait until `wake` was called or one of `tasks` is done; False at the deadline."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        try:
            done, _ = await asyncio.wait(
                {waiter, *tasks},
                timeout=None if deadline is None else max(deadline - loop.time(), 0),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._waiters.discard(waiter)
        return bool(done)
