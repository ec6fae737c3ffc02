"""A peer whose broker stops, without a word or an end: firmware, or natsbridge.sync on CPython.

Called with the brokers' URLs (comma-separated), "True" or "False" for reconnect, and the seconds
between PINGs. At the first line of input it waits for messages, and prints when the wait has ended
(an error's code, what it says, and after how many ms); then, what comes, until a line of "end".
"""

import json
import sys
import time

DEVICE = sys.implementation.name == "micropython"
if DEVICE:
    import natsbridge

    def now():
        return time.ticks_ms()
else:
    from natsbridge import sync as natsbridge

    def now():
        return int(time.monotonic() * 1000)


BROKERS, RECONNECT, INTERVAL = sys.argv[1:4]


def say(*what):
    print(json.dumps(what))


def main():
    nc = natsbridge.connect(
        BROKERS.split(","),
        name="peer",
        reconnect=RECONNECT == "True",
        ping_interval=float(INTERVAL),
        timeout=1,
    )
    sub = nc.subscribe("stopped")
    say("ready", nc.url)
    sys.stdin.readline()
    begin = now()
    while True:
        try:
            msg = sub.next(0.1)
            if msg:
                say("message", str(bytes(msg.data), "utf-8"), nc.url)
                break
            if not nc.connected:
                say("lost", now() - begin)
        except natsbridge.NATSBridgeError as e:
            say(e.code, e.message, now() - begin, nc.connected)
            if RECONNECT != "True":
                break
    nc.close()


main()
