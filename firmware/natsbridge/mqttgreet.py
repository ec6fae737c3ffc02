"""What greet does where a server speaks MQTT, and the will. Dropped again afterwards."""

import time

from micropython import const

from .errors import INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, Malformed, check, drop, fail
from .payload import check_subject
from .stream import passed, until

_WILL = const(65535)  # bytes
_IDS = const(32767)  # as in mqtt.py
_LONGEST = const(65535)  # s
_HEADERS = const(25)  # bytes that nats-server adds to a message, of its max_payload

#: Why a server refuses, from code 1 on.
_CODES = (
    "it speaks another version of MQTT than 3.1.1",
    "it takes no client of this id: an id has no white space, '.', '*' and '>'",
    "the server is not available",
    "the user or password is wrong",
    "this user may not connect",
)


def connect(nc, qos, session, max_payload, will, key):
    """Keep connect's options. Raises INVALID_ARGUMENT, and for the will as smartsend does."""
    options = nc._options
    if options["mqtt"] < len(options["servers"]):
        raise fail(INVALID_ARGUMENT, "mqtt-servers")
    if key or options["pending_size"]:
        raise fail(INVALID_ARGUMENT, "mqtt", "jwt, nkey and pending_size")
    check("qos", qos)
    check("max_payload", max_payload, 512)
    if qos > 1:
        raise fail(INVALID_ARGUMENT, "mqtt", "QoS 2")
    options.update({"qos": qos, "session": session, "max_payload": max_payload, "will": b""})
    if will is not None:
        if not isinstance(will, (tuple, list)) or len(will) != 2:
            raise fail(INVALID_ARGUMENT, "will")
        options["will"] = message(nc, will[0], will[1])


def read(dialer, stream, who, name):
    """Shake hands, in steps, with TLS for a server of this `name`: the reader, and what an INFO
    would say."""
    nc = dialer.nc
    Packets, packet, string, _ = nc.source
    options = nc._options
    user = who.get("user", "").encode()
    password = who.get("pass", "").encode()
    if not password and who.get("auth_token"):  # the server wants a user's name all the same
        user = user or b"token"
        password = who["auth_token"].encode()
    flags = 0 if options["session"] else 2
    data = string(nc.id.encode())
    if options["will"]:
        flags |= 4 | options["qos"] << 3
        data += options["will"]
    if user or password:
        flags |= 128
        data += string(user)
    if password:
        flags |= 64
        data += string(password)
    # The server gives up after 1.5 times that, and we ask twice as often: so may we pause.
    alive = nc._limit * 2 // 1000 or 1
    if alive > _LONGEST:
        alive = 0
    data = b"\0\4MQTT\4" + bytes((flags, alive >> 8, alive & 255)) + data
    from .greet import readline, write

    if name:
        from .tls import Handshake

        Handshake(stream, nc.tls, name)
    yield from write(stream, packet(16, data))
    reader = Packets(stream, 512)
    reader.poll = b"\xc0\0"
    said = yield from readline(reader)
    if reader.op != 32 or len(said) != 2:
        raise Malformed("no MQTT server: it said %d %r" % (reader.op, said))
    if said[1]:
        dialer.denied = said[1] != 3
        raise OSError(_CODES[said[1] - 1] if said[1] < 6 else "it refused: %d" % said[1])
    if options["session"] and not nc._msg:
        from .subscription import Msg

        nc._msg = Msg  # what came before is given before there is a subscription
    nc._acked = nc._pid
    nc._asked = time.ticks_ms()
    # (It takes no headers, which send tells.)
    return reader, {"max_payload": options["max_payload"] - _HEADERS, "headers": True}


def subscribe(nc, subject, queue):
    """See MQTT.subscribe."""
    check_subject(subject, True)
    if queue != "" or subject in [sub.subject for sub in nc._subs.values()]:
        raise fail(INVALID_ARGUMENT, "mqtt-sub", subject)
    nc.source[3](subject)  # raises where there is none
    stream = nc._ready(until(nc._options["timeout"]))
    from .subscription import Msg, Subscription

    nc._sid += 1
    nc._msg = Msg
    sub = Subscription(nc, nc._sid, subject, queue)
    try:
        stream.write(line(nc, sub))
    except OSError as e:
        nc._fail(e, "subscribe")
    nc._subs[nc._sid] = sub
    drop("mqttgreet")
    return sub


def line(nc, sub, op=0x82):
    """What asks for a subscription; with `op` 0xA2, what ends it."""
    _, packet, string, to_topic = nc.source
    pid = sub._sid & _IDS | _IDS + 1
    more = bytes((nc._options["qos"],)) if op == 0x82 else b""
    return packet(op, pid.to_bytes(2, "big") + string(to_topic(sub.subject)) + more)


def again(nc, error, head, payload):
    """Publish again what `error` kept from being acknowledged. Raises NATS_CONNECTION_FAILED."""
    pid = nc._pid
    dirty = nc._dirty
    end = until(nc._options["timeout"])
    while not (passed(end) or passed(nc.deadline)):
        nc._busy = False
        nc._pid = (pid - 2) % _IDS + 1
        nc._dirty = dirty  # what is sent again is not lost
        nc._drop(error)
        stream = nc._ready(end)
        nc._pid = pid
        try:
            return nc.put(stream, head, payload)
        except (OSError, ValueError) as e:
            error = e
    nc._busy = False  # what was begun is gone
    nc._fail(error, "publish")


def refuse(nc, sid):
    """Have next() tell that a subscription was refused."""
    for sub in nc._subs.values():
        if sub._sid & _IDS == sid and not sub._error:
            sub._error = "the subscription to " + sub.subject
            nc._trouble.append(sub)


def message(nc, subject, data):
    """A will: its topic and its message, as CONNECT has them."""
    from .send import smartsend

    env, msg_json = smartsend(
        subject,
        data,
        msg_purpose="event",
        sender_name=nc.name,
        sender_id=nc.id,
        nats_connection=False,
    )
    for p in env["payloads"]:
        if p["size"] is None:
            raise fail(INVALID_ARGUMENT, "unsized")
    _, _, string, to_topic = nc.source
    try:
        size = len(msg_json)
        if size > _WILL:
            raise fail(PAYLOAD_TOO_LARGE, "publish", size, "a will", _WILL, size=size)
        return string(to_topic(subject)) + string(str(msg_json).encode())
    except MemoryError:
        raise fail(PAYLOAD_TOO_LARGE, "memory")
