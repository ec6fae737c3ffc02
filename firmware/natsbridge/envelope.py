"""Payloads and their envelope on the way out, never held whole.

Its size is computed first, because NATS wants a message's length before its bytes.
"""

import gc
import json
from binascii import b2a_base64
from collections import OrderedDict

from micropython import const

from .errors import INVALID_ARGUMENT, fail
from .payload import FIELDS, STRINGS

_CHUNK = const(768)  # bytes of payload at a time: 1024 of base64


def envelope_to_json(env):
    """The JSON text of an envelope as smartsend returned it (see EnvelopeJSON), or of an error
    response.

    Raises INVALID_ARGUMENT if a source can't be read again.
    """
    if "payloads" not in env:
        return json.dumps(env)
    from .compose import open_source

    sources = []
    for p in env["payloads"]:
        source = None
        if p["transport"] == "direct":
            source = open_source(p["dataname"], p["data"], p["payload_type"])
            size = source.size or 0
            if source.stream:  # it stands where sending left it
                source.at += size - p["size"]
                source.size = p["size"]
            elif size != p["size"]:
                raise fail(INVALID_ARGUMENT, "rewind", "it has another size now")
        sources.append(source)
    return EnvelopeJSON(env, sources)


class EnvelopeJSON:
    """An envelope as JSON text that is made while it is written.

    ``len()`` is its size in bytes, ``write_to(stream)`` writes it, ``str()`` is all of it. The
    latter two start the payloads' sources again, or raise INVALID_ARGUMENT where they can't.

    sources: a Source for each direct payload, None for each link.
    buf: a bytearray of at least 768 bytes to read through; None: one is allocated.
    size: what len() will be the next time, if it is known; else 0.
    """

    size = 0

    def __init__(self, env, sources, on_progress=None):
        self.env = env
        self.sources = sources
        self.on_progress = on_progress
        self.buf = None

    def link(self, index, value=None):
        """Make a payload a link whose URL is still to come: (source, data), which as `value` makes
        it direct again."""
        p = self.env["payloads"][index]
        before = self.sources[index], p["data"]
        self.sources[index], p["data"] = value or (None, "")
        p["transport"] = "direct" if value else "link"
        p["encoding"] = "base64" if value else "none"
        return before

    def __len__(self):
        size = self.size
        self.size = 0
        return size or self.write(None)

    def __str__(self):
        from io import BytesIO

        out = BytesIO()
        self.write_to(out)
        return str(out.getvalue(), "utf-8")

    def write_to(self, stream):
        """Write the text to a binary stream.

        Raises INVALID_ARGUMENT if a source ends early or fails, with part of the text written.
        """
        for source in self.sources:
            if source:
                source.rewind()
        self.write(stream)

    def write(self, stream):
        """Write to `stream`, or to nowhere: the number of bytes."""
        env = self.env
        # In pieces: after many messages nothing of 1 KB may be free in one.
        total = put(stream, pack(env, STRINGS))
        text = ', "metadata": %s, "payloads": [' % json.dumps(env["metadata"])
        mark = ""
        for p, source in zip(env["payloads"], self.sources):
            text += mark + pack(p, FIELDS) + ', "data": '
            mark = ", "
            if source:
                total += put(stream, text + '"') + (source.size + 2) // 3 * 4
                if stream:
                    self.encode(stream, source, p["dataname"])
                text = '"'
            else:
                text += json.dumps(p["data"])
            text += ', "metadata": %s}' % json.dumps(p["metadata"])
        return total + put(stream, text + "]}")

    def encode(self, stream, source, dataname):
        size = source.size
        buf = memoryview(self.buf or bytearray(_CHUNK))[:_CHUNK]
        fill = source.fill
        write = stream.write
        progress = self.on_progress
        n = _CHUNK
        done = 0
        # Nothing that lasts is allocated here: collecting half as often as is possible is enough.
        # (Not less: what a callback keeps would lie all over the heap. Measured.)
        threshold = gc.threshold()
        gc.collect()
        gc.threshold(gc.mem_free() // 2)
        try:
            while done < size:
                if n > size - done:
                    n = size - done
                    buf = buf[:n]
                fill(buf, n, dataname)
                out = b2a_base64(buf)
                write(out, 0, len(out) - 1)  # not its line end
                out = None  # its place can be had again
                done += n
                if progress:
                    progress(dataname, done, size)
        finally:
            gc.threshold(threshold)


def pack(group, keys):
    """The JSON text of these members of `group`, in this order, without the object's end."""
    some = OrderedDict()
    for key in keys:
        some[key] = group[key]
    return json.dumps(some)[:-1]


def put(stream, text):
    """Write `text` to `stream`, or to nowhere: the number of bytes."""
    text = text.encode()
    if stream:
        stream.write(text)
    return len(text)


class Source:
    """The bytes of `data`, which is bytes-like, or a binary stream from where it stands.

    size: bytes, None where it can't be known (a stream that can't seek).
    """

    def __init__(self, data):
        self.at = 0
        self.stream = None
        if hasattr(data, "readinto"):
            self.stream = data
            self.readinto = data.readinto
            try:
                self.at = data.seek(0, 1)
                self.size = data.seek(0, 2) - self.at
                data.seek(self.at)
            except (OSError, AttributeError, TypeError, ValueError):
                self.size = None
        else:
            self.data = memoryview(data)
            self.size = len(data)

    def readinto(self, buf, n=-1):
        """Read up to `n` bytes into `buf`: their number, 0 at the end."""
        part = self.data[self.at : self.at + (len(buf) if n < 0 else n)]
        buf[: len(part)] = part
        self.at += len(part)
        return len(part)

    def fill(self, buf, n, dataname):
        """Read `n` bytes, all that `buf` takes: their number, less only at the end of what has no
        known size. Raises INVALID_ARGUMENT where they can't be had."""
        at = 0
        while at < n:
            why = "it ended"
            try:
                got = self.readinto(buf[at:] if at else buf)
            except (OSError, ValueError) as e:
                got = None
                why = e
            if not got:
                if got == 0 and self.size is None:
                    break
                raise fail(INVALID_ARGUMENT, "source", dataname, why)
            at += got
        return at

    def rewind(self):
        """Go back to the first byte. Raises INVALID_ARGUMENT where the stream can't."""
        if not self.stream:
            self.at = 0
            return
        try:
            if self.size is None:
                raise OSError("it is not seekable")
            self.stream.seek(self.at)
        except (OSError, ValueError) as e:
            raise fail(INVALID_ARGUMENT, "rewind", e)
