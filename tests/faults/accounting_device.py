"""Publishes numbered messages while its connection is cut, and says what became of each: firmware,
or natsbridge.sync on CPython.

Each line of input is a run, as JSON: url, seed, count (of messages), pending (pending_size), pause
(seconds between two messages at most). What it prints, as words: "returned N", "raised N CODE" for
a call of publish(); "flushed" or "unsure CODE" for one of flush(); "closed" or "unsent CODE" for
close(); "took N" for a message that came, "wrong N" for one that is not what was sent; and "done".

With "flood", the run is another one: it waits for one message while many come for another
subscription, and prints "dropped N" for each error that says so.
"""

import hashlib
import json
import random
import sys
import time

DEVICE = sys.implementation.name == "micropython"
if DEVICE:
    import natsbridge
else:
    from natsbridge import sync as natsbridge

#: Bytes of a payload from which on the device has it written piece by piece.
STREAMED = 4000


def block(n):
    return hashlib.sha256(str(n).encode()).digest() * 16


class Payload:
    """What message `n` carries, written piece by piece."""

    def __init__(self, n, size):
        self.block = block(n)
        self.size = size

    def __len__(self):
        return self.size

    def write_to(self, stream):
        view = memoryview(self.block)
        left = self.size
        while left:
            part = view[: min(left, len(view))]
            stream.write(part)
            left -= len(part)


def payload(n, size):
    if DEVICE and size >= STREAMED:
        return Payload(n, size)
    data = block(n)
    return (data * (size // len(data) + 1))[:size]


def take(nc, timeout):
    """Take what came, if anything did."""
    try:
        msg = nc.next(timeout)
        if msg:
            n = int(msg.subject.split(".")[2])
            print("took" if bytes(msg.data) == bytes(payload(n, len(msg))) else "wrong", n)
    except natsbridge.NATSBridgeError:
        pass  # lost, and not back yet


def publish(nc, n):
    """Publish message `n`, of a random size."""
    size = random.choice((10, 40, 200, 700, 3000))
    if random.random() < 0.08:
        size = random.choice((5000, 30_000, 90_000))
    try:
        nc.publish("account.out.%d" % n, payload(n, size), "r" if random.random() < 0.3 else "")
        print("returned", n)
    except natsbridge.NATSBridgeError as e:
        print("raised", n, e.code)
        if e.code == "PAYLOAD_TOO_LARGE":
            time.sleep(0.02)


def flush(nc, timeout):
    try:
        nc.flush(timeout)
        print("flushed")
        return True
    except natsbridge.NATSBridgeError as e:
        print("unsure", e.code)
        return False


def connect(task):
    while True:
        try:
            return natsbridge.connect(
                task["url"],
                name="peer",
                base_delay=20,
                max_delay=100,
                ping_interval=0.3,
                pending_size=task["pending"],
                timeout=0.5,
            )
        except natsbridge.NATSBridgeError:
            continue  # cut, too


def run(task):
    random.seed(task["seed"])
    nc = connect(task)
    subscribed = False
    for n in range(1, task["count"] + 1):
        publish(nc, n)
        time.sleep(random.random() * task["pause"])
        what = random.random()
        if not subscribed:
            try:
                nc.subscribe("account.in.*")
                subscribed = True
            except natsbridge.NATSBridgeError:
                pass
        if what < 0.05:
            flush(nc, random.choice((0.05, 0.5)))
        elif what < 0.2:
            take(nc, 0)
        elif what < 0.3:
            take(nc, 0.01)
    for _ in range(40):
        if flush(nc, 1):
            break
    try:
        nc.close()
        print("closed")
    except natsbridge.NATSBridgeError as e:
        print("unsent", e.code)


def flood(task):
    if not DEVICE:
        from natsbridge import subscription

        subscription.MAX_QUEUED_MESSAGES = 40  # half a million would take a while
    nc = connect(task)
    sub = nc.subscribe("account.in.*")
    quiet = nc.subscribe("account.quiet")
    nc.flush()
    print("subscribed")
    quiet.next(10)
    while True:
        try:
            msg = sub.next(0.3)
            if not msg:
                break
            n = int(msg.subject.split(".")[2])
            print("took" if bytes(msg.data) == bytes(payload(n, len(msg))) else "wrong", n)
        except natsbridge.NATSBridgeError as e:
            print("dropped", e.details["dropped"] if e.code == "PAYLOAD_TOO_LARGE" else e)
    nc.close()


print("ready")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    task = json.loads(line)
    if "flood" in task:
        flood(task)
    else:
        run(task)
    print("done")
