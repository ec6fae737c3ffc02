"""The device of test_vectors_firmware.py: runs on MicroPython, one case a line on stdin.

A line is {"receive": options, "who": who} or {"send": [subject, data, options], "who": who}; the
answer is a result of vectors.py on a line of stdout. Bytes come in files, because a JSON text
can't carry them.
"""

import hashlib
import io
import json
import sys
from binascii import hexlify

import natsbridge

URL = sys.argv[1]


class Object:
    pass


def special(name):
    """A value that JSON cannot state."""
    nan = float("nan")
    cycle = []
    cycle.append(cycle)
    return {
        "nan": nan,
        "inf": float("inf"),
        "minus_inf": -float("inf"),
        "nested_nan": {"a": [1, nan]},
        "object": Object(),
        "nested_object": {"a": [Object()]},
        "int_key": {1: "a"},
        "null_key": {None: "a"},
        "nested_bytes": ["a", b"b"],
        "set": {1},
        "cycle": cycle,
        "tuple": (1, (2,)),
        "table_nan": [{"a": nan}],
        "table_int_key": [{1: "a"}],
        "table_bytes": [{"a": b"b"}],
    }[name]


def value_of(spec):
    if not isinstance(spec, dict):
        return spec
    if "special" in spec:
        return special(spec["special"])
    if "json" in spec:
        return spec["json"]
    form = spec["form"]
    if form == "stream":
        return open(spec["file"], "rb")
    if form == "text_stream":
        return open(spec["file"])
    with open(spec["file"], "rb") as f:
        data = f.read()
    return str(data, "utf-8") if form == "text" else data


def digest(data):
    return {"size": len(data), "sha256": str(hexlify(hashlib.sha256(data).digest()), "utf-8")}


def describe(value, payload_type):
    if payload_type == "text":
        return digest(value.encode()) if isinstance(value, str) else {"not text": repr(value)}
    if payload_type in ("dictionary", "jsontable"):
        return {"json": value}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return digest(value)
    return {"not bytes": repr(value)}


def fill(value):
    """`value` with its {"special": name} objects replaced."""
    if isinstance(value, dict):
        if len(value) == 1 and "special" in value:
            return special(value["special"])
        return {key: fill(item) for key, item in value.items()}
    return value


def run(nc, sub, case):
    if "send" in case:
        subject, data, options = case["send"]
        if isinstance(data, list):
            data = [
                tuple(value_of(part) if i == 1 else part for i, part in enumerate(item))
                if isinstance(item, list)
                else item
                for item in data
            ]
        options = {key: fill(item) for key, item in options.items()}
        natsbridge.smartsend(subject, data, nats_connection=nc, **options)
        nc.flush()
        return {"sent": True}
    msg = sub.next(10)
    env = natsbridge.smartreceive(msg, nats_connection=nc, **case["receive"])
    payloads = [[name, describe(value, kind), kind] for name, value, kind in env["payloads"]]
    env["payloads"] = None
    return {"payloads": payloads, "fields": env}


def main():
    nc = natsbridge.connect(URL)
    sub = nc.subscribe("conformance.receive")
    nc.flush()
    print("ready")
    while True:
        line = sys.stdin.readline()
        if not line:
            break
        case = json.loads(line)
        mine, mysub = nc, sub
        if case["who"]:
            mine = natsbridge.connect(URL, **case["who"])
        try:
            result = run(mine, mysub, case)
        except natsbridge.NATSBridgeError as e:
            result = {"error": e.code, "message": e.message}
        except Exception as e:
            out = io.StringIO()
            sys.print_exception(e, out)
            result = {"error": "a crash", "message": out.getvalue()}
        finally:
            if mine is not nc:
                mine.close()
        # Not by json.dumps: a value that is not JSON would pass through it unseen.
        sys.stdout.write(json.dumps(result) + "\n")


main()
