"""What streams keep: publishing that is acknowledged.

A stream takes a message with the same Nats-Msg-Id once within its deduplication window (2 minutes,
unless it was told otherwise), so that publishing again is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors
import nats.js.errors

from natsbridge.errors import NATS_CONNECTION_FAILED, STREAM_FAILED, NATSBridgeError
from natsbridge.log import logger

if TYPE_CHECKING:
    from natsbridge.client import Connection

__all__ = ["asked", "publish", "refused", "warn_of_age"]

#: Seconds without an answer after which a message is published again.
ANSWER_S = 5.0
#: Seconds for all of it, where the caller bounds nothing.
MOST_S = 30.0
#: Times that no stream may answer, and seconds before it is asked again: one that starts just now
#: takes a moment.
NOBODY = 8
PAUSE_S = 0.25
#: JetStream is not available yet, or has no leader (nats-server, server/errors.json).
LATER = (10008, 10009)

T = TypeVar("T")


class Moved(Exception):
    """The connection was lost before the answer came."""


async def asked(connection: Connection, work: Coroutine[Any, Any, T], deadline: float | None) -> T:
    """Return what `work`, a request, returns, if the connection stands until then.

    Raises:
        Moved: it did not.
        asyncio.TimeoutError: no answer came until `deadline`.
    """
    reconnects = connection.client.stats["reconnects"]
    task: asyncio.Task[T] = asyncio.ensure_future(work)
    try:
        while not task.done():
            if not await connection._changes.wait(deadline, task):
                raise asyncio.TimeoutError
            client = connection.client
            lost = not client.is_connected or client.stats["reconnects"] != reconnects
            if lost and not task.done():
                raise Moved
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen


def refused(connection: Connection, e: nats.js.errors.APIError) -> NATSBridgeError:
    """Return the error for what JetStream says."""
    if not e.description:  # nobody answers there
        return NATSBridgeError(STREAM_FAILED, f"the server {connection.url} has no JetStream")
    return NATSBridgeError(STREAM_FAILED, f"the server {connection.url} refused: {e.description}")


async def publish(
    connection: Connection, subject: str, data: bytes, msg_id: str, timeout: float | None
) -> str:
    """Publish `data` with this Nats-Msg-Id until a stream has acknowledged it: the stream's name.

    Args:
        timeout: seconds; None: 30.

    Raises:
        NATSBridgeError: `STREAM_FAILED` where no stream takes the subject, or it refuses;
            `PAYLOAD_TOO_LARGE`; `NATS_CONNECTION_FAILED` when it is not known whether it is stored.
    """
    headers = {"Nats-Msg-Id": msg_id}
    connection._check_message(subject, data, headers)
    loop = asyncio.get_running_loop()
    end = loop.time() + (MOST_S if timeout is None else timeout)
    js = connection.client.jetstream()
    nobody = NOBODY
    while True:
        what = f"publishing to {subject!r}"
        await connection._stand(what, max(0.0, end - loop.time()))
        deadline = min(end, loop.time() + ANSWER_S)
        try:
            # nats-py's own timeout is never what ends it.
            work = js.publish(subject, data, timeout=2 * ANSWER_S, headers=dict(headers))
            return (await asked(connection, work, deadline)).stream
        except (Moved, asyncio.TimeoutError, nats.errors.TimeoutError):
            fault = NATSBridgeError(
                NATS_CONNECTION_FAILED,
                f"no stream has acknowledged the message to {subject!r} in time; it may be stored"
                " all the same",
            )
        except nats.js.errors.NoStreamResponseError:
            nobody -= 1
            fault = NATSBridgeError(
                STREAM_FAILED,
                f"no stream takes what is published to {subject!r}; make one: natsbridge stream"
                f" create NAME {subject!r}",
            )
        except nats.js.errors.APIError as e:
            fault = NATSBridgeError(
                STREAM_FAILED,
                f"the stream did not take the message to {subject!r}: {e.description}",
            )
            if e.err_code not in LATER:
                raise fault from None
        except (nats.errors.Error, OSError) as e:
            raise connection._failed(what, e) from e
        if loop.time() >= end or not nobody:
            raise fault
        await asyncio.sleep(PAUSE_S)


async def warn_of_age(connection: Connection, stream: str, ttl: int) -> None:
    """Warn where a stream keeps messages for longer than a file server their files: `ttl` seconds.

    A connection asks once for each stream.
    """
    if stream in connection._ages:
        age = connection._ages[stream]
    else:
        try:
            info = await connection.client.jetstream().stream_info(stream)
        except (nats.errors.Error, OSError, asyncio.TimeoutError):
            return  # the message is sent: that it may be late for its file is not worth an error
        age = connection._ages[stream] = info.config.max_age or 0
    if not age or age > ttl:
        logger.warning(
            "the stream %s keeps messages for %s, and the file server this one's files for %d s:"
            " who receives it later finds none",
            *(stream, f"{age:g} s" if age else "ever", ttl),
        )
