"""What a server tells unasked: INFO and -ERR. Dropped again afterwards."""

import json

from micropython import const

from .errors import Malformed, NATSBridgeError

_FOUND = const(8)  # servers that INFO may add
_URL = const(128)  # characters of one
_TEXT = const(512)  # characters of what was refused
_PIECES = const(128)  # of the reader's buffer that an INFO may have: 64 KB


def parse(line):
    """The dict in an ``INFO {...}`` line."""
    try:
        info = json.loads(line[5:]) if line[:5].upper() == b"INFO " else None
    except ValueError:
        info = None
    if not isinstance(info, dict) or not isinstance(info.get("max_payload", 0), int):
        raise Malformed("no NATS server: it said %r" % line[:32])
    return info


def trunc(line, n):
    """The beginning of a line, in `n` pieces so far, without the servers that nobody will use
    if it is an INFO. Raises ValueError when it is endless."""
    if n > _PIECES:
        raise ValueError("endless")
    at = line.rfind(b'["')
    if line[0] | 32 == 105 and at > 0 and line.find(b'"]', at) < 0:
        for _ in range(_FOUND):
            at = line.find(b'",', at) + 2
        n = line.rfind(b'",') + 2
        if 2 < at < n:
            return line[:at] + line[n:]
    return line


def update(nc, info):
    """Do what the server's INFO says: max_payload, headers, other servers, lame duck."""
    options = nc._options
    nc.max_payload = info.get("max_payload", nc.max_payload or 1048576)
    nc._checked = ""
    options["headers"] = info.get("headers")
    urls = info.get("connect_urls")
    if isinstance(urls, list):
        from .dial import parse_server

        me = options["server"]
        found = []
        for url in urls[:_FOUND]:
            if not isinstance(url, str) or len(url) > _URL or "@" in url:
                continue
            try:
                host, port = parse_server(url, {}, False)[:2]
            except NATSBridgeError:
                continue
            # They get the credentials of the server that named them, and no less TLS. An address
            # has a certificate for its cluster's name.
            secure = nc.url[:3] == "tls"
            bare = ":" in host or host.replace(".", "").isdigit()
            server = host, port, me[2], secure, me[4] if bare else host
            if (host, port) not in [s[:2] for s in options["servers"]]:
                found.append(server)
        options["found"] = found
    others = len(options["servers"]) + len(options["found"]) > 1
    if info.get("ldm") and others and options["reconnect"] and not nc._dialer and nc._stream:
        from .greet import Dialer

        nc._checked = ""
        nc._dialer = Dialer(nc)


def read(nc, line):
    """Do what an INFO or -ERR line says. Raises OSError if it ends the connection."""
    if line[:4].upper() != b"-ERR":
        return update(nc, parse(line))
    why = str(line[5:], "utf-8").strip("' ")[:_TEXT]
    low = why.lower()
    subs = nc._subs
    if low.startswith("permissions violation for subscription"):
        words = why.split('"', 4)  # to "subject" using queue "queue"
        for sid in subs:
            sub = subs[sid]
            if words[1:2] == [sub.subject] and sub.queue in words[3:4] + [""]:
                cancel(nc, sub, why)
    elif low.startswith("maximum subscriptions"):
        # It says not which: they are refused in the order in which they were made.
        for sid in sorted(subs, reverse=True):
            if not subs[sid]._error:
                return cancel(nc, subs[sid], why)
    elif low.startswith("permissions violation") or low in (
        "invalid subject",
        "invalid publish subject",
    ):
        if len(nc._error) < _TEXT:
            nc._error += "; " + why if nc._error else why
    else:
        raise OSError(why)


def cancel(nc, sub, why):
    if not sub._error:
        sub._error = why
        nc._trouble.append(sub)
