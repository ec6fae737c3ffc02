"""Payloads and their envelope on the way out, never held whole.

Its size is computed first, because NATS wants a message's length before its bytes.
"""

import gc
import json
from binascii import b2a_base64
from collections import OrderedDict

from micropython import const

from .payload import FIELDS, STRINGS

_CHUNK = const(768)  # bytes of payload at a time: 1024 of base64


class EnvelopeJSON:
    """An envelope as JSON text that is made while it is written.

    ``len()`` is its size in bytes, ``write_to(stream)`` writes it, ``str()`` is all of it. The
    latter two start the payloads' sources again, or raise INVALID_ARGUMENT where they can't.

    sources: a Source for each direct payload, None for each link.
    buf: a bytearray of at least 768 bytes to read through; None: one is allocated.
    size: what len() will be the next time, if it is known; else 0.
    _data: all of it, where it is short and was made already.
    """

    size = 0
    _data = None

    def __init__(self, env, sources, on_progress=None):
        self.env = env
        self.sources = sources
        self.on_progress = on_progress
        self.buf = None

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
        self.write(stream.write)

    def write(self, out):
        """Write by the function `out`, or to nowhere: the number of bytes."""
        env = self.env
        # In pieces: after many messages nothing of 1 KB may be free in one.
        total = put(out, pack(env, STRINGS))
        text = ', "metadata": %s, "payloads": [' % json.dumps(env["metadata"])
        mark = ""
        for p, source in zip(env["payloads"], self.sources):
            text += mark + pack(p, FIELDS) + ', "data": '
            mark = ", "
            if source:
                total += put(out, text + '"') + (source.size + 2) // 3 * 4
                if out:
                    self.encode(out, source, p["dataname"])
                text = '"'
            else:
                text += json.dumps(p["data"])
            text += ', "metadata": %s}' % json.dumps(p["metadata"])
        return total + put(out, text + "]}")

    def encode(self, write, source, dataname):
        left = source.size
        buf = self.buf or bytearray(_CHUNK)
        fill = source.fill
        progress = self.on_progress
        # Nothing that lasts is allocated here: collecting half as often as is possible is enough.
        # (Not less: what a callback keeps would lie all over the heap. Measured.)
        threshold = gc.threshold()
        n = _CHUNK
        if left > n:
            gc.collect()
            gc.threshold(gc.mem_free() // 2)
            while n > 96:
                try:
                    bytearray(n // 3 * 4)
                    break
                except MemoryError:  # what is free is in small pieces
                    n //= 2
        buf = memoryview(buf)[:n]
        try:
            while left > n:
                fill(buf, n, dataname)
                out = b2a_base64(buf)
                write(out, 0, len(out) - 1)  # not its line end
                out = None  # its place can be had again
                left -= n
                if progress:
                    progress(dataname, source.size - left, source.size)
            if left:
                fill(buf[:left], left, dataname)
                write(b2a_base64(buf[:left])[:-1])
                if progress:
                    progress(dataname, source.size, source.size)
        finally:
            gc.threshold(threshold)


def pack(group, keys):
    """The JSON text of these members of `group`, in this order, without the object's end."""
    some = OrderedDict()
    for key in keys:
        some[key] = group[key]
    return json.dumps(some)[:-1]


def put(out, text):
    """Write `text` by `out`, or to nowhere: the number of bytes."""
    text = text.encode()
    if out:
        out(text)
    return len(text)
