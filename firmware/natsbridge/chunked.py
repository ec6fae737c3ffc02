"""Chunked transfer coding (RFC 9112, 7.1), for bodies whose length nobody knew."""

from micropython import const

_MAX_HEX = const(12)  # digits of a chunk's size
_MAX_LINE = const(4096)  # bytes of a chunk's extensions


def read_size(response):
    """Read the line that opens a chunk (no allocation): the chunk's size, 0 for the last."""
    size = count = 0
    while True:
        c = response.byte()
        digit = c - 48 if c < 58 else (c | 32) - 87
        if not 0 <= digit < 16 or (digit < 10) != (c < 58) or count == _MAX_HEX:
            break
        size = size << 4 | digit
        count += 1
    if not count or c not in (13, 59):
        raise ValueError("a chunk's size is malformed")
    while c != 10:  # after a semicolon: extensions, which nobody needs
        count += 1
        if count > _MAX_LINE:
            raise ValueError("a chunk's extension is too long")
        c = response.byte()
    while not size and response.header():  # trailers
        pass
    return size


def write_chunk(connection, buf, n):
    """Write buf[6:6+n] as a chunk of a chunked body (n < 65,536); buf[:6] and the two bytes
    after the data are overwritten. Like Connection.write."""
    for i in range(4):
        buf[i] = b"0123456789abcdef"[n >> 12 - 4 * i & 15]
    buf[4] = buf[n + 6] = 13
    buf[5] = buf[n + 7] = 10
    return connection.write(buf, 0, n + 8)
