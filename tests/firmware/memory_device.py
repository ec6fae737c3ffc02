"""The device of test_memory.py: sends a file by link and directly, receives both into a folder,
and prints the heap's high-water mark of each step, and where what came is."""

import gc
import sys

import natsbridge

broker, files, folder = sys.argv[1:4]
peak = 0
calls = 0


def progress(name, done, total):
    """Sample the live heap."""
    global peak, calls
    calls += 1
    if calls & 63 == 1:
        gc.collect()
        peak = max(peak, gc.mem_alloc())


def main():
    global peak
    nc = natsbridge.connect(broker)
    sub = nc.subscribe("memory")
    for name in sys.argv[4:]:
        peak = 0
        with open(folder + "/" + name, "rb") as f:
            natsbridge.smartsend(
                "memory",
                [(name, f, "binary")],
                nats_connection=nc,
                fileserver_url=files,
                size_threshold=500000,
                on_progress=progress,
            )
        up = peak
        peak = 0
        env = natsbridge.smartreceive(
            sub.next(10), sink=folder, fileserver_url=files, on_progress=progress
        )
        print(name, up, peak, env["payloads"][0][1])


main()
