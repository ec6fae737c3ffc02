"""Telling who listens that the broker went away, and that it is back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from natsbridge.cli.output import Output
from natsbridge.client import Connection

__all__ = ["breaks_told"]

#: Seconds between two looks at a connection.
LOOK_S = 0.2
MISSED = "what was sent meanwhile did not come"


@contextlib.asynccontextmanager
async def breaks_told(out: Output, nc: Connection, kept: bool = False) -> AsyncIterator[None]:
    """Warn, while in the block, of a connection that is lost, and say when it is back.

    Args:
        kept: whether a stream keeps what is sent meanwhile.
    """
    then = "what the stream has taken meanwhile comes now" if kept else MISSED
    task = asyncio.create_task(_tell(out, nc, then))
    try:
        yield
    finally:
        task.cancel()


async def _tell(out: Output, nc: Connection, then: str) -> None:
    lost = 0.0
    breaks = nc.client.stats["reconnects"]
    while True:
        await asyncio.sleep(LOOK_S)
        if not nc.connected and not lost:
            lost = time.monotonic()
            out.warn(f"The connection to {nc.url} is lost: trying again.")
        elif nc.connected and (lost or nc.client.stats["reconnects"] != breaks):
            gone = f"after {time.monotonic() - lost:.0f} s" if lost else "at once"
            out.warn(f"Connected again {gone}; {then}.")
            lost, breaks = 0.0, nc.client.stats["reconnects"]
