"""The device of test_bad_input.py: is told lies, three times each, in a small heap.

The last time it prints what came of it, by how many bytes the heap has grown afterwards and by how
many at most meanwhile (looked at while it reads), and the ms that it took.
"""

import gc
import sys
import time

import natsbridge
from natsbridge import errors, stream

what, broker, files = sys.argv[1:]
peak = 0
reads = 0


def sample():
    global peak, reads
    reads += 1
    if reads < 200 or reads & 31 == 0:
        gc.collect()
        peak = max(peak, gc.mem_alloc())


def readinto(self, buf, n, wait=True):
    sample()
    return plain(self, buf, n, wait)


def act(nc, sub):
    if what == "upload":
        natsbridge.plik_upload(files, "a", b"abc")
        return "stored"
    msg = sub.next(2)
    if what == "nats":
        return msg and bytes(msg.data)
    options = {"fileserver_url": files, "max_retries": 1}
    try:
        return natsbridge.smartreceive(msg, **options)["payloads"]
    finally:
        if sub.next(5).data != b"good":
            raise ValueError


def once():
    try:
        nc = natsbridge.connect(broker, reconnect=False)
        try:
            return act(nc, nc.subscribe("faults"))
        finally:
            nc.close()
    except natsbridge.NATSBridgeError as e:
        return e.code


def main():
    global peak, reads
    for _ in range(3):
        reads = 0
        errors.make_room(1 << 30, "none")
        gc.collect()
        peak = before = gc.mem_alloc()
        start = time.ticks_ms()
        result = once()
        ms = time.ticks_diff(time.ticks_ms(), start)
        top = peak - before
        errors.make_room(1 << 30, "none")
        gc.collect()
        left = gc.mem_alloc() - before
    print(left, top, ms, result)


plain = stream.Stream.readinto
stream.Stream.readinto = readinto
main()
