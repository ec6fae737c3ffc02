"""The device of test_durable_kills.py that is killed: sends numbered messages through a spool, from
a number on, until it is killed or has sent so many; then what waits is sent."""

import sys
import time

from natsbridge.spool import Spool

import natsbridge

BROKER, FOLDER, FIRST, COUNT = sys.argv[1:5]

spool = Spool(FOLDER, 300000)
nc = None
n = int(FIRST)
while n < int(COUNT) or len(spool):
    if nc is None:
        try:
            nc = natsbridge.connect(BROKER, name="d", base_delay=10, max_delay=50, timeout=0.2)
        except natsbridge.NATSBridgeError:
            time.sleep_ms(5)
    if n < int(COUNT):
        data = [("n", str(n), "text"), ("more", bytes(n % 7 * 300), "binary")]
        spool.send("durable.n", data, nc, msg_id="id-%d" % n, timeout=0.2)
        print(n)
        n += 1
    elif nc:
        spool.flush(nc)
print("done", spool.damaged, spool.dropped)
