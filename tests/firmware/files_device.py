"""The device of test_durable_heap.py: sends files to a stream, fetches
them, and prints where they are."""

import sys

import natsbridge

broker, files, folder = sys.argv[1:4]


def main():
    nc = natsbridge.connect(broker)
    inbox = nc.inbox("HEAP", "device")
    for name in sys.argv[4:] * 2:
        with open(folder + "/" + name, "rb") as f:
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
            print(name, env["payloads"][0][1])
            env = None
            msg.ack()
        msg = None
    nc.close()


main()
