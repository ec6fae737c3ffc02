"""The device of tls.py: opens connections, plain or in TLS, and tells what they cost.

Prints, as numbers in this order: bytes of code that were loaded to open them; bytes of heap a
connection; bytes outside the heap a connection; us to open one; us of its longest step.
"""

import gc
import sys
import time

import natsbridge
from natsbridge import client, log, stream  # noqa: F401  (what is there without TLS too)

COUNT = 8  # at once, since what is outside the heap can be told in pages only
job, port, ca = sys.argv[1:4]
longest = 0


def heap():
    gc.collect()
    return gc.mem_alloc()


def outside():
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    return 0


def watch(do):
    """`do`, timed."""

    def timed(*arguments):
        global longest
        t = time.ticks_us()
        try:
            return do(*arguments)
        finally:
            longest = max(longest, time.ticks_diff(time.ticks_us(), t))

    return timed


def nats(tls):
    scheme = "tls" if tls else "nats"
    return natsbridge.connect("%s://localhost:%s" % (scheme, port), tls=tls, id="x")


def http(tls):
    s = stream.Stream("localhost", int(port), until(5), None, tls)
    s.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    s.readinto(buf, len(buf))
    return s


until = stream.until
buf = bytearray(256)
tls = {"ca": ca} if ca else None
gc.disable()
try:
    pages = [bytearray(4096) for _ in range(400)]  # so that the heap's pages count as used before
finally:
    pages = None
    gc.enable()
code = 0
if tls:
    before = heap()
    from natsbridge import tls as module

    code = heap() - before
    module.Handshake._do = watch(module.Handshake._do)
do = globals()[job]
do(tls).close()  # so that all is loaded
times = []
steps = []
kept = [None] * COUNT
before = heap(), outside()
for i in range(COUNT):
    longest = 0
    t = time.ticks_us()
    kept[i] = do(tls)
    times.append(time.ticks_diff(time.ticks_us(), t))
    steps.append(longest)
after = heap(), outside()
times.sort()
steps.sort()
print(code, (after[0] - before[0]) // COUNT, (after[1] - before[1]) // COUNT)
print(times[COUNT // 2], steps[COUNT // 2])
for it in kept:
    it.close()
