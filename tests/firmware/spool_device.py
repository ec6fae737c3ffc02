"""The device of test_spool.py: keeps messages in a spool and sends them, as it is told."""

import os
import sys
import time

from natsbridge.spool import Spool

import natsbridge

what, broker, files, folder = sys.argv[1:5]


class Once:
    """A stream that can't seek, of `size` bytes."""

    def __init__(self, size):
        self.left = size

    def readinto(self, buf):
        n = min(len(buf), self.left)
        for i in range(n):
            buf[i] = self.left % 251
            self.left -= 1
        return n


def offer(spool, nc, text, **options):
    """Send a text, and say what became of it."""
    try:
        print(text, spool.send("spool.a", [("t", text, "text")], nc, **options), len(spool))
    except natsbridge.NATSBridgeError as e:
        print(text, e.code, len(spool))


def connect():
    return natsbridge.connect(broker, name="d", id="d-1", base_delay=10, timeout=1)


def main():
    if what == "kinds":  # everything, kept without a broker, and sent later
        spool = Spool(folder, 500000)
        data = [
            ("t", "Grüße", "text"),
            ("d", {"a": [1, 2.5, None]}, "dictionary"),
            ("j", [{"x": 1}], "jsontable"),
            ("b", bytes(range(256)) * 20, "binary"),
            ("e", b"", "binary"),
            ("o", Once(3000), "binary"),
        ]
        print(spool.send("spool.kinds", data, receiver_name="desk", metadata={"k": 1}))
        print(spool.send("spool.kinds", [], msg_purpose="ACK"))
        print(len(spool), len(Spool(folder, 1)))
        with connect() as nc:
            print(spool.flush(nc), len(spool), spool.size)
            print(spool.send("spool.kinds", [("t", "at once", "text")], nc))
    elif what == "link":
        spool = Spool(folder, 500000)
        with open(folder + "/../large.bin", "rb") as f:
            print(spool.send("spool.link", [("f", f, "binary")], fileserver_url=files))
        with connect() as nc:
            print(spool.flush(nc))
    elif what == "refuse" or what == "drop":
        spool = Spool(folder, 1000, what == "drop")
        for i in range(6):
            offer(spool, None, "%d" % i + "x" * 100)
        offer(spool, None, "large" + "x" * 1000)
        print(spool.size <= 1000, spool.dropped)
        with connect() as nc:
            print(spool.flush(nc))
    elif what == "away":  # the broker comes and goes: lines at stdin say when
        spool = Spool(folder, 100000)
        nc = connect()
        for i in range(9):
            if i % 3 == 0:
                print("now", i)
                sys.stdin.readline()
            offer(spool, nc, str(i), timeout=0.3)
        print("end", flushed(spool, nc))
    elif what == "bad":
        spool = Spool(folder, 100000)
        print(len(spool))
        with connect() as nc:
            print(spool.flush(nc), spool.damaged, spool.size)
    elif what == "flash":  # it takes no new file
        spool = Spool(folder, 100000)

        def refuse(path, mode):
            raise OSError(28)

        sys.modules["natsbridge.spool"].open = refuse
        try:
            spool.send("spool.a", [("t", "x", "text")])
        except OSError as e:
            print(e.errno, len(spool), spool.size)
    elif what == "arguments":
        spool = Spool(folder, 100000)
        for data, options in (
            ([("t", 5, "text")], {}),
            ([("t", "x", "nonsense")], {}),
            ([("t", "x", "text")], {"on_progress": print}),
            ([("t", "x", "text")], {"metadata": {"x": b"x"}}),
        ):
            try:
                spool.send("spool.a", data, **options)
                print("taken")
            except natsbridge.NATSBridgeError as e:
                print(e.code)
        for limit in (0, -1, None):
            try:
                Spool(folder, limit)
            except natsbridge.NATSBridgeError as e:
                print(e.code)
        print(len(spool))
    elif what == "checked":  # without a broker, what smartsend would refuse
        spool = Spool(folder, 100000)
        text = [("t", "x", "text")]
        for subject, data, nc, options in (
            ("spool..a", text, None, {}),
            ("spool.a", [(5, "x", "text")], None, {}),
            ("spool.a", text, None, {"sender_name": 5}),
            ("spool.a", text, None, {"timeout": "3"}),
            ("spool.a", text, broker, {}),
            ("spool.a", text, None, {"sender_nam": "x"}),
            ("spool.a", None, None, {}),
            ("spool.a", "x", None, {}),
            ("spool.a", text, None, {"metadata": "x"}),
            ("spool.a", text, None, {"metadata": 5}),
            ("spool.a", text, None, {"fileserver_url": "files.example.com"}),
            ("spool.a", text, None, {"fileserver_url": 5}),
        ):
            refused(spool.send, subject, data, nc, **options)
        print(len(spool), spool.send("spool.a", text, fileserver_url=None))
        for nc in (broker, 5, None, spool):
            refused(spool.flush, nc)
        print(len(spool), spool.damaged)
    elif what == "streams":  # the broker falls silent for a while
        spool = Spool(folder, 100000)
        nc = connect()
        with open(folder + "/../data.bin", "rb") as f:
            f.seek(10)
            print(spool.send("spool.a", [("o", Once(3000), "binary")], nc, fileserver_url=files))
            go("stop")
            f.seek(10)
            print(spool.send("spool.a", [("f", f, "binary")], nc, timeout=0.3))
            print(spool.send("spool.a", [("o", Once(3000), "binary")], nc, timeout=0.3))
        go("go on")
        print(flushed(spool, nc), spool.damaged)
    elif what == "full":  # of what waits while the broker is there again
        for drop in (False, True):
            spool = Spool(folder, 1000, drop)
            while len(spool) < 2:
                offer(spool, None, "x" * 100)
            with connect() as nc:
                offer(spool, nc, "y" * 300)
            print(spool.dropped)
    elif what == "never":  # what can't fit drops nothing
        spool = Spool(folder, 1000, True)
        offer(spool, None, "x" * 100)
        offer(spool, None, "y" * 930)
        print(spool.dropped)
    elif what == "heap":  # it is short for a moment
        spool = Spool(folder, 1000)
        offer(spool, None, "x")
        envelope = natsbridge.envelope
        was = envelope.EnvelopeJSON
        with connect() as nc:
            envelope.EnvelopeJSON = short
            print(spool.flush(nc), spool.damaged)
            offer(spool, nc, "y")
            envelope.EnvelopeJSON = was
            print(spool.flush(nc), spool.damaged)
    elif what == "others":  # no stream takes what waits
        spool = Spool(folder, 1000)
        print(spool.send("nobody.a", [("t", "x", "text")]))
        with connect() as nc:
            offer(spool, nc, "y", timeout=0.5)
            refused(spool.flush, nc)
        print(len(spool))
    elif what == "aside":  # one after the other is damaged
        spool = Spool(folder, 1000)
        with connect() as nc:
            for text in ("x", "y"):
                offer(spool, None, text)
                for name in os.listdir(folder):
                    if name.isdigit():
                        with open(folder + "/" + name, "ab") as f:
                            f.write(b"!")
                print(spool.flush(nc), spool.damaged)
        offer(Spool(folder, 1000), None, "z")
        print(sorted(os.listdir(folder)))
    elif what == "before":  # what an older version has left
        for name in ("5", "5.bad"):
            with open(folder + "/" + name, "wb") as f:
                f.write(name.encode())
        spool = Spool(folder, 1000)
        with connect() as nc:
            print(spool.flush(nc), spool.damaged)
        for name in sorted(os.listdir(folder)):
            with open(folder + "/" + name, "rb") as f:
                print(name, f.read())
    elif what == "mqtt":  # where nothing can be durable
        spool = Spool(folder, 1000)
        offer(spool, None, "x")
        with connect() as nc:
            refused(spool.flush, nc)
            offer(spool, nc, "y")
        print(len(spool), spool.damaged)
    elif what == "inside":  # in the connection's callback
        spool = Spool(folder, 1000)

        def idle():
            nonlocal left
            if left:
                left -= 1
                offer(spool, nc, "x%d" % left)
                refused(spool.flush, nc)

        left = 0
        with natsbridge.connect(broker, on_idle=idle) as nc:
            left = 2
            while left:
                nc.next(0.1)
            print(spool.damaged, spool.flush(nc), spool.damaged)
    elif what == "under":  # a callback drops what is just being sent
        spool = Spool(folder, 1000, True)

        def idle():
            nonlocal left
            if left:
                left -= 1
                offer(spool, None, "z" * 100)

        left = 0
        with natsbridge.connect(broker, on_idle=idle) as nc:
            offer(spool, None, "x" * 100)
            offer(spool, None, "y" * 100)
            spool.limit = spool.size  # it is full
            left = 1
            time.sleep_ms(100)  # so that it is called at once
            print(spool.flush(nc), left, spool.dropped)
    elif what == "folders":
        for path in (None, folder + "/file", folder + "/none/spool", folder + "/full"):
            try:
                print(Spool(path, 1000))
            except natsbridge.NATSBridgeError as e:
                print(e)
    elif what == "alien":  # a file whose name is a large number
        spool = Spool(folder, 100000)
        print(len(spool))
        offer(spool, None, "x")
        with connect() as nc:
            print(spool.flush(nc), spool.damaged)


def refused(function, *arguments, **options):
    """Say why it is refused."""
    try:
        print(function(*arguments, **options))
    except natsbridge.NATSBridgeError as e:
        print(e.code)
    except TypeError:
        print("TypeError")


def go(what):
    """Wait until the broker did."""
    print("now", what)
    sys.stdin.readline()


def flushed(spool, nc):
    for _ in range(30):  # the broker takes a moment
        if not spool.flush(nc):
            break
    return len(spool)


def short(*arguments):
    raise MemoryError


main()
