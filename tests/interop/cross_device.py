"""Sends or receives the same messages on either side: firmware, or natsbridge.sync on CPython.

Called with "send" or "receive", the URLs of broker and file server, and a folder. The receiver
prints "ready", and then a line of JSON for each message.
"""

import hashlib
import json
import sys
from binascii import hexlify

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

WHAT, BROKER, FILES, FOLDER = sys.argv[1:5]


def file(name):
    return open(FOLDER + "/" + name, "rb")


def plain(value, kind):
    """A received value as JSON. Arrow is a table on the host, and bytes on the firmware."""
    if kind == "arrowtable":
        return "a table" if hasattr(value, "to_pydict") else len(value) > 100
    if isinstance(value, (bytes, bytearray, memoryview)):
        return [len(value), str(hexlify(hashlib.sha256(bytes(value)).digest()), "utf-8")]
    return value


def every():
    return [
        ("text", "Grüße, 世界 🙂\n\x00", "text"),
        ("dictionary", {"a": [1, -2.5, None, True, {"ü": 'x\n"\\\u2028'}]}, "dictionary"),
        ("jsontable", [{"x": 1, "y": "ä"}, {"x": 2, "z": None}], "jsontable"),
        ("image.jpg", file("image"), "image"),
        ("audio", b"\x00\xff" * 500, "audio"),
        ("video", bytearray(b"abc"), "video"),
        ("binary", b"", "binary"),
        ("table", file("arrow"), "arrowtable"),
    ]


#: Options of a message of every type, and data and options of others.
MESSAGES = (
    (None, {}),
    (None, {"size_threshold": 0}),
    (None, {"size_threshold": 1000}),
    ([], {"msg_purpose": "ACK", "reply_to": "x.y", "reply_to_msg_id": "m", "metadata": {"é": 1}}),
    ([("for you", b"abc", "binary")], {"receiver_id": "receiver-1", "size_threshold": 0}),
    ([("for all", b"abc", "binary")], {"size_threshold": 0}),
)


def send():
    nc = natsbridge.connect(BROKER, name="sender", id="sender-1")
    for data, options in MESSAGES:
        if data is None:
            data = every()
        natsbridge.smartsend("cross", data, nats_connection=nc, fileserver_url=FILES, **options)
    nc.flush()
    nc.close()


def receive():
    nc = natsbridge.connect(BROKER, name="receiver", id="receiver-1")
    sub = nc.subscribe("cross")
    nc.flush()
    print("ready")
    for _ in MESSAGES:
        msg = sub.next(20)
        urls = []
        for p in json.loads(bytes(msg.data))["payloads"]:
            if p["transport"] == "link":
                urls.append(p["data"])
        env = natsbridge.smartreceive(msg, fileserver_url=FILES)
        env["payloads"] = [
            [name, plain(value, kind), kind] for name, value, kind in env["payloads"]
        ]
        for key in ("correlation_id", "msg_id", "timestamp"):
            env[key] = len(env[key])
        gone = 0
        for url in urls:
            try:
                natsbridge.fetch_with_backoff(url, 1)
            except natsbridge.NATSBridgeError:
                gone += 1
        print(json.dumps([[[key, env[key]] for key in sorted(env)], len(urls), gone]))
    nc.close()


if WHAT == "send":
    send()
else:
    receive()
