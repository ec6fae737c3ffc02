"""Getting connected: addresses, INFO, CONNECT, and the first PONG. Dropped again afterwards."""

import json
import time

from micropython import const

from .errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, fail
from .protocol import MAX_LINE, parse_info
from .stream import Reader, Stream, until

_BACKOFF_MIN = const(100)  # ms before the second round of attempts
_BACKOFF_MAX = const(2000)


def connect(
    servers=None, *, name="", id="", user="", password="", token="", reconnect=True, timeout=5
):
    """Connect to a NATS server.

    servers: URL or list of URLs, tried in order; default $NATS_URL or nats://localhost:4222.
    name, id: who this peer is; the id defaults to a new UUID.
    reconnect: connect again, within `timeout`, when a call finds the connection lost.
    timeout: s for all of connecting (the port's name look-up is not bounded by it).

    Raises NATS_CONNECTION_FAILED, INVALID_ARGUMENT.
    """
    if servers is None:
        from . import setting

        servers = setting("NATS_URL", "nats://localhost:4222")
    if isinstance(servers, str):
        servers = [servers]
    if not servers:
        raise fail(INVALID_ARGUMENT, "servers")
    if not id:
        from .log import uuid4

        id = uuid4()
    from .client import Connection

    nc = Connection([parse_server(s, user, password, token) for s in servers], name, id, timeout)
    nc._dial(False)
    nc._reconnect = reconnect
    return nc


def parse_server(url, user, password, token):
    """(host, port, user, password, token) of ``[nats://][user:password@|token@]host[:port]``."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        rest = url
    elif scheme != "nats":
        raise fail(INVALID_ARGUMENT, "scheme", scheme)
    who, mark, host = rest.rpartition("@")
    if ":" in who:
        user, _, password = who.partition(":")
    elif mark:
        token = who
    host = host.rstrip("/")
    if ":" in host and not host.endswith("]"):
        host, _, port = host.rpartition(":")
    else:
        port = "4222"
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise fail(INVALID_ARGUMENT, "server", url.rpartition("@")[2])
    return host, int(port), user, password, token


def dial(nc, servers, timeout, again):
    """Connect `nc` to the first of `servers` that takes it; with `again`, keep trying for
    `timeout` s.

    Raises NATS_CONNECTION_FAILED with each server's reason.
    """
    deadline = until(timeout)
    delay = _BACKOFF_MIN
    while True:
        why = ""
        for server in servers:
            try:
                return _greet(nc, server, deadline)
            except (OSError, EOFError, ValueError) as e:
                why += "; %s:%d %s" % (server[0], server[1], nc._error or str(e) or "hung up")
                nc._drop()
        late = deadline is not None and time.ticks_diff(deadline, time.ticks_ms()) <= delay
        if late or not again:
            raise fail(NATS_CONNECTION_FAILED, "connect", why[1:])
        time.sleep_ms(delay)
        delay = min(delay * 2, _BACKOFF_MAX)


def _greet(nc, server, deadline):
    host, port, user, password, token = server
    nc._error = ""
    nc._stream = stream = Stream(host, port, deadline)
    nc._reader = reader = Reader(stream, 512)
    info = parse_info(reader.readline(MAX_LINE))
    if info.get("tls_required"):
        raise ValueError("demands TLS, which this version does not have")
    nc.max_payload = info.get("max_payload", 1048576)
    # verbose and pedantic must be stated: left out, the server takes them as true.
    options = {
        "verbose": False,
        "pedantic": False,
        "lang": "micropython",
        "version": "0.1.0",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        "name": nc.name,
        "user": user,
        "pass": password,
        "auth_token": token,
    }
    for key in ("name", "user", "pass", "auth_token"):
        if not options[key]:
            del options[key]
    stream.write(("CONNECT %s\r\nPING\r\n" % json.dumps(options)).encode())
    nc._pings = 1
    while nc._pings:
        nc._control(reader.readline(MAX_LINE))
    for sid in nc._subs:
        sub = nc._subs[sid]
        stream.write(("SUB %s %s %d\r\n" % (sub.subject, sub.queue, sid)).encode())
    nc.url = "nats://%s:%d" % ("[" + host + "]" if ":" in host else host, port)
    stream.deadline = None
