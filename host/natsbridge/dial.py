"""Getting a connection: what `connect` was asked for, checked, or somebody else's client."""

from __future__ import annotations

import base64
import math
import os
import ssl
import uuid
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client

from natsbridge.arguments import check_count, check_field, check_timeout
from natsbridge.broker import check_server
from natsbridge.client import Connection
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.http import check_delays
from natsbridge.tls import check_tls

__all__ = ["DEFAULT_URL", "connect", "peer"]

DEFAULT_URL = "nats://localhost:4222"
#: Seconds between PINGs that are never sent.
NEVER_S = 10 * 365 * 86400
#: Bytes of an Ed25519 signature.
SIGNATURE_SIZE = 64


async def connect(
    servers: str | list[str] | None = None,
    *,
    name: str = "",
    id: str = "",
    user: str = "",
    password: str = "",
    token: str = "",
    jwt: str = "",
    nkey: str = "",
    sign: Callable[[bytes], bytes] | None = None,
    tls: bool | dict[str, Any] | ssl.SSLContext | None = None,
    reconnect: bool = True,
    base_delay: float = 100,
    max_delay: float = 5000,
    ping_interval: float = 60,
    pending_size: int = 0,
    timeout: float | None = 5,
) -> Connection:
    """Connect to a broker.

    Args:
        servers: a URL (nats://host:port; tls:// demands TLS) or a list of them, tried in order.
            None: $NATS_URL or nats://localhost:4222.
        name: who this peer is; "" is nobody in particular.
        id: which of that name; "" becomes a UUID.
        user: credentials, with `password`.
        password: credentials, with `user`.
        token: credentials, alone.
        jwt: credentials, with `sign`: the user's JWT.
        nkey: credentials, with `sign`: the user's public key (U...).
        sign: is given the server's nonce, and returns its Ed25519 signature (64 bytes). So the
            seed can stay wherever it is.
        tls: True demands TLS, and so does a dict with any of ca, cert, key (a PEM file's path, or
            its bytes), verify, hostname and handshake_first (`natsbridge.tls`), or an
            `ssl.SSLContext`: a server without TLS is told nothing then. None: TLS where the
            server or a tls:// URL demands it.
        reconnect: whether a lost connection comes back by itself, however long that takes, and
            one to a server that is about to end moves to another one.
        base_delay: ms within which the first round of attempts at that is made. Doubled, and
            doubled after each further round, it is the time until the next one, of which at random
            a quarter at least is waited.
        max_delay: ms between two rounds at most.
        ping_interval: seconds between PINGs. Two without an answer, and the link is taken to be
            dead. 0: none are sent.
        pending_size: bytes that may wait while the connection is lost. 0: `publish` waits until
            it is back, for `timeout` at most.
        timeout: seconds for the whole.

    Raises:
        NATSBridgeError: `NATS_CONNECTION_FAILED`, `INVALID_ARGUMENT`.
    """
    if servers is None:
        servers = os.environ.get("NATS_URL") or DEFAULT_URL
    if isinstance(servers, str):
        servers = [servers]
    if not isinstance(servers, (list, tuple)) or not servers:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"servers must be a URL or a list of at least one, not {servers!r}"
        )
    urls = [check_server(s) for s in servers]
    for what, value in (("name", name), ("id", id), ("user", user), ("token", token)):
        check_field(value, what)
    check_field(password, "password")
    check_timeout(timeout)
    check_delays(base_delay, max_delay)
    check_count(pending_size, "pending_size")
    _check_interval(ping_interval)
    login = _login(jwt, nkey, sign)
    connection = Connection(
        None, name, id or str(uuid.uuid4()), tls=tls, pending_size=pending_size, timeout=timeout
    )
    await connection._open(
        urls,
        reconnect,
        (base_delay, max_delay),
        check_tls(tls),
        nkey=nkey,
        ping_interval=ping_interval or NEVER_S,
        user=user or None,
        password=(password or "") if user else None,
        token=token or None,
        **login,
    )
    return connection


def _check_interval(ping_interval: object) -> None:
    number = isinstance(ping_interval, (int, float)) and not isinstance(ping_interval, bool)
    if not number or not 0 <= float(ping_interval) < math.inf:  # type: ignore[arg-type]
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"ping_interval must be 0 or more seconds, not {ping_interval!r}"
        )


def _login(jwt: object, nkey: object, sign: Callable[[bytes], bytes] | None) -> dict[str, Any]:
    """Return nats-py's options for a signed login."""
    for what, value in (("jwt", jwt), ("nkey", nkey)):
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise NATSBridgeError(INVALID_ARGUMENT, f"{what} must be the text that NATS tools show")
    if sign is None and not jwt and not nkey:
        return {}
    if not callable(sign) or not (jwt or nkey):
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            "sign, a function that signs the server's nonce, goes with jwt or nkey, and they go"
            " with it",
        )

    def signature(nonce: str) -> bytes:
        try:
            signed = sign(nonce.encode())
        except Exception as e:
            raise nats.errors.Error(f"sign raised {e!r}") from e
        if not isinstance(signed, (bytes, bytearray, memoryview)) or len(signed) != SIGNATURE_SIZE:
            raise nats.errors.Error(f"sign must return {SIGNATURE_SIZE} bytes")
        return base64.b64encode(signed)

    login: dict[str, Any] = {"signature_cb": signature}
    if jwt:
        login["user_jwt_cb"] = str(jwt).encode
    return login


def peer(nats_connection: object) -> Connection:
    """Return a connection to use: ours as it is, a plain nats-py client wrapped.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` for anything else.
    """
    if isinstance(nats_connection, Connection):
        return nats_connection
    if isinstance(nats_connection, Client):
        name = nats_connection.options.get("name")
        return Connection(nats_connection, name if isinstance(name, str) else "", "")
    raise NATSBridgeError(
        INVALID_ARGUMENT,
        "nats_connection must be what natsbridge.connect() returned or a nats-py client, not a"
        f" {type(nats_connection).__module__}.{type(nats_connection).__qualname__}",
    )
