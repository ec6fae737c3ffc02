"""umqtt.simple in bench.py, through nats-server's MQTT listener, at QoS 0, or 1 for the job
"acknowledged"; arguments and output as bench_device.py, and before "ready" the heap that its import
took.
"""

import gc
import os
import sys
import time

gc.collect()
before = gc.mem_alloc()

from umqtt.simple import MQTTClient  # noqa: E402

gc.collect()
print("import", gc.mem_alloc() - before)

job, subject, path = sys.argv[1:4]
count = int(sys.argv[4])


received = 0


def message(topic, data):
    global received
    received += 1
    if job == "receive":
        with open("%s/%d" % (path, received), "wb") as f:
            f.write(data)
    elif len(data) != 16:
        raise ValueError


def flush(client):
    """Wait until the server has taken all: it answers in order."""
    client.ping()
    client.wait_msg()


def do(client):
    if job == "send":
        with open(path, "rb") as f:
            for _ in range(count):
                f.seek(0)
                client.publish(b"bench/out", f.read())
        flush(client)
    elif job == "acknowledged":
        for _ in range(count):
            client.publish(b"bench/out", b"x" * 16, qos=1)
    elif job == "publish":
        data = b"x" * 16
        for _ in range(count):
            client.publish(b"bench/out", data)
        flush(client)
    else:
        for _ in range(count):
            client.wait_msg()


def main():
    host, _, port = os.getenv("MQTT_URL")[7:].partition(":")
    client = MQTTClient(subject.replace(".", "-").encode(), host, int(port))
    client.set_callback(message)
    client.connect()
    client.subscribe(subject.replace(".", "/").encode())
    print("ready")
    while sys.stdin.readline():
        t = time.ticks_us()
        do(client)
        print(time.ticks_diff(time.ticks_us(), t))
    client.disconnect()


main()
