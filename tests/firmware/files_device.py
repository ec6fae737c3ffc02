"""The device of test_durable_heap.py: files that it sends to a stream, and fetches again."""

import sys
from hashlib import sha256

import natsbridge

broker, files, folder = sys.argv[1:4]


def digest(path):
    h = sha256()
    buf = bytearray(512)
    with open(path, "rb") as f:
        while True:
            n = f.readinto(buf)
            if not n:
                return h.digest()
            h.update(memoryview(buf)[:n])


def main():
    nc = natsbridge.connect(broker)
    inbox = nc.inbox("HEAP", "device")
    for name in sys.argv[4:] * 2:
        path = folder + "/" + name
        with open(path, "rb") as f:
            natsbridge.smartsend(
                "heap.a",
                [(name, f, "binary")],
                nats_connection=nc,
                fileserver_url=files,
                size_threshold=500000,
                receiver_name="device",
                durable=True,
            )
        for msg in inbox.fetch():
            env = natsbridge.smartreceive(msg, sink=folder, fileserver_url=files)
            print(name, digest(env["payloads"][0][1]) == digest(path))
            env = None
            msg.ack()
        msg = None
    nc.close()


main()
