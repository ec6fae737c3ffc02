"""Waiting for something to happen on a connection, up to a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Changes", "deadline_of"]


def deadline_of(timeout: float | None) -> float | None:
    """Return the event loop's time in `timeout` seconds; None is never."""
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


class Changes:
    """Those who wait for a change: whatever it was, they look for themselves what is new."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[bool]] = set()

    def wake(self) -> None:
        """Wake everybody."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def wait(self, deadline: float | None, *tasks: asyncio.Task[Any]) -> bool:
        """Wait until `wake` was called or one of `tasks` is done; False at the deadline."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, _expire, waiter)
        self._waiters.add(waiter)
        try:
            if not tasks:
                return await waiter
            futures: set[asyncio.Future[Any]] = {waiter, *tasks}
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            return any(task.done() for task in tasks) or waiter.result()
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
