"""The NATS client protocol (docs.nats.io, "Client Protocol"; the details measured on 2.15.1).

Nothing here touches a socket: lines come in as bytes. Subjects are checked here, because the
server lets bad ones vanish silently.
"""

from .errors import INVALID_ARGUMENT, fail

MAX_LINE = 65536  # bytes; INFO grows with connect_urls, so no tighter than this


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
