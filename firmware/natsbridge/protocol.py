"""The NATS client protocol (docs.nats.io, "Client Protocol"; the details measured on 2.15.1).

Nothing here touches a socket: lines come in as bytes. Subjects are checked here, because the
server lets bad ones vanish silently.
"""

from .errors import INVALID_ARGUMENT, Malformed, fail

MAX_LINE = 65536  # bytes; INFO grows with connect_urls, so no tighter than this


def parse_msg(line):
    """(subject, sid, reply, header_size, size) of a ``MSG`` or ``HMSG`` line; sizes in bytes,
    `size` with the headers.

    ``MSG <subject> <sid> [reply] <size>``, ``HMSG <subject> <sid> [reply] <header size> <size>``;
    fields may be two spaces apart where the reply is empty.
    """
    words = line.split()
    more = len(words[0]) - 3  # 1 for HMSG
    n = len(words) - more
    if n == 4 or n == 5:
        head = words[-2] if more else b"0"
        sid = words[2]
        size = words[-1]
        # A size of more than 10 digits is a lie: the largest max_payload is 64 MiB.
        if head.isdigit() and sid.isdigit() and size.isdigit() and len(size) < 11 > len(sid):
            head = int(head)
            size = int(size)
            if head <= size:
                reply = str(words[3], "utf-8") if n == 5 else ""
                return str(words[1], "utf-8"), int(sid), reply, head, size
    raise Malformed("malformed %r" % line[:64])


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
