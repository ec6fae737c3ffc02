"""One of the two peers of test_soak.py, firmware or desktop: sends numbered messages of all kinds,
each until it is acknowledged, takes the other's into a folder, and measures itself.

Called with a broker's URL, the file server's, its own name, the other's, and a folder of its own.
After a first line of input it begins no other message; when its last one is acknowledged it prints
"done NUMBER", and answers until a second line.

Prints "got NUMBER", "sample ...", "lost CODE MESSAGE", and "wrong ...", which should not come.
"""

import hashlib
import os
import select
import sys
import time

DEVICE = sys.implementation.name == "micropython"
if DEVICE:
    import gc

    import natsbridge
    from natsbridge import errors
else:
    import threading

    from natsbridge import sync as natsbridge

BROKER, FILES, ME, OTHER, FOLDER = sys.argv[1:6]
#: Sizes of the binaries, and how messages are made: direct, or by link.
SIZES = (100, 1_500, 20_000, 60_000)
THRESHOLD = 50_000
#: Seconds after which a message is sent again, and that a call may take.
AGAIN_S = 1
TIMEOUT_S = 3


def write_pattern(path, sender, n):
    """A file that is the n-th of a sender's, and no other."""
    block = hashlib.sha256(("%s %d" % (sender, n)).encode()).digest()
    with open(path, "wb") as f:
        for _ in range(SIZES[n % len(SIZES)] // len(block)):
            f.write(block)


def is_pattern(path, sender, n):
    block = hashlib.sha256(("%s %d" % (sender, n)).encode()).digest()
    count = 0
    with open(path, "rb") as f:
        while True:
            piece = f.read(len(block))
            if piece != block:
                return not piece and count == SIZES[n % len(SIZES)] // len(block)
            count += 1


def sample():
    """Print what is held: bytes of heap, or of memory, descriptors and threads."""
    if DEVICE:
        errors.make_room(1 << 30, "none")  # leaves the modules that always stay
        gc.collect()
        print("sample", gc.mem_alloc())
        return
    with open("/proc/self/statm") as f:
        resident = int(f.read().split()[1]) * 4096
    # asyncio's pool of workers fills up by and by, to a fixed number, which is no growth.
    threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]
    print("sample", resident, len(os.listdir("/proc/self/fd")), len(threads))


class Peer:
    def __init__(self):
        self.nc = natsbridge.connect(
            BROKER,
            name=ME,
            id=ME + "-id",
            base_delay=20,
            max_delay=500,
            ping_interval=1,
            timeout=TIMEOUT_S,
        )
        self.sub = self.nc.subscribe("soak." + ME)
        self.n = 0
        self.acked = True
        self.due = 0

    def send(self, data, **options):
        try:
            natsbridge.smartsend(
                "soak." + OTHER,
                data,
                nats_connection=self.nc,
                fileserver_url=FILES,
                size_threshold=THRESHOLD,
                receiver_id=OTHER + "-id",
                fallback_direct=False,
                timeout=TIMEOUT_S,
                **options,
            )
        except natsbridge.NATSBridgeError as e:
            print("lost", e.code, e.message)

    def advance(self):
        """Send the next message, or the last one again."""
        path = FOLDER + "/out.bin"
        if self.acked:
            self.n += 1
            self.acked = False
            write_pattern(path, ME, self.n)
        with open(path, "rb") as f:
            data = [
                ("note", "%s %d" % (ME, self.n), "text"),
                ("row", {"n": self.n}, "dictionary"),
                ("file", f, "binary"),
            ]
            self.send(data, msg_id="%s/%d" % (ME, self.n))
        self.due = time.time() + AGAIN_S

    def take(self, timeout):
        """Take a message, if one comes."""
        try:
            msg = self.sub.next(timeout)
            if msg is None:
                return
            env = natsbridge.smartreceive(
                msg,
                sink=FOLDER + "/in",
                fileserver_url=FILES,
                max_retries=3,
                base_delay=20,
                max_delay=200,
                timeout=TIMEOUT_S,
            )
        except natsbridge.NATSBridgeError as e:
            print("lost", e.code, e.message)
            return
        if env["msg_purpose"] == "ACK":
            who, n = env["reply_to_msg_id"].split("/")
            if who != ME:
                print("wrong", who)
            elif int(n) == self.n:
                self.acked = True
            return
        who, n = env["msg_id"].split("/")
        n = int(n)
        note, row, file = [value for _, value, _ in env["payloads"]]
        good = who == OTHER and note == "%s %d" % (who, n) and row == {"n": n}
        if good and is_pattern(file, who, n):
            print("got", n)
            self.send([], msg_purpose="ACK", reply_to_msg_id=env["msg_id"])
        else:
            print("wrong", who, n, note, row)
        os.remove(file)


def main():
    os.mkdir(FOLDER + "/in")
    peer = Peer()
    print("ready")
    told = select.poll()
    told.register(sys.stdin, select.POLLIN)
    last = done = False
    while True:
        if told.poll(0):
            if done or not sys.stdin.readline():
                break
            last = True
        if peer.acked and not last:
            sample()
        if not (peer.acked and last) and (peer.acked or time.time() > peer.due):
            peer.advance()
        elif peer.acked and not done:
            done = True
            print("done", peer.n)
        peer.take(AGAIN_S / 2)
    peer.nc.close()
    print("left", len(os.listdir(FOLDER + "/in")))


main()
