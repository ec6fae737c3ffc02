"""The device of test_spool.py: keeps messages in a spool and sends them, as it is told."""

import sys

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
        for _ in range(30):  # the broker takes a moment
            if not spool.flush(nc):
                break
        print("end", len(spool))
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


main()
