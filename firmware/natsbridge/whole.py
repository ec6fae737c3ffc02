"""A download into memory, for those who want bytes."""

import gc
import hashlib
import io

from micropython import const

from .errors import PAYLOAD_TOO_LARGE

_RESERVE = const(4096)  # bytes of heap that a file in memory must leave free


def read_whole(connection, job):
    """The body of an answer, as bytes. Raises PAYLOAD_TOO_LARGE for more than the heap can hold,
    and as `job.check` and `job.end` do."""
    length = connection.response.length
    body = _Body()
    body.connection = connection
    body.check = job.check
    body.at = 0
    gc.collect()
    try:
        if length is not None and length + _RESERVE > gc.mem_free():
            raise MemoryError
        data = _read(body) if length is None else _read(body, length)
    except MemoryError:
        free = gc.mem_free()
        raise job.error(PAYLOAD_TOO_LARGE, "it does not fit the heap (%d bytes free)" % free)
    job.end(len(data), hashlib.sha256(data))
    return data


class _Body(io.IOBase):
    """A body as a stream for C to read from."""

    def readinto(self, buf):
        n = self.connection.readinto(buf, len(buf))
        self.at += n
        self.check(self.at)
        return n


# read() of every stream in C: it fills the bytes that it returns through readinto(). So they are
# allocated once; a bytearray made into bytes takes its size twice.
_read = io.BytesIO.__dict__["read"]
