"""Durable consumers: what a stream keeps for this peer until the peer has acknowledged it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg as NatsMsg
from nats.js.api import AckPolicy, ConsumerConfig

from natsbridge import plik
from natsbridge.arguments import check_count, check_timeout
from natsbridge.changes import deadline_of
from natsbridge.errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    STREAM_FAILED,
    NATSBridgeError,
)
from natsbridge.jetstream import ANSWER_S, NOBODY, PAUSE_S, Moved, asked, refused
from natsbridge.subjects import check_subject, is_subject
from natsbridge.subscription import Msg

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from natsbridge.client import Connection

__all__ = ["Inbox", "StoredMsg", "open_inbox"]

#: Seconds for which a server is asked to wait at a time, and the least that it waits.
SLICE_S = 5.0
LEAST_S = 0.05

#: What no name of a stream or a consumer has: it is a token of subjects, and a file's name; quotes
#: because the device writes it into JSON as it is.
_NO_NAME = re.compile(r'[.*>/\\"]')
#: Seconds: a server counts them in ns, in 64 bits.
MOST_S = 1_000_000_000


def _check_most(seconds: float, what: str) -> None:
    if seconds > MOST_S:
        raise NATSBridgeError(INVALID_ARGUMENT, f"{what} must be at most {MOST_S} seconds")


def _unconfirmed(what: str, why: str) -> NATSBridgeError:
    return NATSBridgeError(
        NATS_CONNECTION_FAILED,
        f"{what} was not confirmed ({why}): repeat it, or the message comes again",
    )


class StoredMsg(Msg):
    """A message of an inbox: a `Msg`, with what may be said of it."""

    __slots__ = ("_claimed", "_inbox", "_nats")

    def __init__(self, msg: NatsMsg, inbox: Inbox) -> None:
        super().__init__(
            msg.subject, msg.reply, msg.data, msg.headers, connection=inbox._connection
        )
        self._nats = msg
        self._inbox = inbox
        #: Removes the files that `smartreceive` has fetched.
        self._claimed: Callable[[], Awaitable[None]] | None = None

    async def ack(self, timeout: float | None = 5) -> None:
        """It is done with, and does not come again.

        Waits until the server has confirmed that, and then removes the files from the file server
        that were for this receiver alone.

        Args:
            timeout: seconds.

        Raises:
            NATSBridgeError: `NATS_CONNECTION_FAILED` where it is not confirmed, so that it can be
                repeated; `STREAM_FAILED` if the consumer is gone.
        """
        check_timeout(timeout)
        connection = self._inbox._connection
        what = f"acknowledging the message on {self.subject!r}"
        deadline = deadline_of(timeout)
        await connection._stand(what, timeout)
        try:
            await asked(connection, connection.client.request(self.reply, timeout=86400), deadline)
        except nats.errors.NoRespondersError:
            await self._inbox._check(what)
            raise _unconfirmed(what, "nobody answers") from None
        except (Moved, asyncio.TimeoutError, nats.errors.Error, OSError) as e:
            raise _unconfirmed(what, str(e).removeprefix("nats: ") or "no answer") from None
        if self._claimed is not None:
            claimed, self._claimed = self._claimed, None
            await claimed()

    async def nak(self, delay: float = 0) -> None:
        """It can't be done now: it comes again, after `delay` seconds."""
        check_timeout(delay, "delay")
        _check_most(delay or 0, "delay")
        await self._say(self._nats.nak(delay))

    async def term(self) -> None:
        """It can never be done: it does not come again."""
        await self._say(self._nats.term())

    async def in_progress(self) -> None:
        """It takes longer: the time after which it comes again begins anew."""
        await self._say(self._nats.in_progress())

    async def _say(self, word: Awaitable[None]) -> None:
        connection = self._inbox._connection
        await connection._call(f"answering the message on {self.subject!r}", self._said(word))

    async def _said(self, word: Awaitable[None]) -> None:
        try:
            await word
        except nats.errors.MsgAlreadyAckdError:  # whose text has all of the message
            why = f"the message on {self.subject!r} was answered with nak() or term() before"
            raise NATSBridgeError(INVALID_ARGUMENT, why) from None

    def _too_late(self) -> str:
        """Say why a file of it may be gone."""
        waited = time.time() - self._nats.metadata.timestamp.timestamp()
        return (
            f"; the message has waited {waited:.0f} s in the stream {self._inbox._stream}, and the"
            f" file server keeps a file for its time to live, {plik.DEFAULT_TTL} s or less: let the"
            " stream's max_age be shorter than that"
        )

    @contextlib.asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Say that it is in progress, in time, until the end."""

        task = asyncio.ensure_future(self._keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._inbox._ack_wait / 2)
            with contextlib.suppress(NATSBridgeError):  # then it comes again
                await self.in_progress()


class Inbox:
    """What a stream has for a durable consumer; see `Connection.inbox`."""

    def __init__(
        self, connection: Connection, subscription: Any, stream: str, name: str, ack_wait: int
    ) -> None:
        self._stream = stream
        self._name = name
        self._ack_wait = ack_wait
        self._connection = connection
        self._pull = subscription

    async def fetch(self, n: int = 1, timeout: float | None = 5) -> list[StoredMsg]:
        """Return up to `n` messages: those that wait, or else those that come first.

        Args:
            timeout: seconds to wait where none waits.

        Raises:
            NATSBridgeError: `STREAM_FAILED` if the consumer is gone; `NATS_CONNECTION_FAILED`.
        """
        check_count(n, "n", 1)
        check_timeout(timeout)
        connection = self._connection
        loop = asyncio.get_running_loop()
        deadline = deadline_of(timeout)
        nobody = NOBODY
        what = f"fetching from {self._name!r} of the stream {self._stream!r}"
        while True:
            left = SLICE_S if deadline is None else max(0.0, deadline - loop.time())
            await connection._stand(what, None if deadline is None else left)
            wait = max(LEAST_S, min(left, SLICE_S))
            try:
                found = await asked(
                    connection, self._pull.fetch(n, wait), loop.time() + wait + ANSWER_S
                )
                return [StoredMsg(msg, self) for msg in found]
            except (Moved, asyncio.TimeoutError, nats.errors.TimeoutError):
                pass
            except (nats.js.errors.APIError, nats.errors.NoRespondersError) as e:
                nobody -= 1
                gone = "eleted" in (getattr(e, "description", "") or "")
                if gone or not nobody:
                    why = getattr(e, "description", "") or "there is no such consumer"
                    raise NATSBridgeError(STREAM_FAILED, f"{what} failed: {why}") from None
                await asyncio.sleep(PAUSE_S)
            except (nats.errors.Error, OSError) as e:
                raise connection._failed(what, e) from e
            if deadline is not None and loop.time() >= deadline:
                await self._check(what)
                return []

    async def _leave(self) -> None:
        """End it: what has come, and nobody has fetched, comes again at once, to whoever asks.

        What the server was asked for it can send until then; what it sends no more is not lost.
        """
        client, sub = self._connection.client, self._pull._sub
        with contextlib.suppress(NATSBridgeError, nats.errors.Error, OSError):  # else it knows
            if client.is_connected and sub._id in client._subs:
                await client._send_unsubscribe(sub._id)
                await self._connection._round_trip(f"leaving {self._name!r}", ANSWER_S)
        client._remove_sub(sub._id)
        while not sub._pending_queue.empty():
            msg = sub._pending_queue.get_nowait()
            if msg.reply:  # what the server says has none
                with contextlib.suppress(NATSBridgeError):
                    await StoredMsg(msg, self).nak()

    async def _check(self, what: str) -> None:
        """Raise an error if there is no such consumer: that is silent too."""
        try:
            await self._connection.client.jetstream().consumer_info(self._stream, self._name)
        except nats.js.errors.NotFoundError as e:
            raise NATSBridgeError(STREAM_FAILED, f"{what} failed: {e.description}") from None
        except (nats.errors.Error, OSError, asyncio.TimeoutError) as e:
            raise self._connection._failed(what, e) from e


async def _known(
    js: JetStreamContext, stream: str, name: str, subject: str
) -> ConsumerConfig | None:
    """Return what a consumer that is there was told.

    One for another subject is refused: it would be changed, and who shares it would never get what
    it has not fetched yet. So is one that gives its messages in another way.
    """
    try:
        config: ConsumerConfig = (await js.consumer_info(stream, name)).config
    except nats.js.errors.NotFoundError:  # of the stream too: making the consumer says so
        return None
    there = f"{name!r} of the stream {stream!r} is there"
    told = config.filter_subjects or [config.filter_subject or ""]
    if told != [subject or ""]:
        before, wanted = (" ".join(words) or "all subjects" for words in (told, [subject or ""]))
        raise NATSBridgeError(
            STREAM_FAILED,
            f"{there} for {before}, not for {wanted}: take another name for that",
        )
    for key, value, right in (
        ("ack_policy", config.ack_policy, AckPolicy.EXPLICIT),
        ("deliver_subject", config.deliver_subject, None),
    ):
        if value != right:
            raise NATSBridgeError(
                STREAM_FAILED, f"{there} with its {key} {value!r}: take another name"
            )
    return config


async def open_inbox(
    connection: Connection, stream: str, name: str, subject: str, ack_wait: int
) -> Inbox:
    """Return an inbox, and make its consumer if there is none; see `Connection.inbox`."""
    for word in (stream, name):
        if not is_subject(word) or _NO_NAME.search(word):
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{ascii(word)[:80]} is no name of a stream or consumer: it has no dots, wildcards,"
                " slashes, quotes or white space",
            )
    if subject:
        check_subject(subject, wildcards=True)
    check_count(ack_wait, "ack_wait", 1)
    _check_most(ack_wait, "ack_wait")
    js = connection.client.jetstream()
    config = ConsumerConfig(
        durable_name=name,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait,
        filter_subject=subject or None,
    )
    what = f"opening {name!r} of the stream {stream!r}"
    await connection._stand(what, ANSWER_S)
    try:
        if known := await _known(js, stream, name, subject):
            # Without a name, which would want another permission. What else it was told stays.
            config = known.evolve(name=None, ack_wait=ack_wait)
        if known is None or known.ack_wait != ack_wait:
            await js.add_consumer(stream, config)
        pull = await js.pull_subscribe_bind(name, stream)
    except nats.js.errors.APIError as e:
        raise refused(connection, e) from None
    except (nats.js.errors.Error, nats.errors.NoRespondersError):
        why = f"the server {connection.url} has no JetStream, or no stream {stream!r}"
        raise NATSBridgeError(STREAM_FAILED, why) from None
    except (nats.errors.Error, OSError, asyncio.TimeoutError) as e:
        raise connection._failed(what, e) from e
    return Inbox(connection, pull, stream, name, ack_wait)
