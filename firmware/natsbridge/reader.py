"""The envelope reader: keys in any order, payloads streamed to their targets as they come.

What "data" is can be known only from its siblings. Where they came first, it is decoded straight
into its target; where not, foreign.py holds or spools it.
"""

import gc
from binascii import a2b_base64

from micropython import const

from .errors import (
    DESERIALIZATION_ERROR,
    INTEGRITY_ERROR,
    INVALID_ENVELOPE,
    INVALID_PAYLOAD_TYPE,
    INVALID_TRANSPORT,
    Malformed,
    fail,
)
from .jsonpull import JsonPull
from .payload import BYTE_TYPES, FIELDS, MAX_FIELD, MAX_METADATA, MAX_PAYLOADS, STRINGS, TYPES

_MAX_SIZE = const(9007199254740992)  # 2**53, what every JSON reader holds exactly
_TEXT = const(6146)  # bytes of JSON text that a field of 1,024 bytes can have, escaped
_EQUALS = const(61)
_QUOTE = const(34)
_LBRACE = const(123)


class EnvelopeReader:
    """Reads one envelope of `size` bytes from `source` (``readinto(buf, n)``), and delivers its
    direct payloads into targets of `sink`.

    buf: a bytearray to read through, of 4 n bytes and at least 1 KB; None to allocate one.
    """

    def __init__(self, source, size, sink, on_progress=None, buf=None):
        # A multiple of 4, so that a full buffer is decoded as it is.
        self.pull = JsonPull(source, buf or bytearray(1024))
        self.size = size
        self.sink = sink
        self.on_progress = on_progress
        self.env = {}  # what is read of the envelope, not yet checked

    def read(self):
        """The envelope, with a dict per payload whose "target" is filled if it is direct, and
        whose "data" is the URL if it is a link.

        Raises the codes that tests/conformance/PROTOCOL.md gives for each fault.
        """
        pull = self.pull
        try:
            env = pull.value(self.size, 0, True, self.member)
            pull.finish()
            self.check(env)
            for item in env["payloads"]:
                self.settle(item)
            return env
        except Malformed as e:
            why = e
        raise fail(INVALID_ENVELOPE, "envelope", self.size, why)

    def check(self, env):
        """Check and complete the fields of the envelope itself."""
        if self.pull.overflow:
            raise Malformed("bad number")
        if type(env) is not dict:
            raise Malformed("no object")
        for key in STRINGS:
            if env.get(key) is None:
                env[key] = ""
            check_field(key, env[key])
        if env.get("metadata") is None:
            env["metadata"] = {}
        if env.get("error") is not None:
            from .foreign import check_error

            check_error(env)
        else:
            env.pop("error", None)
        check_type(env, "payloads", list)
        check_type(env, "metadata", dict)

    def member(self, path, keys):
        """Read the value of the last key if it has a limit of its own, or is not for us."""
        pull = self.pull
        depth = len(path)
        box = path[-1]
        key = keys[-1]
        limit = _TEXT
        if depth == 1:
            self.env = box
            known = key in STRINGS or key == "payloads" or key == "metadata" or key == "error"
            if key == "metadata" or key == "error":
                limit = MAX_METADATA
        elif keys[0] == "error":
            known = key == "code" or key == "message" or key == "details"
            limit = MAX_METADATA
        elif keys[0] != "payloads":
            return False
        elif depth == 3:
            known = key == "data" or key == "metadata" or key in FIELDS
            if len(path[1]) == MAX_PAYLOADS:
                raise Malformed("too many")
        else:
            known = depth == 4 and (key == "sha256" or key == "removable")
        if not known:
            pull.value(0, depth, False)
            return True
        if key in box:
            raise Malformed(key + " twice")
        if depth == 3 and key == "data":
            self.data(box)
        elif key == "payloads" or (depth == 3 and key == "metadata"):
            return False
        elif key == "error" and pull.token() == _LBRACE:
            return False
        else:
            box[key] = pull.value(limit, depth)
        return True

    def data(self, item):
        """Read "data": decoded into item["target"], or held in item["data"]."""
        pull = self.pull
        item["data"] = None
        known = True
        for key in FIELDS[1:]:
            known = known and item.get(key) is not None
        if known:
            self.check_item(item)
        if pull.token() != _QUOTE:
            n = pull.tell()
            item["data"] = pull.value(self.size, 3)
            item["count"] = pull.tell() - n
            if pull.overflow:
                raise fail(DESERIALIZATION_ERROR, "value", "", "JSON", "a number is too large")
            return
        pull.pos += 1
        if known and item["transport"] == "link":
            item["data"] = pull.string(MAX_FIELD)
            return
        if known and item["encoding"] != "json":
            item["target"] = self.sink.open(item["dataname"], item["payload_type"], item["size"])
        else:
            from .foreign import hold

            if hold(self, item):
                return
        threshold = gc.threshold()  # as in envelope.py
        gc.collect()
        gc.threshold(gc.mem_free() // 2)
        try:
            self.decode(pull, item)
        finally:
            gc.threshold(threshold)

    def check_item(self, item):
        """Required keys, type, transport, encoding and size, in this order."""
        for key in FIELDS[:5]:
            v = item.get(key)
            if v is None and (key == "id" or key == "encoding"):
                continue
            check_field(key, v)
        name = item["dataname"]
        payload_type = item["payload_type"]
        transport = item["transport"]
        direct = transport == "direct"
        if payload_type not in TYPES:
            raise fail(INVALID_PAYLOAD_TYPE, "type", name, payload_type, ", ".join(TYPES))
        if not direct and transport != "link":
            raise fail(INVALID_TRANSPORT, "transport", name, transport)
        encoding = item.get("encoding") or ("base64" if direct else "none")
        if not direct:
            good = encoding == "none"
        elif encoding == "json":
            good = payload_type not in BYTE_TYPES
        else:
            good = encoding == ("arrow-ipc" if payload_type == "arrowtable" else "") or (
                encoding == "base64"
            )
        if not good:
            raise Malformed("bad encoding")
        item["encoding"] = encoding
        size = item.get("size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= _MAX_SIZE:
                raise Malformed("bad size")
            self.sink.check(name, size)
            if direct and encoding != "json" and size > self.size // 4 * 3:
                raise fail(INTEGRITY_ERROR, "claim", name, size, self.size)

    def settle(self, item):
        """The envelope is read: bring what was held or spooled to its target."""
        if type(item) is not dict or "data" not in item:
            raise Malformed("bad data")
        self.check_item(item)
        if item.get("metadata") is None:
            item["metadata"] = {}
        check_type(item, "metadata", dict)
        metadata = item["metadata"]
        digest = metadata.get("sha256")
        if digest is not None and (
            type(digest) is not str or len(digest) != 64 or digest.strip("0123456789abcdefABCDEF")
        ):
            raise Malformed("bad sha256")
        if metadata.get("removable") is not None:
            check_type(metadata, "removable", bool)
        if item["transport"] == "link":
            check_field("data", item["data"])
            return
        name = item["dataname"]
        size = item.get("size")
        if item["encoding"] == "json":
            from .foreign import settle_json

            settle_json(self, item)
        else:
            if "target" not in item:
                from .foreign import settle_held

                settle_held(self, item)
            if size is not None and item["count"] != size:
                raise fail(INTEGRITY_ERROR, "size", name, item["count"], size)
            if "spooled" in item:
                from .foreign import unspool

                unspool(self.sink, item)
        item["target"].finish(name, item["payload_type"])

    def count(self, item, n, size):
        """Check `n` bytes against what was said and what is allowed."""
        name = item.get("dataname") or ""
        if type(size) is int and n > size:
            raise fail(INTEGRITY_ERROR, "size", name, n, size)
        self.sink.check(name, n)

    def decode(self, pull, item):
        """Decode the rest of a base64 string into item["target"]; its bytes in item["count"]."""
        name = item.get("dataname")
        write = item["target"].write
        size = item.get("size")
        most = self.size  # the limit that comes first
        for limit in (size, self.sink.limit):
            if type(limit) is int and limit < most:  # what came early is not checked yet
                most = limit
        progress = self.on_progress
        buf = pull.buf
        step = len(buf)
        count = 0
        padded = 0
        ends = False  # whether what may end it is looked for
        while True:
            if not ends and pull.end - pull.pos < 4:
                pull.fill()
            stop = pull.plain_end() if ends else pull.end
            n = min(step, stop - pull.pos) & ~3
            if n:
                part = buf if n == len(buf) else pull.view[pull.pos : pull.pos + n]
                try:
                    out = b"" if padded else a2b_base64(part)
                except ValueError:
                    out = b""
                except MemoryError:  # what is free is in small pieces
                    step //= 2
                    if step < 64:
                        raise
                    continue
                # Junk is skipped and padding ends the decoding (measured): the length tells.
                if len(out) != n // 4 * 3:
                    if not ends:
                        ends = True
                        continue
                    if part[n - 1] == _EQUALS and part[n - 3] != _EQUALS:
                        padded = 2 if part[n - 2] == _EQUALS else 1
                    if not padded or len(out) != n // 4 * 3 - padded:
                        if pull is self.pull and min(part) < 32:
                            raise Malformed("bad string")
                        raise fail(DESERIALIZATION_ERROR, "base64", name)
                count += len(out)
                if count > most:
                    self.count(item, count, size)
                write(out)
                out = None  # its place can be had again
                pull.pos += n
                if progress:
                    progress(name, count, size)
            elif not ends:
                ends = True
            elif stop == pull.end:
                if not pull.fill():
                    raise Malformed("cut off")
            elif buf[stop] == _QUOTE and stop == pull.pos:
                pull.pos += 1
                item["count"] = count
                return
            else:
                from .strings import fold_escape

                if buf[stop] == _QUOTE or not fold_escape(pull, stop):
                    raise fail(DESERIALIZATION_ERROR, "base64", name)


def check_field(key, v):
    """Raise Malformed unless the value of `key` is a string of at most 1,024 bytes."""
    if type(v) is not str or len(v.encode()) > MAX_FIELD:
        raise Malformed("bad " + key)


def check_type(env, key, kind):
    """Raise Malformed unless ``env[key]`` is a `kind`."""
    if type(env.get(key)) is not kind:
        raise Malformed("bad " + key)
