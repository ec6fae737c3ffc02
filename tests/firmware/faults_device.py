"""The device of test_faults.py: does what its first argument names, and prints what happened."""

import os
import sys
import time

import natsbridge

what, broker, files, folder = sys.argv[1:5]


def descriptors():
    return len(list(os.ilistdir("/proc/self/fd")))


def code(function, *arguments, **options):
    """The code of the error that a call raises, or what it returns."""
    try:
        return function(*arguments, **options)
    except natsbridge.NATSBridgeError as e:
        return e.code


class Short:
    """A stream that promises 100,000 bytes and ends, or fails, after half of them."""

    def __init__(self, fails):
        self.fails = fails
        self.at = 0

    def seek(self, offset, whence=0):
        self.at = 100000 if whence == 2 else offset if whence == 0 else self.at
        return self.at

    def readinto(self, buf):
        if self.at >= 50000:
            if self.fails:
                raise OSError(5)
            return 0
        self.at += len(buf)
        return len(buf)


def bad_input(nc, sub):
    """Refused before and after, over and over: no descriptor stays open."""

    def send(source, threshold):
        nc.flush()
        data = [("a", b"abc", "binary"), ("s", source, "binary")]
        options = {"nats_connection": nc, "fileserver_url": files, "size_threshold": threshold}
        return code(natsbridge.smartsend, "f", data, **options)

    bad = (
        lambda: natsbridge.smartsend("a b", [("t", "x", "text")], nats_connection=nc),
        lambda: natsbridge.smartsend("f", [("t", 5, "text")], nats_connection=nc),
        lambda: send(Short(True), 200000),
        lambda: send(Short(False), 200000),
        lambda: (send(Short(True), 0), nc.connected),
        lambda: (send(Short(False), 0), nc.connected),
        lambda: natsbridge.smartsend(
            "f",
            [("b", b"abc", "binary")],
            nats_connection=nc,
            size_threshold=0,
            fallback_direct=False,
            fileserver_url="http://127.0.0.1:1",
            timeout=0.3,
        ),
        lambda: natsbridge.plik_upload(files, "s", Short(True)),
        lambda: natsbridge.fetch_with_backoff(files + "/file/a/b/c", 1),
        lambda: natsbridge.connect("nats://127.0.0.1:1", timeout=0.3),
    )
    wires = (
        b"{",
        b'{"payloads":[{"dataname":"a","payload_type":"binary","transport":"direct",'
        b'"encoding":"base64","size":3,"data":"QUI"}]}',
        b'{"payloads":[{"dataname":"a","payload_type":"binary","transport":"link","data":"'
        + files.encode()
        + b'/file/a/b/c"}]}',
        b'{"payloads":[{"dataname":"a","payload_type":"binary","transport":"direct",'
        b'"encoding":"base64","size":9000,"data":"' + b"QUJD" * 3000 + b'?"}]}',
    )
    for f in bad:
        print(code(f))
    nc.flush()
    before = descriptors()
    for _ in range(2):
        for f in bad:
            code(f)
        for wire in wires:
            nc.publish("faults", wire)
            print(code(natsbridge.smartreceive, sub.next(5), sink=folder, fileserver_url=files))
    nc.publish("faults", b"still here")
    print(str(sub.next(5).data, "utf-8"), descriptors() - before, os.listdir(folder))


def large(nc, sub):
    """A large message must be used before the next call."""
    nc.publish("faults", bytes(3000))
    nc.publish("faults", b"small")
    first = sub.next(5)
    second = sub.next(5)
    print(len(first), code(natsbridge.smartreceive, first), bytes(second.data))
    nc.publish("faults", bytes(5000))
    print(len(sub.next(5).data))


def callback(nc, sub):
    """A callback that uses its connection in mid-message is refused, and nothing is published."""

    def progress(name, done, total):
        nc.publish("other", b"x")

    data = [("b", bytes(20000), "binary")]
    print(code(natsbridge.smartsend, "faults", data, nats_connection=nc, on_progress=progress))
    print(sub.next(0.3))

    def fails(name, done, total):
        raise ValueError("mine")

    nc.publish("faults", WIRE)
    try:
        natsbridge.smartreceive(sub.next(5), on_progress=fails)
    except ValueError as e:
        print(e)
    nc.publish("faults", b"still here")
    print(bytes(sub.next(5).data))


WIRE = (
    b'{"payloads":[{"dataname":"a","payload_type":"binary","transport":"direct",'
    b'"encoding":"base64","size":3,"data":"QUJD"}]}'
)


