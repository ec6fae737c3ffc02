"""The firmware's parsers between the bytes that a peer sends and what the firmware's user gets, on
MicroPython and on CPython. No socket: a peer is bytes that come in pieces."""

import sys

if sys.implementation.name == "micropython":
    import natsbridge as parts
    from natsbridge import client, errors, stream, subscription
else:
    import on_cpython as parts
    from on_cpython import client, errors, stream, subscription

SERVERS = 8  # of an INFO that are used
# The last ones are there to be refused.
SUBJECTS = ("a.b", "*.b", "a.>", "no.1", "no.2", "no.3", "no.4", "no.5", "no.6", "no.7")
FILES = "http://files:8080"
URL = FILES + "/file/a/b/c"
ENVELOPE = b'{"payloads":[{"dataname":"a","payload_type":"binary","transport":"link","size":%d,'
ENVELOPE += b'"data":"http://files:8080/file/a/b/c"}]}'
AFTER = b"\r\nMSG after 2 5\r\nafter\r\n"


class Peer:
    """What a connection reads: `data` in pieces of these sizes (0: nothing is there yet), the rest
    in one, then the end."""

    def __init__(self, data, sizes=()):
        self.data = memoryview(data)
        self.at = 0
        self.sizes = iter(sizes)
        self.left = 0

    def readinto(self, buf, n):
        rest = len(self.data) - self.at
        if not rest:
            return 0
        if not self.left:
            self.left = next(self.sizes, rest)
            if not self.left:
                return None
        n = min(n, self.left, rest)
        buf[:n] = self.data[self.at : self.at + n]
        self.at += n
        self.left -= n
        return n

    def write(self, buf, start=0, n=None):
        return len(buf) - start if n is None else n

    def setsockopt(self, *option):
        pass


class Wire:
    """The stream of a connection to such a peer; notes as an event what is answered to a PING."""

    deadline = None
    rest = ()
    out = 1

    def __init__(self, data, sizes=(), events=None):
        self.socket = self.raw = Peer(data, sizes)
        self.write = self.socket.write
        self.reader = stream.Reader(self, 512)
        self.events = events

    def readinto(self, buf, n, wait=True):
        while True:
            got = self.socket.readinto(buf, n)
            if got is not None or not wait:
                return got

    def post(self, line=b""):
        if line:
            self.events.append(("PING", line))

    def wait(self, deadline):
        return 0

    def close(self):
        pass


class Connection(client.Connection):
    """One that has shaken hands, and notes each PONG as an event."""

    pongs = 0

    @property
    def _pings(self):
        return self.pongs

    @_pings.setter
    def _pings(self, count):
        if count < self.pongs:
            self._stream.events.append(("PONG",))
        self.pongs = count


def connection(data, sizes, subjects):
    """A connection to a broker that sends `data`, with subscriptions, whose ids count from 1."""
    nc = Connection("name", "id")
    nc._msg = subscription.Msg
    server = "127.0.0.1", 4222, {}, False, "127.0.0.1"
    nc._options = {"servers": [server], "server": server, "found": [], "reconnect": False}
    nc._options["timeout"] = 5
    nc.url = "nats://127.0.0.1:4222"
    nc.connected = True
    nc._limit = 1 << 28
    nc.max_payload = 1 << 20
    nc._stream = Wire(data, sizes, [])
    for subject in subjects:
        nc._sid += 1
        nc._subs[nc._sid] = subscription.Subscription(nc, nc._sid, subject, "")
    nc._pings = 1000
    return nc


def listen():
    """From now on, note what a broker tells unasked as events too."""
    news = parts.news
    really = news.read

    def hear(nc, line):
        if line[:4].upper() == b"-ERR":
            nc._stream.events.append(("-ERR", str(line[5:], "utf-8").strip("' ").lower()))
        else:
            nc._stream.events.append(("INFO", told(news.parse(line))))
        really(nc, line)

    news.read = hear
    client.drop = lambda *names: None  # news stays as it is now


