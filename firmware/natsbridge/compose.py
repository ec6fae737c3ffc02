"""What is to be sent, checked, and divided into direct and link; dropped before it is uploaded."""

import json

from micropython import const

from .errors import INVALID_ARGUMENT, INVALID_PAYLOAD_TYPE, PAYLOAD_TOO_LARGE, check, fail
from .log import uuid4
from .payload import (
    BYTE_TYPES,
    MAX_FIELD,
    MAX_METADATA,
    MAX_PAYLOADS,
    STRINGS,
    TYPES,
    flat,
    is_table,
)
from .source import Source, link

_MAX_DEPTH = const(32)
_BIG = 10**63  # integers beyond are longer than the 64 characters a receiver takes
_SHORT = const(384)  # bytes of payloads with which the text is made at once
_LINK = const(640)  # bytes reserved for a URL and digest that are not yet known


def compose(env, data, size_threshold):
    """Put the payloads `data` into the envelope: the Source of each.

    Raises INVALID_ARGUMENT, INVALID_PAYLOAD_TYPE for what a receiver would refuse.
    """
    for key in STRINGS:
        value = env[key]
        if value != "":
            check_field(key, value)
    metadata = env["metadata"]
    if not isinstance(metadata, dict) or (metadata and check_json(metadata, 1)):
        raise fail(INVALID_ARGUMENT, "metadata")
    if env["timestamp"] < "2024":  # older than this line: nobody has set the clock
        env["metadata"] = metadata = dict(metadata, clock="unset")
    if metadata and len(dump(metadata)) > MAX_METADATA:
        raise fail(INVALID_ARGUMENT, "metadata")
    check("size_threshold", size_threshold)
    if not isinstance(data, (list, tuple)) or len(data) > MAX_PAYLOADS:
        raise fail(INVALID_ARGUMENT, "payloads")
    for p in data:
        if not isinstance(p, (list, tuple)) or len(p) != 3:
            raise fail(INVALID_ARGUMENT, "payloads")
        check_field("dataname", p[0])
    sources = []
    for dataname, value, payload_type in data:
        source = open_source(dataname, value, payload_type)
        sources.append(source)
        env["payloads"].append(
            {
                "id": uuid4(),
                "dataname": dataname,
                "payload_type": payload_type,
                "transport": "direct",
                "encoding": "base64",
                "size": source.size,
                "data": value,
                "metadata": {"payload_bytes": source.size},
            }
        )
    return sources


def check_field(key, value):
    if not isinstance(value, str) or len(value.encode()) > MAX_FIELD:
        raise fail(INVALID_ARGUMENT, "field", key, MAX_FIELD)


def dump(value):
    return json.dumps(value, separators=(",", ":")).encode()


def choose_links(msg_json, threshold, max_payload):
    """Make links of what must go by link: {index: what it was}.

    Raises PAYLOAD_TOO_LARGE if not even that fits into `max_payload` bytes.
    """
    links = {}
    env = msg_json.env
    sources = msg_json.sources
    total = 0
    for i in range(len(sources)):
        size = sources[i].size
        if size is None or size >= threshold:
            links[i] = link(env, sources, i)
            size = _SHORT
        total += size
    if total < _SHORT and not links:
        parts = []
        msg_json.size = msg_json.write(parts.append)
        if msg_json.size <= max_payload:
            msg_json._data = b"".join(parts)
    while True:
        size = len(msg_json) + _LINK * len(links)
        if size <= max_payload:
            if not links:
                msg_json.size = size
            return links
        largest = None
        for i in range(len(sources)):
            if sources[i] and (largest is None or sources[i].size > sources[largest].size):
                largest = i
        if largest is None:
            raise fail(PAYLOAD_TOO_LARGE, "payloads", size, max_payload, size=size)
        links[largest] = link(env, sources, largest)


def open_source(dataname, value, payload_type):
    """The Source of a payload.

    Raises INVALID_PAYLOAD_TYPE if the type is unknown or the value does not match it.
    """
    if payload_type not in TYPES:
        raise fail(INVALID_PAYLOAD_TYPE, "type", dataname, payload_type, ", ".join(TYPES))
    if isinstance(value, Source):
        return value
    if not isinstance(value, str):
        try:
            return Source(flat(value))
        except TypeError:
            pass  # not bytes-like
    key = "payload"
    if hasattr(value, "readinto"):
        if not hasattr(value, "read") or not isinstance(value.read(0), str):
            return Source(value)
        key = "stream"
    elif isinstance(value, str):
        if payload_type == "text":
            return Source(value.encode())
        if payload_type == "dictionary":
            return Source(dump(value))
        if payload_type in BYTE_TYPES:
            key = "str"
    elif payload_type != "text" and payload_type not in BYTE_TYPES:
        if payload_type == "dictionary" or is_table(value):
            why = check_json(value)
            if not why:
                return Source(dump(value))
            raise fail(INVALID_PAYLOAD_TYPE, "json", dataname, payload_type, why)
        key = "table"
    raise fail(INVALID_PAYLOAD_TYPE, key, dataname, payload_type, type(value).__name__)


def check_json(value, depth=0):
    """What in `value`, inside `depth` containers, is no JSON value, as text; None: nothing.

    (json.dumps writes nan, objects and bytes as text: measured.)
    """
    path = [iter((value,))]  # an iterator per open container
    while path:
        for v in path[-1]:
            if isinstance(v, dict):
                for key in v:
                    if not isinstance(key, str):
                        return "key %r" % (key,)
                inner = iter(v.values())
            elif isinstance(v, (list, tuple)):
                inner = iter(v)
            elif v is None or isinstance(v, (str, bool)):  # a bool is no int here
                continue
            elif isinstance(v, (int, float)):
                if v - v != 0 or not -_BIG < v < _BIG and isinstance(v, int):
                    return "number %r" % v
                continue
            else:
                return type(v).__name__
            if depth + len(path) > _MAX_DEPTH:
                return "more than 32 levels"
            path.append(inner)
            break
        else:
            path.pop()
    return None
