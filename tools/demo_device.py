"""The demo's device: a MicroPython program as it would run on a board.

Called with the folder of its files, a folder for what it receives, and what to send: pairs of a
file's name and its payload type. It tells what it does on stdout, a line each, for demo.py.
"""

import gc
import json
import sys
from binascii import hexlify
from hashlib import sha256

import natsbridge

gc.threshold(1024)

folder, received = sys.argv[1:3]
peak = 0
calls = 0


def digest(path):
    h = sha256()
    buf = bytearray(1024)
    with open(path, "rb") as f:
        while True:
            n = f.readinto(buf)
            if not n:
                return str(hexlify(h.digest()), "utf-8")
            h.update(memoryview(buf)[:n])


def progress(name, done, total):
    """Report now and then, with the live heap at that moment."""
    global peak, calls
    calls += 1
    if calls & 63 == 1 or done == total:
        gc.collect()
        peak = max(peak, gc.mem_alloc())
        print("progress", done, total, name)


def send(nc, data, **options):
    options["receiver_name"] = "desktop"
    natsbridge.smartsend("demo.desktop", data, nats_connection=nc, **options)


def main():
    global peak
    files = sys.argv[3:]
    data = []
    if len(files) > 2:
        readings = [{"sensor": "t%d" % (i % 4), "celsius": 20 + i % 7} for i in range(3)]
        data.append(("greeting", "Hello from the device", "text"))
        data.append(("status", {"uptime": 42, "relay": {"on": True}}, "dictionary"))
        data.append(("readings", readings, "jsontable"))
        readings = None
        for name, value, kind in data:
            if kind != "text":  # the bytes that smartsend makes of it
                value = json.dumps(value, separators=(",", ":"))
            print("digest", str(hexlify(sha256(value.encode()).digest()), "utf-8"), name)
    for i in range(0, len(files), 2):
        path = folder + "/" + files[i]
        print("digest", digest(path), files[i])
        data.append((files[i], open(path, "rb"), files[i + 1]))

    nc = natsbridge.connect(name="device")
    sub = nc.subscribe("demo.device")
    print("online")
    send(nc, data, on_progress=progress, correlation_id="demo-1")
    data = None
    print("heap", peak)

    peak = 0
    msg = sub.next(20)
    env = natsbridge.smartreceive(msg, sink=received, on_progress=progress)
    print("heap", peak)
    answer = {}
    for name, value, kind in env["payloads"]:
        answer[name] = value if kind == "dictionary" else digest(value)
    send(
        nc,
        [("received", answer, "dictionary")],
        msg_purpose="ACK",
        correlation_id=env["correlation_id"],
        reply_to_msg_id=env["msg_id"],
    )
    nc.close()


main()
