"""nats-py, made to keep what this project promises. Only `client` uses this module.

What nats-py 2.16 does otherwise, and how it is met here:

* It repeats the first connection for ever, and 60 times even without reconnecting. `open_broker`
  tries each server once: the error callback raises until the connection stands.
* To it a `tls://` URL is only a wish: a server (or somebody between) that does not announce TLS
  gets the credentials in the clear. `Broker` refuses.
* Messages of several subscriptions lose their order. `Arrival` numbers them as they are parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import ParseResult, urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg as NatsMsg

from natsbridge.errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, NATSBridgeError

__all__ = ["Arrival", "Broker", "check_server", "open_broker", "server_url"]

#: Seconds between attempts to reconnect.
RECONNECT_S = 1
#: Seconds that cleaning up after a failed attempt may take.
CLEANUP_S = 0.2
_SCHEMES = ("nats", "tls", "ws", "wss")

Event = Callable[[Exception], Awaitable[None]]


class Arrival(NatsMsg):
    """A message that knows its place among all messages of its connection."""

    def __init__(self, _client: Broker, **fields: Any) -> None:
        super().__init__(_client, **fields)
        self.number = next(_client.arrivals)


class Broker(Client):
    """A nats-py client. `arrivals` counts the messages that came."""

    msg_class = Arrival

    def __init__(self) -> None:
        super().__init__()
        self.arrivals = itertools.count()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        server = self._current_server
        if (
            initial_connection
            and server is not None
            and server.uri.scheme == "tls"
            and not info.get("tls_required")
        ):
            raise nats.errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)

    def abort(self) -> None:
        """Drop the socket at once, unsent bytes and all."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()


def check_server(server: object) -> str:
    """Return a server's URL, with a scheme.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`.
    """
    if not isinstance(server, str):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"a server must be a str, not {type(server).__name__}"
        )
    url = server if "://" in server else f"nats://{server}"
    try:
        parts = urlsplit(url)
        fine = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isprintable() or " " in url:
        shown = url.rpartition("@")[2] if "@" in url else url
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"{ascii(shown)[:200]} is no server URL: write it as nats://host:4222",
        )
    return url


def server_url(uri: ParseResult | str) -> str:
    """Return a server's URL without its credentials."""
    parts = urlsplit(uri) if isinstance(uri, str) else uri
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port or (4222 if parts.scheme in ("nats", "tls") else None)
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _reason(e: BaseException, timeout: float | None) -> str:
    """Return what went wrong at a server, and what to look at."""
    text = str(e) or type(e).__name__
    if isinstance(e, asyncio.TimeoutError):
        return f"no answer within {timeout:.3g} s; is it a NATS server, and is the network up?"
    if isinstance(e, nats.errors.SecureConnWantedError):
        return "it offers no TLS, which tls:// demands; nothing was sent to it"
    if isinstance(e, ssl.SSLError):
        return f"TLS failed ({text}); check its certificate and the host name"
    if isinstance(e, nats.errors.UnexpectedEOF):
        return "it closed the connection without a word"
    if isinstance(e, ConnectionRefusedError):
        return "the connection was refused; does nats-server run there, on this port?"
    if isinstance(e, socket.gaierror):
        return "its host name is unknown; check the spelling and the network"
    if "authorization" in text.lower() or "authentication" in text.lower():
        return "it refused the credentials; check user and password, or token"
    return text.removeprefix("nats: ")


async def open_broker(
    servers: list[str],
    timeout: float | None,
    reconnect: bool,
    on_error: Event,
    **options: Any,
) -> Broker:
    """Connect to the first of `servers` that takes us.

    Args:
        servers: checked URLs.
        timeout: seconds for all of them; each gets its share of what is left.
        reconnect: whether to reconnect, for ever, when the connection is lost later.
        on_error: awaited with what goes wrong once the connection stands.
        options: further arguments of nats-py's `connect`.

    Raises:
        NATSBridgeError: `NATS_CONNECTION_FAILED`, with what was wrong at each server.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    reasons = []
    for i, server in enumerate(servers):
        share = None
        if deadline is not None:
            share = max((deadline - loop.time()) / (len(servers) - i), 0.001)
        try:
            broker = await _try(server, share, on_error, options)
        except (OSError, nats.errors.Error, asyncio.TimeoutError) as e:
            reasons.append(f"{server_url(server)}: {_reason(e, share)}")
            continue
        if reconnect:
            broker.options["allow_reconnect"] = True
            if len(servers) > 1:
                known = [s.uri.geturl() for s in broker.server_pool]
                broker.set_server_pool(list(dict.fromkeys([*servers, *known])))
        return broker
    raise NATSBridgeError(
        NATS_CONNECTION_FAILED,
        "cannot connect to " + "; ".join(reasons),
        {"servers": [server_url(s) for s in servers]},
    )


async def _try(
    server: str, timeout: float | None, on_error: Event, options: dict[str, Any]
) -> Broker:
    standing = False

    async def error_cb(e: Exception) -> None:
        if not standing:
            raise e
        await on_error(e)

    broker = Broker()
    try:
        await asyncio.wait_for(
            broker.connect(
                servers=[server],
                error_cb=error_cb,
                allow_reconnect=False,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_S,
                connect_timeout=timeout,  # type: ignore[arg-type] # it may be a float, or None
                **options,
            ),
            timeout,
        )
        if not broker.is_connected:  # nats-py takes a server that hangs up here for a good one
            raise nats.errors.UnexpectedEOF
    except BaseException:
        standing = True  # what closing meets is of no interest
        broker.abort()
        with contextlib.suppress(Exception):
            # It ends nats-py's tasks; after a failed TLS handshake it waits for ever.
            await asyncio.wait_for(broker.close(), CLEANUP_S)
        raise
    standing = True
    return broker
