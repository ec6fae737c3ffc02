"""A peer that sends another one numbered messages, and takes its, while brokers go and come again:
firmware, or natsbridge.sync on CPython.

Called with a broker's URL, the file server's, its own name, the other's, how many messages to send,
after how many seconds to send one again, and their sizes, which take turns. Of core NATS nobody may
expect that a message arrives, so each is repeated, after longer and longer, until the other has
acknowledged it. After a first line of input it begins no other; with the last acknowledgement it
prints "done", and answers until a second line, or the end of its input.

Prints a line for each event: "got NUMBER ATTEMPT", "acked NUMBER", "moved URL", "lost ERROR", and
"wrong ...", which should not come.
"""

import hashlib
import select
import sys
import time

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

BROKER, FILES, ME, OTHER, COUNT, PATIENCE, SIZES = sys.argv[1:8]
PATIENCE = float(PATIENCE)
SIZES = [int(size) for size in SIZES.split(",")]
#: Bytes from which a payload goes by link.
THRESHOLD = 50_000


class Pattern:
    """What message `n` of `sender` carries, and no other: read from it, or written to it to be
    compared. Nothing of it is ever whole in memory."""

    def __init__(self, sender, n):
        self.block = hashlib.sha256(("%s %d" % (sender, n)).encode()).digest()
        self.size = SIZES[n % len(SIZES)]
        self.at = 0
        self.same = True

    def seek(self, offset, whence=0):
        self.at = (0, self.at, self.size)[whence] + offset
        return self.at

    def tell(self):
        return self.at

    def pieces(self, n):
        """The next `n` bytes, in pieces of a block at most."""
        end = min(self.at + n, self.size)
        while self.at < end:
            at = self.at % len(self.block)
            piece = self.block[at : at + end - self.at]
            self.at += len(piece)
            yield piece

    def readinto(self, buf):
        n = 0
        for piece in self.pieces(len(buf)):
            buf[n : n + len(piece)] = piece
            n += len(piece)
        return n

    def write(self, data):
        n = 0
        for piece in self.pieces(len(data)):
            self.same = self.same and data[n : n + len(piece)] == piece
            n += len(piece)
        self.same = self.same and n == len(data)
        return len(data)

    def whole(self):
        """Whether all of it was written, and nothing else."""
        return self.same and self.at == self.size


def sink(name, kind, size):
    return Pattern(OTHER, int(name))


class Peer:
    def __init__(self):
        self.nc = natsbridge.connect(
            BROKER, name=ME, id=ME + "-id", base_delay=20, max_delay=500 * PATIENCE
        )
        self.sub = self.nc.subscribe("numbered." + ME)
        self.n = self.attempt = 0
        self.acked = True
        self.url = self.nc.url

    def send(self, data, **options):
        try:
            natsbridge.smartsend(
                "numbered." + OTHER,
                data,
                nats_connection=self.nc,
                fileserver_url=FILES,
                size_threshold=THRESHOLD,
                receiver_id=OTHER + "-id",
                fallback_direct=False,
                **options,
            )
        except natsbridge.NATSBridgeError as e:
            print("lost", e)

    def advance(self):
        """Send the next message, or the last one again."""
        if self.acked:
            self.n += 1
            self.attempt = 0
            self.acked = False
        self.attempt += 1
        self.send(
            [(str(self.n), Pattern(ME, self.n), "binary")],
            msg_id="%s/%d/%d" % (ME, self.n, self.attempt),
        )
        self.due = time.time() + PATIENCE * self.attempt

    def take(self, timeout):
        """Take a message, if one comes."""
        try:
            msg = self.sub.next(timeout)
            env = msg and natsbridge.smartreceive(msg, sink=sink, fileserver_url=FILES)
        except natsbridge.NATSBridgeError as e:
            print("lost", e)
            return
        if self.nc.url != self.url:
            self.url = self.nc.url
            print("moved", self.url)
        if not env:
            return
        ids = env["sender_id"], env["receiver_id"]
        ack = env["msg_purpose"] == "ACK"
        who, n, attempt = env["reply_to_msg_id" if ack else "msg_id"].split("/")
        if ids != (OTHER + "-id", ME + "-id") or who != (ME if ack else OTHER):
            print("wrong", ids, who)
        elif ack:
            if int(n) == self.n and not self.acked:
                self.acked = True
                print("acked", n)
        else:
            [(name, data, _)] = env["payloads"]
            if name != n or not data.whole():
                print("wrong", n, name)
            else:
                print("got", n, attempt)
                self.send([], msg_purpose="ACK", reply_to_msg_id=env["msg_id"])


def main():
    peer = Peer()
    print("ready")
    told = select.poll()
    told.register(sys.stdin, select.POLLIN)
    last = int(COUNT)
    done = False
    while True:
        if told.poll(0):
            if done or not sys.stdin.readline():
                break
            last = peer.n
        if not peer.acked:
            if time.time() > peer.due:
                peer.advance()
        elif peer.n < last:
            peer.advance()
        elif not done:
            done = True
            print("done")
        peer.take(PATIENCE / 4)
    peer.nc.close()


main()
