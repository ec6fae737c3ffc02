"""The device of test_nats_parser.py: takes each sequence of operations in a file, a line of
hexadecimal digits each, in every two pieces, in every three if it is short, byte by byte, and in
random pieces. Prints the events of each as JSON, and in how many ways it was taken."""

import json
import random
import sys
from binascii import hexlify, unhexlify

import parsers_device as parsers

path, seed, most, often = sys.argv[1:]
random.seed(int(seed))


def plain(value):
    """An event as JSON takes it."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(hexlify(value), "utf-8") if isinstance(value, bytes) else value


def ways(size):
    """The sizes of the pieces, in each way to take so many bytes."""
    yield [1] * size
    yield [1, 0] * size
    yield from ([at, 0] for at in range(1, size))
    if size <= int(most):
        for two in range(2, size):
            yield from ([one, two - one] for one in range(1, two))
    for _ in range(int(often)):
        piece = random.choice((1, 3, 20, 100, 600))
        yield [random.randint(0, piece) for _ in range(min(400, 2 * size // piece + 1))]


def main():
    parsers.listen()
    with open(path) as file:
        for line in file:
            data = unhexlify(line.strip())
            whole = parsers.nats(data)
            count = 0
            for sizes in ways(len(data)):
                count += 1
                if parsers.nats(data, sizes) != whole:
                    raise ValueError("%r in pieces of %r" % (data, sizes))
            print(json.dumps([plain(whole), count]))


main()
