"""The device of bench.py: times each job, and prints what, bytes or messages, and us a round."""

import sys
import time

import natsbridge

folder = sys.argv[1]
rounds = 5


class Nowhere:
    """A sink that takes all."""

    def write(self, data):
        return len(data)


def nowhere(name, payload_type, size):
    return Nowhere()


def main():
    nc = natsbridge.connect()
    sub = nc.subscribe("bench")
    for name in ("99999", "499999", "5000000"):
        size = int(name)
        threshold = 500000
        up = []
        down = []
        for _ in range(rounds):
            with open(folder + "/" + name, "rb") as f:
                t = time.ticks_us()
                natsbridge.smartsend(
                    "bench", [("a", f, "binary")], nats_connection=nc, size_threshold=threshold
                )
                up.append(time.ticks_diff(time.ticks_us(), t))
            msg = sub.next(10)
            t = time.ticks_us()
            natsbridge.smartreceive(msg, sink=nowhere)
            down.append(time.ticks_diff(time.ticks_us(), t))
        how = "direct" if size < threshold else "link"
        print("send", how, size, *up)
        print("receive", how, size, *down)
    n = 2000
    data = b"x" * 16
    ups = []
    for _ in range(rounds):
        t = time.ticks_us()
        for _ in range(n):
            nc.publish("bench.small", data)
        nc.flush()
        ups.append(time.ticks_diff(time.ticks_us(), t))
    print("publish", "16-byte", n, *ups)
    nc.close()


main()
