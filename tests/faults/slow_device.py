"""A peer that is slow: firmware, or natsbridge.sync on CPython.

Called with what to do, a broker's URL, the file server's, and a number:

take: takes messages on slow.*, without reconnecting if the number is 0, and prints "took N", "wrong
    N", "broke N CODE", "lost CODE" or, when nothing comes, "quiet".
trickle: takes one message, and then nothing for so many ms, again and again.
send: sends a payload of so many bytes, by link. receive: receives one into nothing, and compares.
direct: sends one inside a message, then another message. stream: sends one as many messages.
publish: publishes until that is an error.
"""

import hashlib
import sys
import time

DEVICE = sys.implementation.name == "micropython"
if DEVICE:
    import natsbridge
else:
    from natsbridge import sync as natsbridge

WHAT, BROKER, FILES, NUMBER = sys.argv[1:5]
NUMBER = int(NUMBER)
#: What payloads are made of, again and again: no power of two, so that nothing that is lost or
#: doubled has the rest fit.
BLOCK = hashlib.sha256(b"slow").digest() * 31


class Pattern:
    """The blocks of `size` bytes: read from it, or written to it to be compared."""

    def __init__(self, size):
        self.size = size
        self.at = 0
        self.same = True

    def seek(self, offset, whence=0):
        self.at = (0, self.at, self.size)[whence] + offset
        return self.at

    def tell(self):
        return self.at

    def pieces(self, n):
        end = min(self.at + n, self.size)
        while self.at < end:
            at = self.at % len(BLOCK)
            piece = memoryview(BLOCK)[at : at + end - self.at]
            self.at += len(piece)
            yield piece

    def readinto(self, buf):
        n = 0
        for piece in self.pieces(len(buf)):
            buf[n : n + len(piece)] = piece
            n += len(piece)
        return n

    def write(self, data):
        data = memoryview(data)
        n = 0
        for piece in self.pieces(len(data)):
            self.same = self.same and data[n : n + len(piece)] == piece
            n += len(piece)
        self.same = self.same and n == len(data)
        return len(data)

    def whole(self):
        return self.same and self.at == self.size


def take_body(msg):
    """Whether a message carries what its subject says: slow.SIZE_NUMBER."""
    there = Pattern(int(msg.subject.split(".")[1].split("_")[0]))
    if not DEVICE:
        there.write(msg.data)
        return there.whole()
    buf = bytearray(1024)
    n = 1
    while n:
        n = msg.readinto(buf, len(buf))
        there.write(memoryview(buf)[:n])
    return there.whole()


def take(nc, pause_ms):
    sub = nc.subscribe("slow.*")
    nc.flush()
    print("ready")
    while True:
        try:
            msg = sub.next(0.5)
        except natsbridge.NATSBridgeError as e:
            print("lost", e.code)
            if not NUMBER:
                return
            continue
        if not msg:
            print("quiet")
            continue
        n = msg.subject.split("_")[1]
        try:
            print("took" if take_body(msg) else "wrong", n)
        except natsbridge.NATSBridgeError as e:
            print("broke", n, e.code)
        if n == "999":
            return
        time.sleep(pause_ms / 1000)


def send(nc):
    natsbridge.smartsend(
        "slow.out",
        [("x", Pattern(NUMBER), "binary")],
        nats_connection=nc,
        fileserver_url=FILES,
        size_threshold=1,
        fallback_direct=False,
    )
    nc.flush(30)
    print("sent")


def direct(nc):
    try:
        natsbridge.smartsend(
            "slow.out",
            [("x", Pattern(NUMBER), "binary")],
            nats_connection=nc,
            size_threshold=1 << 30,
        )
        nc.flush(30)
        print("sent")
    except natsbridge.NATSBridgeError as e:
        print("failed", e.code)
    nc.publish("slow.out", b"after")
    nc.flush()


def stream(nc):
    left = NUMBER
    while left:
        piece = min(left, 100 * len(BLOCK))
        data = Piece(piece) if DEVICE else BLOCK * (piece // len(BLOCK))
        nc.publish("slow.out", data)
        left -= piece
    nc.flush(30)
    print("sent")


class Piece:
    """Blocks that are written one by one."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def write_to(self, stream):
        for _ in range(self.size // len(BLOCK)):
            stream.write(BLOCK)


def receive(nc):
    sub = nc.subscribe("slow.in")
    nc.flush()
    print("ready")
    env = natsbridge.smartreceive(
        sub.next(30), fileserver_url=FILES, sink=lambda name, kind, size: Pattern(NUMBER)
    )
    print("whole" if env["payloads"][0][1].whole() else "wrong")
    nc.publish("slow.done", b"")
    nc.flush()


def publish(nc):
    print("ready")
    try:
        while True:
            nc.publish("slow.out", BLOCK * 30)
    except natsbridge.NATSBridgeError as e:
        print("stuck", e.code)


def main():
    nc = natsbridge.connect(
        BROKER, name="peer", base_delay=20, reconnect=NUMBER > 0, ping_interval=4, timeout=2
    )
    if WHAT in ("take", "trickle"):
        take(nc, NUMBER if WHAT == "trickle" else 0)
    else:
        work = {"send": send, "receive": receive, "direct": direct, "stream": stream}
        work.get(WHAT, publish)(nc)
    sys.stdin.readline()  # until the test has looked
    nc.close()


main()