def told(info):
    """What is used of an INFO."""
    urls = info.get("connect_urls")
    if isinstance(urls, list):
        info["connect_urls"] = urls[:SERVERS]
    return info


def headers(msg):
    """Those of a message, with its status, in an order."""
    found = None if msg.headers is None else sorted(msg.headers.items())
    return found, msg.status, msg.description


def nats(data, sizes=()):
    """The events in what a broker sends, ended by why it is over. Raises what is not documented."""
    nc = connection(data, sizes, SUBJECTS)
    events = nc._stream.events
    while nc._stream:
        try:
            msg = nc.next(0)
            if msg:
                sid = msg.sub._sid
                data = bytes(msg.data)
                events.append(("MSG", sid, msg.subject, msg.reply, headers(msg), data))
        except errors.NATSBridgeError as e:  # a refused subscription's leaves the connection
            if e.code not in ("NATS_CONNECTION_FAILED", "PAYLOAD_TOO_LARGE"):
                raise
    events.append(("end", nc._why))
    return events


def found(env):
    """What a message holds, as text."""
    payloads = [
        (name, bytes(data) if isinstance(data, bytearray) else data, kind)
        for name, data, kind in env["payloads"]
    ]
    rest = sorted((key, env[key]) for key in env if key != "payloads")
    return repr((payloads, rest))


CODES = (
    "INVALID_ENVELOPE",
    "INVALID_PAYLOAD_TYPE",
    "INVALID_TRANSPORT",
    "PAYLOAD_TOO_LARGE",
    "INTEGRITY_ERROR",
    "DESERIALIZATION_ERROR",
    "URL_NOT_ALLOWED",
    "DOWNLOAD_FAILED",
)


def envelope(data, sizes=(), answers=(), limit=None):
    """What smartreceive makes of a message with that payload, as text, or the error's code; with a
    file server that answers so. The next message must come through."""
    serve(answers)
    line = b"MSG a.b 1 %d\r\n" % len(data)
    nc = connection(line + data + AFTER, sizes, ("a.b", "after"))
    msg = nc.next(0)
    while not msg:
        msg = nc.next(0)
    options = {"max_retries": 1, "base_delay": 0, "max_payload_size": limit}
    try:
        result = found(parts.smartreceive(msg, fileserver_url=FILES, **options))
    except errors.NATSBridgeError as e:
        result = e.code
        if result not in CODES:
            raise
    msg = nc.next(0)
    while not msg:
        msg = nc.next(0)
    if msg.data != b"after":
        raise ValueError("what follows is read wrong")
    return result


def serve(answers, sizes=()):
    """Have the file server give each connection the next of these bytes, and the last one to all
    that follow."""
    left = list(answers)

    def connect(*server):
        if not left:
            raise OSError(111)
        return Wire(left.pop(0) if len(left) > 1 else left[0], sizes, [])

    stream.Stream = connect


def download(answers, sizes=(), size=None):
    """What is fetched from a file server that answers so: bytes, or the error's code. size: what
    the message says; None: there is no message."""
    serve(answers, sizes)
    try:
        if size is None:
            return parts.fetch_with_backoff(URL, 1, 0, 0)
        return received(size)
    except errors.NATSBridgeError as e:
        if e.code not in CODES:
            raise
        return e.code


def received(size):
    """The file of a message which says that it has `size` bytes, through smartreceive."""
    data = ENVELOPE % size
    nc = connection(b"MSG a.b 1 %d\r\n%s\r\n" % (len(data), data), (), ("a.b",))
    options = {"max_retries": 1, "base_delay": 0}
    env = parts.smartreceive(nc.next(0), fileserver_url=FILES, **options)
    return bytes(env["payloads"][0][1])


def upload(answers, sizes=()):
    """The URL of what is uploaded to a file server that answers so, or the error's code."""
    serve(answers, sizes)
    parts.upload.Upload.pauses = (0, 0)  # between attempts
    try:
        return parts.plik_upload(FILES, "a", b"abc")["url"]
    except errors.NATSBridgeError as e:
        if e.code != "UPLOAD_FAILED":
            raise
        return e.code