def after_links(nc, sub):
    """In a small heap, links that fail or come into memory leave room for what follows."""
    for threshold in (0, 100000) * 15:
        options = {"nats_connection": nc, "size_threshold": threshold, "fileserver_url": files}
        bad = dict(options, fileserver_url="http://127.0.0.1:1", fallback_direct=False, timeout=0.2)
        if threshold == 0:
            print(code(natsbridge.smartsend, "faults", [("t", "x", "text")], **bad), end=" ")
        natsbridge.smartsend("faults", [("t", "x" * 500, "text")], **options)
        env = natsbridge.smartreceive(sub.next(5), fileserver_url=files)
        print(len(env["payloads"][0][1]))


def full(nc, sub):
    """The connection breaks, after an upload, in a heap that is full."""
    cut = natsbridge.NATSBridgeError("NATS_CONNECTION_FAILED", "cut")
    held = []

    def publish(*arguments):
        size = 4096
        while size > 16:
            try:
                held.append(bytearray(size))
            except MemoryError:
                size //= 2
        raise cut

    nc.publish = publish
    ended = code(
        natsbridge.smartsend,
        "faults.a",
        [("x", b"y" * 3000, "binary")],
        nats_connection=nc,
        fileserver_url=files,
        size_threshold=1000,
    )
    held.clear()
    print(ended)


def fill(least):
    """Take all the heap that is free in pieces of so many bytes or more."""
    held = []
    size = 4096
    while size >= least:
        try:
            held.append(bytearray(size))
        except MemoryError:
            size //= 2
    return held


def load():
    """Load what can be dropped again."""
    for part in ("upload", "plik", "recover", "texts"):
        __import__("natsbridge." + part)


def short(nc, sub):
    """An error, and a message, in a heap that is full but for code that nobody needs now."""
    fail = natsbridge.errors.fail
    load()
    held = [fill(128)]
    error = fail("INVALID_ARGUMENT", "what is longer than any piece that is free")
    held.clear()
    print(error.code)
    load()
    nc.publish("faults", b"x" * 1000)
    time.sleep_ms(100)
    held.append(fill(600))
    size = len(sub.next(5))
    held.clear()
    print(size)


def tight(nc, sub):
    """A message in a heap that has room for it once, but not for what is made of it."""
    natsbridge.errors.keep_only()
    nc.publish("faults", b"x" * 1500)
    time.sleep_ms(100)
    room = bytearray(2000)
    held = [fill(600)]
    del room
    try:
        sub.next(5)
    except natsbridge.NATSBridgeError as e:
        held.clear()
        print(e.code)
    print(len(sub.next(5).data))


def claimed(nc, sub):
    """A file is here, and no heap is left to remove it from the server."""
    import natsbridge.recover

    def consume(*arguments):
        raise MemoryError

    natsbridge.recover.consume = consume
    natsbridge.smartsend(
        "faults",
        [("x", b"y" * 3000, "binary")],
        nats_connection=nc,
        fileserver_url=files,
        size_threshold=1000,
        receiver_name=nc.name,
    )
    env = natsbridge.smartreceive(sub.next(5), fileserver_url=files)
    print(len(env["payloads"][0][1]))


def overflow(nc, sub):
    """What does not fit the queue is told, once."""
    other = nc.subscribe("other")
    for _ in range(20):
        nc.publish("faults", bytes(1000))
    nc.publish("other", b"x")
    print(other.next(5) is not None)
    n = 0
    while True:
        try:
            msg = sub.next(0.2)
        except natsbridge.NATSBridgeError as e:
            print(n, e.code, e.details["dropped"] + n)
            break
        n += msg is not None
    print(sub.next(0.2))


def restart(nc, sub):
    """The broker goes and comes back: the subscription is there again."""
    print("ready")
    msg = sub.next(20)
    print(bytes(msg.data), descriptors() < 12)


def listen(nc, sub):
    """Take messages from a broker that misbehaves."""
    got = code(sub.next, 3)
    if not isinstance(got, str) and got is not None:
        got = code(lambda: bytes(got.data))
    print(got)


if what == "connect":
    t = time.ticks_ms()
    print(code(natsbridge.connect, broker, timeout=1), time.ticks_diff(time.ticks_ms(), t) < 2500)
else:
    nc = natsbridge.connect(broker, reconnect=what != "listen")
    sub = nc.subscribe("faults")
    {
        "bad_input": bad_input,
        "large": large,
        "callback": callback,
        "after_links": after_links,
        "full": full,
        "claimed": claimed,
        "short": short,
        "tight": tight,
        "overflow": overflow,
        "restart": restart,
    }.get(what, listen)(nc, sub)
