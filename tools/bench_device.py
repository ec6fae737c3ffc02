"""NATSBridge's part of bench.py.

Arguments: job, subject to receive on, file or folder, number of messages in a round. It says
"ready", then for each line that comes it does a round and prints how many us that took. At the end
it prints the modules that it has loaded.
"""

import os
import sys
import time

import natsbridge

job, subject, path = sys.argv[1:4]
count = int(sys.argv[4])
THRESHOLD = 1 if job == "upload" else 1000000


def send(nc, sub):
    for _ in range(count):
        with open(path, "rb") as f:
            data = [("a", f, "binary")]
            natsbridge.smartsend("bench.out", data, nats_connection=nc, size_threshold=THRESHOLD)
    nc.flush()


def receive(nc, sub):
    for _ in range(count):
        natsbridge.smartreceive(sub.next(10), sink=path)


def publish(nc, sub):
    data = b"x" * 16
    for _ in range(count):
        nc.publish("bench.out", data)
    nc.flush()


def acknowledged(nc, sub):
    data = b"x" * 16
    for _ in range(count):
        nc.publish("bench.out", data)


def keep(nc, sub):
    for _ in range(count):
        data = [("a", b"x" * 16, "binary")]
        natsbridge.smartsend("bench.kept", data, nats_connection=nc, durable=True)


def take(nc, sub):
    for _ in range(count):
        if len(sub.next(10).data) != 16:
            raise ValueError


def main():
    nc = natsbridge.connect(os.getenv("MQTT_URL") if job == "acknowledged" else None)
    sub = nc.subscribe(subject)
    nc.flush()
    do = {"upload": send, "download": receive}.get(job) or globals()[job]
    print("ready")
    while sys.stdin.readline():
        t = time.ticks_us()
        do(nc, sub)
        print(time.ticks_diff(time.ticks_us(), t))
    nc.close()
    print(" ".join(name[11:] for name in sys.modules if name.startswith("natsbridge.")))


main()
