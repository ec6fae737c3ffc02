"""The device of test_drift.py: sends itself a text, and a file by link, has its connection cut, and
prints how much heap is free; over and over."""

import gc
import os
import sys

import natsbridge
from natsbridge import errors

broker, files, folder, count = sys.argv[1:]


def pass_on(nc, sub, value, kind):
    natsbridge.smartsend(
        "drift",
        [("a", value, kind)],
        nats_connection=nc,
        fileserver_url=files,
        size_threshold=1000,
        receiver_name="drift",  # who deletes the file
    )
    env = natsbridge.smartreceive(sub.next(10), sink=folder, fileserver_url=files)
    return env["payloads"][0][1]


def main():
    # Who is connected for a moment only waits longer each time: not here.
    nc = natsbridge.connect(broker, name="drift", base_delay=1, max_delay=1)
    sub = nc.subscribe("drift")
    for _ in range(int(count)):
        pass_on(nc, sub, "direct", "text")
        with open(folder + "/a.bin", "rb") as f:
            os.remove(pass_on(nc, sub, f, "binary"))
        nc.publish("drift.cut", b"")
        try:
            nc.flush()
            break
        except natsbridge.NATSBridgeError:
            nc.flush()  # connects again
        errors.make_room(1 << 30, "none")  # leaves the modules that always stay
        gc.collect()
        print(gc.mem_free())


main()
