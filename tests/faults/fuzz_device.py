"""The device of test_fuzz.py: gives its parsers the inputs in a file, each a line of the size of
its pieces (0: one piece) and hexadecimal digits. Prints for each what came of it, and at last how
many ms the slowest took."""

import sys
import time
from binascii import unhexlify

import parsers_device as parsers

target, path = sys.argv[1:]


def steps(size):
    """The sizes of pieces, for ever."""
    while True:
        yield size
        yield 0


def nats(data, sizes):
    parsers.nats(data, sizes)


def http(data, sizes):
    return parsers.download(data.split(b"\n====\n"), sizes, 3)


def upload(data, sizes):
    return parsers.upload(data.split(b"\n====\n"), sizes)


def envelope(data, sizes):
    return parsers.envelope(data, sizes, (FILE,))


ROOM = 16384  # bytes of heap that each begins with, as a connection does
KNOWN = ("UPLOAD_FAILED",) + parsers.CODES  # noqa: RUF005 # not on 1.19
FILE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nABC"
run = {"nats": nats, "http": http, "upload": upload, "envelope": envelope}[target]


def main():
    slowest = 0
    with open(path) as file:
        for line in file:
            size, data = line.split(",")
            data = unhexlify(data.strip())
            size = int(size)
            parsers.errors.make_room(ROOM)
            start = time.ticks_ms()
            try:
                result = run(data, steps(size) if size else ())
                print(result if isinstance(result, str) and result in KNOWN else "taken")
            except Exception as e:
                print("%s: %s" % (type(e).__name__, e))
            slowest = max(slowest, time.ticks_diff(time.ticks_ms(), start))
    print(slowest)


main()
