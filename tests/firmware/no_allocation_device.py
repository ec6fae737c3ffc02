"""The device of test_no_allocation.py: sends a file directly and by link, receives both into a
folder, without garbage collection. For each step it prints by how many bytes the heap grew from one
chunk to the next, and for how many chunks that is so; first, what the base64 result of a chunk
takes, out and in.
"""

import gc
import sys
from array import array
from binascii import a2b_base64, b2a_base64

import natsbridge

files, folder = sys.argv[1:3]
BLOCK = 32  # bytes of a block of the 64-bit port's heap
MOST = 255
grown = array("H", [0] * (MOST + 1))  # [blocks]: how many chunks grew the heap by so many
last = -1


def progress(name, done, total):
    """Count what was allocated since the last call; allocates nothing itself."""
    global last
    now = gc.mem_alloc()
    if last >= 0 and done != total:  # the last chunk is a part of one
        n = (now - last + BLOCK - 1) // BLOCK
        grown[n if 0 <= n < MOST else MOST] += 1
    last = now


def start():
    global last
    last = -1
    for i in range(MOST + 1):
        grown[i] = 0
    gc.collect()
    gc.disable()


def stop(step):
    gc.enable()
    print(step, *("%d:%d" % (i * BLOCK, grown[i]) for i in range(MOST + 1) if grown[i]))


def result(convert, data):
    """Bytes of heap that the result of `convert` takes."""
    convert(data)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    convert(data)
    n = gc.mem_alloc() - before
    gc.enable()
    return n


def main():
    nc = natsbridge.connect()
    sub = nc.subscribe("allocation")
    chunk = len(nc.scratch) // 4 * 4
    print("base64", result(b2a_base64, bytes(768)), result(a2b_base64, b"A" * chunk))
    for job, threshold in (("direct", 1000000), ("link", 1)):
        with open(files + "/" + job, "rb") as f:
            start()
            natsbridge.smartsend(
                "allocation",
                [("a", f, "binary")],
                nats_connection=nc,
                size_threshold=threshold,
                on_progress=progress,
            )
            stop(job + "-out")
        msg = sub.next(10)
        start()
        natsbridge.smartreceive(msg, sink=folder, on_progress=progress)
        stop(job + "-in")
    nc.close()


main()
