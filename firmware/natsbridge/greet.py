"""Getting connected, and connected again: TCP, INFO, TLS, CONNECT, the first PONG, and the
subscriptions. (MQTT's part is mqttgreet.) Dropped again afterwards.

All of it is one generator, which yields wherever it would wait: calls that may wait drive it to its
end under their deadline, those that may not take a step. What is no step is what the port does in
one go: a name look-up, and each flight of a TLS handshake.
"""

import json
import os
import select
import time
from binascii import b2a_base64

from micropython import const

from . import __version__, errors
from .errors import NATS_CONNECTION_FAILED, NATSBridgeError, drop, fail
from .news import parse, update
from .stream import Reader, Stream, passed, until
from .tcp import open_connection

_MAX_LINE = const(4096)  # bytes; see client
_LEAST = const(1)  # s that each server gets, however many there are
_MOST = const(10)  # s, where connect was given no timeout
_NAP = const(20)  # ms


def connect(nc, deadline, wait):
    """Take steps towards a connection: with `wait` until it is there, or until `deadline` or the
    connection's own has passed; without it, one. Where there is one, and it moves: one."""
    while True:
        dialer = nc._dialer
        if dialer is None:
            if nc._closed or (nc.url and not nc._options["reconnect"]):
                if nc._closed:
                    raise fail(NATS_CONNECTION_FAILED, "close")
                raise fail(NATS_CONNECTION_FAILED, "lost", nc._why)
            dialer = nc._dialer = Dialer(nc)
        if wait and not nc._stream and (passed(deadline) or passed(nc.deadline)):
            why = nc._options["why"]
            if dialer.stream:
                why += "; %s:%d no answer in time" % dialer.server[:2]
            raise fail(NATS_CONNECTION_FAILED, "connect", why[1:])
        flag = 0
        try:
            flag = next(dialer.generator)
        except BaseException as e:  # StopIteration: it is done
            nc._dialer = None
            for name in ("greet", "mqttgreet", "news", "tcp", "dial"):
                drop(name)
            if not isinstance(e, StopIteration):
                dialer.close()
                raise
        if nc._stream or not wait:
            return
        end = time.ticks_add(time.ticks_ms(), _NAP)
        if flag and dialer.stream:
            dialer.stream.wait(end, flag)
        else:
            time.sleep_ms(_NAP)
            if nc.idle:
                nc.idle()


