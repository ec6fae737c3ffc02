"""Leaving a server that is about to end, in order, for another one.

A server in "lame duck mode" takes no new connections, says so to those it has, and ends them some
time later, in the middle of whatever they do.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from natsbridge.broker import Broker
from natsbridge.errors import NATSBridgeError
from natsbridge.log import logger

if TYPE_CHECKING:
    from natsbridge.client import Connection

__all__ = ["leave"]

#: Seconds for another server to take a connection, and for the old one to answer a PING.
PATIENCE_S = 5.0
#: PINGs that are answered while more and more is published, after which it moves all the same.
ROUNDS = 20


async def _another(broker: Broker) -> bool:
    """Tell whether another server takes a connection. (By another name, the lame duck does not.)"""
    for server in broker.server_pool:
        if server.uri == broker.connected_url:
            continue
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            _, writer = await asyncio.wait_for(
                asyncio.open_connection(server.uri.hostname, server.uri.port or 4222), PATIENCE_S
            )
            writer.close()
            return True
    return False


async def leave(connection: Connection, broker: Broker) -> None:
    """Move the connection to another server, if there is one and it may reconnect.

    What was published has arrived by then, and what was sent to the subscriptions has come.
    """
    if not broker.options["allow_reconnect"] or not await _another(broker):
        return
    logger.info("the server %s is about to end: moving to another one", connection.url)
    for _ in range(ROUNDS):
        if not broker.is_connected:
            return
        for sid in list(broker._subs):
            await broker._send_unsubscribe(sid)
        published, connection._published_in = connection._published_in, None
        try:
            await connection._round_trip("moving to another server", PATIENCE_S)
        except NATSBridgeError:
            connection._published_in = published  # the next flush tells
            break
        others = [task for task in connection._tasks if not task.done()]
        if connection._published_in is None and len(others) == 1:  # nothing more meanwhile
            break
    connection._backoff.moving = True
    await broker.force_reconnect()
