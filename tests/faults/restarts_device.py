"""A peer that publishes numbered messages to another one, and takes its, whatever the broker does:
firmware, or natsbridge.sync on CPython.

Called with a broker's URL, its own name, and the other's. Each call of publish() has a number of
its own, and a payload that no other number has; what arrives is compared with that. A line of input
has it print "ok", one of "end" has it stop. It prints, then, as JSON: how many were published and
taken, how many were wrong, came twice, or broke off, and how often an error of each code came.
"""

import hashlib
import json
import select
import sys

DEVICE = sys.implementation.name == "micropython"
if DEVICE:
    import natsbridge
else:
    from natsbridge import sync as natsbridge

BROKER, ME, OTHER = sys.argv[1:4]
#: Bytes of the payloads, in turns: most are small, some stay on the device's socket, and in
#: some of these a broker that is killed is caught in the middle.
SIZES = (20, 200, 1500, 20, 5000, 20, 60_000, 20, 300_000)


class Pattern:
    """The payload of message `n` of `sender`: written to a connection, or compared with one.
    Nothing of it is ever whole in memory on the device."""

    def __init__(self, sender, n):
        self.block = hashlib.sha256(("%s %d" % (sender, n)).encode()).digest() * 16
        self.size = SIZES[n % len(SIZES)]

    def __len__(self):
        return self.size

    def write_to(self, stream):
        view = memoryview(self.block)
        left = self.size
        while left:
            part = view[: min(left, len(view))]
            stream.write(part)
            left -= len(part)

    def whole(self):
        """As bytes, for the desktop."""
        return (self.block * (self.size // len(self.block) + 1))[: self.size]

    def is_in(self, msg):
        """Whether that is what a message carries."""
        if not DEVICE:
            return bytes(msg.data) == self.whole()
        if len(msg) != self.size:
            return False
        buf = bytearray(len(self.block))
        view = memoryview(buf)
        done = 0
        while done < self.size:
            n = msg.readinto(view, min(len(buf) - done % len(buf), self.size - done))
            at = done % len(buf)
            if not n or view[:n] != self.block[at : at + n]:
                return False
            done += n
        return True


def main():
    nc = natsbridge.connect(BROKER, name=ME, timeout=2)
    sub = nc.subscribe("storm.%s.*" % ME)
    nc.subscribe("unused.%s" % ME, "queue")
    nc.subscribe("ended.%s" % ME).unsubscribe()
    nc.flush()
    told = select.poll()
    told.register(sys.stdin, select.POLLIN)
    seen = {"sent": 0, "taken": 0, "wrong": 0, "twice": 0, "broken": 0}
    codes = {}
    last = 0

    def note(e):
        codes[e.code] = codes.get(e.code, 0) + 1

    print("ready")
    while True:
        if told.poll(0):
            if sys.stdin.readline().strip() == "end":
                break
            print("ok")
        seen["sent"] += 1
        payload = Pattern(ME, seen["sent"])
        try:
            nc.publish(
                "storm.%s.%d" % (OTHER, seen["sent"]),
                payload if DEVICE else payload.whole(),
            )
        except natsbridge.NATSBridgeError as e:
            note(e)
        try:
            msg = sub.next(0.02)
            while msg:
                n = int(msg.subject.split(".")[2])
                seen["twice"] += n <= last
                last = max(n, last)
                try:
                    if Pattern(OTHER, n).is_in(msg):
                        seen["taken"] += 1
                    else:
                        seen["wrong"] += 1
                except natsbridge.NATSBridgeError:
                    seen["broken"] += 1
                msg = sub.next(0)
        except natsbridge.NATSBridgeError as e:
            note(e)
    seen["codes"] = codes
    print(json.dumps(seen))


main()