class Dialer:
    """Connects `nc`: for the first time, again, or, while it is connected, to another server.

    generator: takes a step each time. stream, server: what it waits for. connect: the function, so
    that nobody loads this module again, as long as a dialer holds it.
    """

    def __init__(self, nc):
        self.nc = nc
        self.stream = None
        self.connect = connect
        self.generator = self._run()

    def close(self):
        if self.stream:
            self.stream.close()
            self.stream = None

    def _run(self):
        nc = self.nc
        options = nc._options
        moving = nc._stream
        first = not nc.url
        now = time.ticks_ms()
        delay = options["delay"]
        if not moving and not first:
            # Who was connected for a moment only comes back later each time.
            short = 0 <= time.ticks_diff(now, options["since"]) < options["base_delay"]
            delay = min(delay * 2, options["max_delay"]) if short else options["base_delay"]
            options["delay"] = delay
            # The first attempt too is not made by all devices at once.
            if options["hold"] is None:
                options["hold"] = time.ticks_add(now, delay * os.urandom(1)[0] // 256)
        while True:
            while not (first or moving or passed(options["hold"])):
                yield 0
            servers = options["servers"] + options["found"]
            at = servers.index(options["server"]) + 1 if options["server"] in servers else 0
            servers = servers[at:] + servers[:at]
            why = ""
            denied = 0
            for server in servers:
                if moving and server == options["server"]:
                    continue
                self.server = server
                self.denied = False
                end = options["timeout"]
                end = until(_MOST if end is None else max(_LEAST, end / len(servers)))
                try:
                    for flag in self.greet(server):
                        if flag >= 0 and passed(end):
                            raise OSError("no answer in time")
                        yield max(0, flag)
                    options["hold"] = None
                    options["why"] = ""
                    return
                except (OSError, EOFError, ValueError, MemoryError, NATSBridgeError) as e:
                    reason = getattr(e, "message", "") or str(e) or "hung up"
                    why += "; %s:%d %s" % (server[0], server[1], reason)
                    denied += self.denied
                    self.close()
                    if errors.working and not nc._stream and isinstance(e, MemoryError):
                        raise  # there is room as soon as nothing is sent: see smartsend
            if moving and nc._stream:
                return  # there is no other
            moving = None
            options["why"] = why
            denied = denied == len(servers)
            delay = options["max_delay"] if denied else min(delay * 2, options["max_delay"])
            # From a quarter of it to all: whoever is alone is back soon, many are never in step.
            options["hold"] = time.ticks_add(
                time.ticks_ms(), delay * (85 + os.urandom(1)[0]) // 340
            )
            if first or denied:
                raise fail(NATS_CONNECTION_FAILED, "connect", why[1:])
            yield 0  # the deadline is looked at, however short the delay

    def greet(self, server):
        nc = self.nc
        options = nc._options
        host, port, who, secure, name = server
        self.stream = stream = Stream(None, 0, None, nc.idle)
        yield from open_connection(stream, host, port)
        if options["mqtt"]:
            from .mqttgreet import line as ask
            from .mqttgreet import read

            scheme = "mqtt" + ("s" if secure else "")
            reader, info = yield from read(self, stream, who, secure and name)
        else:
            reader = Reader(stream, 512)
            early = secure and isinstance(nc.tls, dict) and nc.tls.get("handshake_first")
            info = None if early else parse((yield from readline(reader)))
            if early or secure or info.get("tls_required"):
                # Whoever took that out of INFO gets no credentials, nor can slip in what is next.
                if not (early or info.get("tls_required") or info.get("tls_available")):
                    raise ValueError("offers no TLS, which was asked for")
                if reader.pos != reader.end:
                    raise ValueError("goes on before TLS")
                from .tls import Handshake

                Handshake(stream, nc.tls, name)
                secure = True
                if early:
                    info = parse((yield from readline(reader)))
                else:
                    info.pop("connect_urls", None)  # it comes again, behind TLS
            if options["sign"] and info.get("nonce"):
                sig = options["sign"](info["nonce"].encode())
                if not isinstance(sig, (bytes, bytearray)):
                    raise ValueError("sign gave no signature")
                sig = str(b2a_base64(sig), "utf-8")
                who = dict(who)
                who["sig"] = sig.rstrip("=\n").replace("+", "-").replace("/", "_")
            # verbose and pedantic must be stated: left out, the server takes them as true.
            hello = (
                'CONNECT {"verbose":false,"pedantic":false,"version":"%s",'
                '"protocol":1,"headers":true,"no_responders":true,"tls_required":%s,%s\r\nPING\r\n'
            ) % (__version__, "true" if secure else "false", json.dumps(who)[1:])
            yield from write(stream, hello.encode())
            while True:
                line = yield from readline(reader)
                op = line[:4].upper()
                if op == b"PONG":
                    line = reader.line(_MAX_LINE)
                    if line and line[:4].upper() == b"INFO":
                        info = parse(line)  # it comes with the PONG
                    elif line is not None:
                        raise ValueError("unknown operation %r" % line[:32])
                    break
                if op == b"-ERR":
                    why = str(line[5:], "utf-8").strip("' ")
                    low = why.lower()
                    self.denied = "uthoriz" in low or ("uthentic" in low and "timeout" not in low)
                    raise OSError(why)
                if op == b"INFO":
                    info = parse(line)
                elif op == b"PING":
                    stream.post(b"PONG\r\n")
                elif op[:3] != b"+OK":
                    raise ValueError("unknown operation %r" % line[:32])
            scheme = "tls" if secure else "nats"
        while nc._stream:
            # The old connection ends when what it was sent is there and what it sent is taken.
            lines = "".join(["UNSUB %d\r\n" % sid for sid in nc._subs])
            nc._dirty = False
            nc._stream.post((lines + "PING\r\n").encode())
            nc._pings += 1
            while nc._stream and (
                nc._pings or nc._head or nc._unread or nc._busy or nc._stream.rest
            ):
                yield -1
            if nc._stream and not nc._dirty:
                nc._drop("moved")
        for one in nc._draining:
            nc._subs.pop(one[1], None)  # what the old server still had is gone
            one[0] = 0
        nc._pings = 0
        nc._posted = False
        lines = b""
        for sid in nc._subs:
            sub = nc._subs[sid]
            if not sub._error:
                if options["mqtt"]:
                    lines += ask(nc, sub)
                    continue
                lines += b"SUB %s %s %d\r\n" % (sub.subject, sub.queue, sid)
                if sub._limit:
                    lines += b"UNSUB %d %d\r\n" % (sid, sub._limit - sub._got)
        yield from write(stream, lines)
        nc.url = "%s://%s:%d" % (scheme, "[" + host + "]" if ":" in host else host, port)
        options["server"] = server
        update(nc, info)  # first: there may be no heap for it
        stream.reader = reader
        stream.deadline = nc.deadline
        nc._stream = stream
        nc._seen = nc._quiet = options["since"] = time.ticks_ms()
        nc.connected = True


def readline(reader):
    while True:
        line = reader.line(_MAX_LINE)
        if line is not None:
            return line
        got = reader.fill(False)
        if got == 0:
            raise EOFError
        if got is None:
            yield select.POLLIN


def write(stream, data):
    if data:
        stream.post(data)
    while stream.rest:
        yield stream.out
        stream.post()
