"""The device of test_durable_heap.py: durable sends over connections that break inside them."""

import sys

import natsbridge


def main():
    nc = natsbridge.connect(sys.argv[1], base_delay=1, max_delay=1)
    for i in range(20):
        text = [("i", str(i), "text")]
        natsbridge.smartsend("heap.a", text, nats_connection=nc, durable=True, timeout=4)
    print(i)


main()
