"""What is legal in an envelope but not of our own senders' making: data before its siblings, the
encoding json, escapes in base64, error responses. Loaded when it comes."""

import json
from io import BytesIO

from .errors import DESERIALIZATION_ERROR, INVALID_ENVELOPE, Malformed, fail
from .jsonpull import JsonPull
from .payload import BYTE_TYPES
from .reader import check_field, check_type
from .stream import find


def hold(reader, item):
    """Read a string of which nothing else is known: True if it is now held in item["data"], False
    if item["target"] is open for the base64 to come."""
    pull = reader.pull
    if _string_fits(pull):
        item["data"] = pull.string(len(reader.pull.buf))
        return True
    if item.get("transport") == "link" or find(pull.buf, b"://", 0, 16) >= 0:
        raise Malformed("bad data")
    if item.get("encoding") == "json" or pull.peek() in b'{["\\':  # JSON text, not base64
        item["data"] = pull.string(reader.size)
        return True
    sink = reader.sink
    if sink.folder is not None:
        item["target"] = sink.temporary()
    elif sink.sink:
        raise fail(INVALID_ENVELOPE, "spool")
    else:
        item["target"] = sink.open("", "", (reader.size - pull.tell()) // 4 * 3)
    item["spooled"] = True
    return False


def _string_fits(pull):
    """Fill the buffer: whether the string at its beginning ends in it."""
    pull.fill()
    at = -1
    while True:
        at = find(pull.buf, b'"', at + 1, pull.end)
        if at < 0:
            return False
        slashes = 0
        while slashes < at and pull.buf[at - 1 - slashes] == 92:  # a backslash
            slashes += 1
        if not slashes & 1:
            return True


def settle_held(reader, item):
    """Decode the base64 that was held, now that its siblings are known."""
    name = item["dataname"]
    data = item["data"]
    if type(data) is not str:
        raise Malformed("bad data")
    item["target"] = reader.sink.open(name, item["payload_type"], (len(data) + 3) // 4 * 3)
    pull = JsonPull(BytesIO(data.encode() + b'"'), reader.pull.buf)
    reader.decode(pull, item)
    if "\\" in data or not pull.at_end():
        raise fail(DESERIALIZATION_ERROR, "base64", name)


def unspool(sink, item):
    """Bring the base64 that was spooled to where it belongs, now that its siblings are known."""
    spooled = item["target"]
    if sink.folder is None or (not sink.sink and item["payload_type"] in BYTE_TYPES):
        return
    item["target"] = to = sink.open(item["dataname"], item["payload_type"], item["count"])
    spooled.data.close()
    with open(spooled.path, "rb") as f:
        buf = bytearray(1024)
        while True:
            n = f.readinto(buf)
            if not n:
                break
            to.write(buf if n == len(buf) else memoryview(buf)[:n])
    spooled.discard()
    spooled.path = None


def settle_json(reader, item):
    """The value itself, or the text of it, where `size` is only a limit."""
    name = item["dataname"]
    data = item["data"]
    n = item.get("count")
    if "target" in item or (item["payload_type"] == "text" and type(data) is not str):
        raise Malformed("bad data")
    if type(data) is not str:
        data = json.dumps(data)
    data = data.encode()
    reader.count(item, n or len(data), item.get("size"))
    item["target"] = reader.sink.open(name, item["payload_type"], len(data))
    item["target"].write(data)


def check_error(env):
    """Check and complete an error response."""
    check_type(env, "error", dict)
    error = env["error"]
    env["error"] = error = {
        "code": error.get("code"),
        "message": "" if error.get("message") is None else error["message"],
        "details": {} if error.get("details") is None else error["details"],
    }
    check_field("code", error["code"] or None)
    check_field("message", error["message"])
    check_type(error, "details", dict)
    if env.get("payloads"):
        raise Malformed("bad error")
    env["payloads"] = []
