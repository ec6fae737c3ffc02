"""The device of test_mixed.py: sends itself messages of every kind, in an order that a seed gives,
and checks what comes."""

import os
import random
import sys

import natsbridge

broker, files, folder = sys.argv[1:4]
seed, count, characters = (int(a) for a in sys.argv[4:7])
MAXIMUM = 500000
NAMES = ("small", "middle", "large")  # files: by link, by link, direct


def kinds(text):
    """(payloads, size_threshold) of each kind; a file is named, and opened when it is sent."""
    table = [{"a": 1, "b": 2.5}] * 10
    return (
        ([("text", "short", "text")], MAXIMUM),
        ([("table", table, "jsontable")], MAXIMUM),
        ([("large", None, "binary")], MAXIMUM),
        ([("middle", None, "binary")], 100000),
        ([("small", None, "binary")], 900),
        ([("text", text, "text")], 500),
        (
            [("small", None, "binary"), ("text", text, "text"), ("d", {"a": [1]}, "dictionary")],
            900,
        ),
    )


def check(payloads, env):
    assert [p[0] for p in payloads] == [p[0] for p in env["payloads"]]
    for i in range(len(payloads)):
        name, value, _ = payloads[i]
        data = env["payloads"][i][1]
        if value is None:
            assert os.stat(data)[6] == os.stat(folder + "/" + name)[6]
            os.remove(data)
        else:
            assert value == data


def main():
    random.seed(seed)
    nc = natsbridge.connect(broker)
    sub = nc.subscribe("mixed")
    for _ in range(count):
        payloads, threshold = random.choice(kinds("x" * characters))
        data = [(n, open(folder + "/" + n, "rb") if v is None else v, t) for n, v, t in payloads]
        natsbridge.smartsend(
            "mixed", data, nats_connection=nc, fileserver_url=files, size_threshold=threshold
        )
        for _, value, _ in data:
            if hasattr(value, "close"):
                value.close()
        data = value = None
        inbox = folder + "/in"
        check(payloads, natsbridge.smartreceive(sub.next(10), sink=inbox, fileserver_url=files))
    print("ok", os.listdir(folder + "/in"))


main()
