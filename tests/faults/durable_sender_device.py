"""One script for both sides: sends numbered messages to a stream, though the broker is killed."""

import sys

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

BROKER, COUNT = sys.argv[1:3]
#: Too much to be written in one go.
LARGE = bytes(20000)

nc = natsbridge.connect(BROKER, name="sender", base_delay=20, max_delay=200)
for n in range(int(COUNT)):
    data = [("n", str(n), "text"), ("more", b"" if n % 50 else LARGE, "binary")]
    while True:
        try:
            natsbridge.smartsend(
                "durable.n", data, nats_connection=nc, msg_id="id-%d" % n, durable=True
            )
            print(n)
            break
        except natsbridge.NATSBridgeError as e:
            print("again", n, e.code)  # with the same id
nc.close()
print("done")
