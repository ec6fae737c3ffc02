"""What bench.py measures acknowledged sends against: requests with a text that is ready, over the
same kind of connection. Arguments and output as bench_device.py.
"""

import sys
import time

import natsbridge

path = sys.argv[3]
count = int(sys.argv[4])


def main():
    with open(path, "rb") as f:
        text = f.read()
    nc = natsbridge.connect()
    print("ready")
    while sys.stdin.readline():
        t = time.ticks_us()
        for _ in range(count):
            if b'"seq"' not in nc.request("bench.kept", text).data:
                raise ValueError
        print(time.ticks_diff(time.ticks_us(), t))
    nc.close()


main()
