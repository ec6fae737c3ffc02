"""connect: its arguments, and servers' URLs. Dropped again afterwards."""

from micropython import const

from .errors import INVALID_ARGUMENT, check, fail
from .payload import MAX_FIELD
from .stream import until

_EVER = const(1 << 28)  # ms, 3 days: longer than some ports' ticks_ms can tell


def connect(
    servers=None,
    *,
    name="",
    id="",
    user="",
    password="",
    token="",
    jwt="",
    nkey="",
    sign=None,
    tls=None,
    reconnect=True,
    base_delay=100,
    max_delay=5000,
    ping_interval=60,
    pending_size=0,
    qos=1,
    will=None,
    session=False,
    max_payload=1048576,
    on_idle=None,
    timeout=5,
):
    """Connect to a NATS server.

    servers: URL or list of URLs (nats:// or tls://), tried in order; default $NATS_URL or
        nats://localhost:4222. Servers that they name in their INFO are tried too. Or of its MQTT
        listener: mqtt:// or mqtts://, with what that has: user and password or token, but no jwt,
        nkey, pending_size, queue groups, headers, requests.
    name, id: who this peer is; the id defaults to a new UUID.
    jwt, nkey: credentials, with sign(nonce) -> the 64 bytes of the signature of these bytes.
    tls: None (for tls:// URLs and servers that require it), True, or a dict with any of ca, cert,
        key (each a path, or bytes of PEM or DER), verify (True), hostname (that of the URL) and
        handshake_first (False). A board has no store of CAs: without ca, only verify=False goes.
    reconnect: connect again when a call finds the connection lost, within that call's timeout.
    base_delay, max_delay: ms between rounds of attempts, doubled each time; of them, at random, a
        quarter at least is waited, and before the first round perhaps nothing.
    ping_interval: s without a word from the server after which it is asked for one; the second
        time without an answer ends the connection. 0: never.
    pending_size: bytes of messages that publish() queues while disconnected; 0: it connects again,
        or raises.
    Of MQTT alone: qos, 0 or 1, of what is published and subscribed to; will, (subject, payloads),
        which the server publishes as an event when the connection is lost, and three times
        ping_interval after the last word at the latest; session, whether it keeps what other MQTT
        clients send at QoS 1 while we are away (with an id); max_payload, the server's own.
    on_idle: called at least every 100 ms while anything is waited for; for taking notes and
        feeding a watchdog: it must not use the connection.
    timeout: s for connecting, and for connecting again in calls without a timeout of their own.
        The port's name look-up is not bounded by it, nor a step of the TLS handshake.

    Raises NATS_CONNECTION_FAILED, INVALID_ARGUMENT.
    """
    if servers is None:
        from . import setting

        servers = setting("NATS_URL", "nats://localhost:4222")
    if isinstance(servers, str):
        servers = [servers]
    if not isinstance(servers, (list, tuple)) or not servers:
        raise fail(INVALID_ARGUMENT, "servers")
    if not (isinstance(jwt, str) and isinstance(nkey, str)) or callable(sign) != bool(jwt or nkey):
        raise fail(INVALID_ARGUMENT, "sign")
    check("base_delay", base_delay, 0, float)
    check("max_delay", max_delay, 0, float)
    check("ping_interval", ping_interval, 0, float)
    check("pending_size", pending_size)
    if tls == {}:
        tls = True  # TLS, with no options: never plain TCP
    who = {"name": name, "user": user, "pass": password, "auth_token": token}
    for value in [id] + list(who.values()):
        if not isinstance(value, str) or len(value.encode()) > MAX_FIELD:
            raise fail(INVALID_ARGUMENT, "field", "a name, id or login", MAX_FIELD)
    who.update({"lang": "micropython", "jwt": jwt, "nkey": nkey})
    found = []
    secure = tls
    mqtt = 0
    for url in servers:
        server = parse_server(url, who, bool(tls))
        found.append(server)
        secure = secure or server[3]
        mqtt += url[:4] == "mqtt" and "://" in url
    if secure:
        from .tls import context

        context(tls)  # raises if it is not enough
    if not id:
        if session:
            raise fail(INVALID_ARGUMENT, "session")
        from .log import uuid4

        id = uuid4()
    if not mqtt:
        if will is not None:
            raise fail(INVALID_ARGUMENT, "will")
        from .client import Connection
    else:
        from .mqtt import Connection

    delay = int(min(base_delay, _EVER))
    nc = Connection(name, id)
    nc._options = {
        "servers": found,
        "found": [],  # servers that INFO named
        "server": None,  # the last one
        "sign": sign,
        "reconnect": reconnect,
        "base_delay": delay,
        "max_delay": int(min(max_delay, _EVER)),
        "pending_size": pending_size,
        "timeout": timeout,
        "delay": delay,
        "hold": None,  # ticks_ms until which no server is asked
        "queue": [],  # what was published while disconnected
        "memory": False,  # there was no heap left for what connects: see smartsend
        "why": "",  # what the servers said in the last round
        "mqtt": mqtt,  # how many of the servers speak that
    }
    nc.tls = tls
    nc._limit = int(min(ping_interval * 1000, _EVER)) or _EVER
    if on_idle:
        nc.idle = locked(nc, on_idle)
    try:
        if mqtt:
            from . import mqttgreet

            mqttgreet.connect(nc, qos, session, max_payload, will, jwt or nkey)
        nc._ready(until(timeout))
    except BaseException:
        nc.close()
        raise
    return nc


def locked(nc, on_idle):
    """on_idle, kept from using the connection that calls it."""

    def idle():
        busy = nc._busy
        nc._busy = True
        nc._checked = ""
        try:
            on_idle()
        finally:
            nc._busy = busy

    return idle


def parse_server(url, auth, tls):
    """(host, port, auth, tls, host) of ``[scheme://][user:password@|token@]host[:port]``;
    `auth` is what CONNECT says of us, as far as the URL does not."""
    if not isinstance(url, str):
        raise fail(INVALID_ARGUMENT, "servers")
    scheme, mark, rest = url.partition("://")
    port = 4222
    if not mark:
        rest = url
    elif scheme == "mqtt":
        port = 1883
    elif scheme == "mqtts":
        port = 8883
        tls = True
    elif scheme == "tls":
        tls = True
    elif scheme != "nats":
        raise fail(INVALID_ARGUMENT, "scheme", scheme)
    login, mark, host = rest.rpartition("@")
    auth = {key: auth[key] for key in auth if auth[key]}
    if ":" in login:
        auth["user"], _, auth["pass"] = login.partition(":")
    elif mark:
        auth["auth_token"] = login
    host = host.rstrip("/")
    if ":" in host and not host.endswith("]"):
        host, _, port = host.rpartition(":")
    host = host.strip("[]")
    if not host or not str(port).isdigit():
        raise fail(INVALID_ARGUMENT, "server", url.rpartition("@")[2])
    return host, int(port), auth, tls, host
