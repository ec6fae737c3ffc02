"""The NATS client protocol (docs.nats.io, "Client Protocol"; the details measured on 2.15.1).

Nothing here touches a socket: lines come in as bytes. Subjects are checked here, because the
server lets bad ones vanish silently.
"""

import json

from .errors import INVALID_ARGUMENT, Malformed, fail

MAX_LINE = 65536  # bytes; INFO grows with connect_urls, so no tighter than this


def parse_info(line):
    """The dict in an ``INFO {...}`` line."""
    try:
        info = json.loads(line[5:]) if line[:5].upper() == b"INFO " else None
    except ValueError:
        info = None
    if not isinstance(info, dict) or not isinstance(info.get("max_payload", 0), int):
        raise Malformed("no NATS server: it said %r" % line[:32])
    return info


def parse_msg(line):
    """(subject, sid, reply, header_size, size) of a ``MSG`` or ``HMSG`` line; sizes in bytes,
    `size` with the headers.

    ``MSG <subject> <sid> [reply] <size>``, ``HMSG <subject> <sid> [reply] <header size> <size>``;
    fields may be two spaces apart where the reply is empty.
    """
    words = line.split()
    sizes = 2 if words[0].upper() == b"HMSG" else 1
    reply = len(words) - 3 - sizes
    good = reply == 0 or reply == 1
    for word in (words[2], words[-1], words[-sizes]) if good else ():
        # A size of more than 10 digits is a lie: the largest max_payload is 64 MiB.
        good = good and word.isdigit() and len(word) <= 10
    if not good or int(words[-sizes]) > int(words[-1]):
        raise Malformed("malformed %r" % line[:64])
    return (
        str(words[1], "utf-8"),
        int(words[2]),
        str(words[3], "utf-8") if reply else "",
        int(words[-2]) if sizes == 2 else 0,
        int(words[-1]),
    )


def flat(data):
    """The bytes-like `data` as single bytes, of which len() is the size (an array counts its
    items). Raises TypeError."""
    if isinstance(data, (bytes, bytearray)):
        return data
    data = memoryview(data)
    return bytes(data) if len(bytes(data[:1])) > 1 else data


def is_subject(subject, wildcards=False):
    """Whether `subject` can be published to (or, with `wildcards`, subscribed to)."""
    if not isinstance(subject, str) or not 0 < len(subject) <= 1024:
        return False
    words = subject.split(".")
    for word in words:
        if not word or (word in ("*", ">") and not wildcards):
            return False
        for c in word:
            if c <= " " or c == "\x7f":
                return False
    return ">" not in words[:-1]


def check_subject(subject, wildcards=False):
    """Raise INVALID_ARGUMENT if it can't."""
    if not is_subject(subject, wildcards):
        raise fail(INVALID_ARGUMENT, "subject", subject)
