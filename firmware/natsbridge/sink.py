"""Where received payloads go: into memory, into the files of a folder, into the user's streams.

A file has a temporary name until all is verified, then a safe and unique one.
"""

import os

from . import log
from .errors import (
    DESERIALIZATION_ERROR,
    INVALID_ARGUMENT,
    PAYLOAD_TOO_LARGE,
    Malformed,
    check,
    fail,
    keep_only,
    make_room,
)
from .payload import BYTE_TYPES, is_table
from .subscription import allocate


class Sink:
    """Opens a target for each payload; `commit` when all is well, else `abandon`.

    sink: None, a folder's path, or ``callable(dataname, payload_type, size) -> stream or None``.
    spool_dir: a folder for payloads of which nothing is known yet.
    limit: bytes that a payload may have, None for what memory allows.
    """

    def __init__(self, sink, spool_dir, limit):
        self.sink = sink if callable(sink) else None
        self.folder = spool_dir if self.sink else sink
        self.limit = limit
        self.files = []
        if limit is not None:
            check("max_payload_size", limit)
        for path in (self.folder, spool_dir):
            try:
                if path is not None and (not path or not os.stat(path)[0] & 0x4000):
                    raise OSError
            except (OSError, TypeError):
                raise fail(INVALID_ARGUMENT, "folder", path)
        if self.folder != log.cleared and self.folder is not None:
            make_room(4096, "receive", "sink")
            from .leftovers import clear

            clear(self.folder)

    def check(self, dataname, size):
        """Raise PAYLOAD_TOO_LARGE if `size` bytes are over the limit."""
        if self.limit is not None and size > self.limit:
            raise fail(PAYLOAD_TOO_LARGE, "limit", dataname, size, self.limit, size=size)

    def open(self, dataname, payload_type, size):
        """The target of a payload of `size` bytes; None for memory, if `size` is None."""
        if self.sink:
            stream = self.sink(dataname, payload_type, size)
            if stream is not None:
                if not hasattr(stream, "write"):
                    raise fail(INVALID_ARGUMENT, "sink", stream)
                return Target(stream)
        elif self.folder is not None and payload_type in BYTE_TYPES:
            return self.temporary()
        if size is None:
            return None
        return Target(allocate(size), memory=True)

    def temporary(self):
        """A target in the folder, under a temporary name."""
        path = "%s/.nb-%s-%s.part" % (self.folder, log.run, log.uuid4()[:8])
        target = Target(open(path, "wb"), path)
        self.files.append(target)
        return target

    def commit(self):
        """Give the files their final names."""
        if self.files:
            make_room(4096, "receive", "sink")
            from .files import commit

            commit(self.folder, self.files)

    def abandon(self):
        """Remove the files; leave nothing half."""
        for f in self.files:
            f.discard()


class Target:
    """What a payload is written to: a user's stream, a file at `path`, or memory.

    data: what the user gets of it, when it is finished.
    """

    def __init__(self, data, path=None, memory=False):
        self.data = data
        self.path = path
        self.memory = memory
        self.at = 0

    def write(self, data):
        """Write all of `data`. Raises OSError, also when the stream takes only a part."""
        n = len(data)
        if self.memory:
            self.data[self.at : self.at + n] = data
            self.at += n
        else:
            try:
                took = self.data.write(data)
            except ValueError as e:  # it is closed
                raise OSError(e)
            # Compared one by one: a tuple would be built each time.
            if took != n and took is not None:
                raise OSError(28)  # ENOSPC, which not every port's errno has

    def rewind(self):
        """Start again: False if it can't, as a user's stream."""
        if self.memory:
            self.at = 0
        elif self.path:
            self.data.close()  # there is no truncate()
            self.data = open(self.path, "wb")
        else:
            return False
        return True

    def finish(self, dataname, payload_type):
        """All is written. Raises DESERIALIZATION_ERROR, MemoryError."""
        if self.memory:
            if self.at < len(self.data):
                self.data[self.at :] = b""
            try:
                data = load(self.data, dataname, payload_type)
            except MemoryError:
                keep_only("receive", "sink", "jsonpull")
                data = load(self.data, dataname, payload_type)
            self.data = data
        elif self.path:
            self.data.close()
            self.data = dataname

    def discard(self):
        """Remove the file."""
        if self.path is None:
            return
        if not isinstance(self.data, str):
            self.data.close()
        try:
            os.remove(self.path)
        except OSError:
            pass  # it is gone already


def load(data, dataname, payload_type):
    """The value in `data` (bytes-like). Raises DESERIALIZATION_ERROR, MemoryError."""
    if payload_type in BYTE_TYPES:
        return data
    try:
        if payload_type == "text":
            if data and max(data) > 127:
                from .strings import check_utf8

                if check_utf8(data, 0):
                    raise Malformed("cut off")
            return str(data, "utf-8")
        from io import BytesIO

        from .jsonpull import JsonPull

        pull = JsonPull(BytesIO(data), bytearray(256))
        value = pull.value(len(data))
        pull.finish()
        if pull.overflow:
            raise Malformed("bad number")
        if payload_type == "dictionary" or is_table(value):
            return value
        why = "no list of objects"
    except Malformed as e:
        why = e
    raise fail(DESERIALIZATION_ERROR, "value", dataname, payload_type, why, dataname=dataname)
