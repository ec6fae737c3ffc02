"""The device of test_durable_heap.py: every kind of durable message, in a small heap."""

import gc
import os
import sys

import natsbridge

broker, files, folder, spool_bytes = sys.argv[1:5]


def source(size):
    with open(folder + "/source", "wb") as f:
        for i in range(0, size, 250):
            f.write(bytes(range(250))[: size - i])
    return open(folder + "/source", "rb")


def same(path, size):
    with open(path, "rb") as f:
        for i in range(0, size, 250):
            if f.read(250) != bytes(range(250))[: size - i]:
                return False
        good = not f.read(1)
    os.remove(path)
    return good


spool = None
if int(spool_bytes):
    from natsbridge.spool import Spool

    spool = Spool(folder + "/spool", int(spool_bytes))
nc = natsbridge.connect(broker, name="d")
box = nc.inbox("HEAP", "d")
for size, threshold in ((20, 9), (99999, 100000), (499999, 500000), (2000000, 9), (20, 9)) * 2:
    with source(size) as f:
        natsbridge.smartsend(
            "heap.a",
            [("t", "hello", "text"), ("f", f, "binary")],
            nats_connection=nc,
            fileserver_url=files,
            size_threshold=threshold,
            receiver_name="d",
            durable=True,
        )
    for msg in box.fetch(1):
        env = natsbridge.smartreceive(msg, sink=folder, fileserver_url=files)
        print(size, same(env["payloads"][1][1], size))
        env = None
        msg.ack()
    msg = None
    if spool is not None:
        with source(size) as f:
            spool.send("heap.a", [("f", f, "binary")], None, fileserver_url=files)
        print(spool.flush(nc))
        for msg in box.fetch(1):
            env = natsbridge.smartreceive(msg, sink=folder, fileserver_url=files)
            print(size, same(env["payloads"][0][1], size))
            env = None
            msg.ack()
        msg = None
    gc.collect()
    print(gc.mem_free())
nc.close()
