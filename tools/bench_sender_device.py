"""One of the many devices that bench_host.py has send to one `natsbridge receive`.

Arguments: its number, the subject, how many messages. It says "ready", and begins when a message
comes on the subject "bench.go".
"""

import sys

import natsbridge

number, subject, count = sys.argv[1:4]
nc = natsbridge.connect(name="device-" + number, timeout=60)
sub = nc.subscribe("bench.go")
nc.flush(60)
print("ready")
sub.next(120)
block = bytes(1024)
for n in range(int(count)):
    reading = {"device": int(number), "number": n, "celsius": 21.5}
    data = [("reading", reading, "dictionary"), ("block", block, "binary")]
    natsbridge.smartsend(subject, data, nats_connection=nc)
nc.flush(60)
nc.close()
