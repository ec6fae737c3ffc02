"""The one exception of this package, its codes, and the room that the heap needs."""

import gc
import sys

from micropython import const

# Codes of the walkthrough. (A name costs the heap less than a string of more than 10 characters.)
INVALID_PAYLOAD_TYPE = "INVALID_PAYLOAD_TYPE"
UPLOAD_FAILED = "UPLOAD_FAILED"
DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
INVALID_TRANSPORT = "INVALID_TRANSPORT"
NATS_CONNECTION_FAILED = "NATS_CONNECTION_FAILED"
DESERIALIZATION_ERROR = "DESERIALIZATION_ERROR"
# Ours.
PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
INVALID_ENVELOPE = "INVALID_ENVELOPE"
INTEGRITY_ERROR = "INTEGRITY_ERROR"
URL_NOT_ALLOWED = "URL_NOT_ALLOWED"
INVALID_ARGUMENT = "INVALID_ARGUMENT"

_RESERVE = const(16384)  # bytes of free heap that any step can do with, its code loaded
_PIECE = const(2048)  # bytes of it that must be in one piece
_PLACES = const(97)  # no fewer than sys.modules has
_TEXTS = const(10752)  # bytes of free heap that texts.py needs
_ALWAYS = ("client", "errors", "log", "payload", "stream", "subscription")

working = 0  # calls of smartsend and smartreceive that have begun and not ended
_seen = None  # what was needed when make_room last looked, all of it loaded, and how many modules


class Malformed(ValueError):
    """What came is not what its protocol says: NATS, JSON, or the envelope."""


class NATSBridgeError(Exception):
    """What went wrong (``code``), to what and what to do (``message``), and with which values
    (``details``, a dict that JSON can carry)."""

    def __init__(self, code, message, details=None):
        super().__init__(code + ": " + message)
        self.code = code
        self.message = message
        self.details = details or {}

    def to_dict(self, send_to=""):
        """The walkthrough's error response, to be sent to the subject `send_to`."""
        from .nack import response

        return response(self, send_to)


# The table of modules gets its size here, and fail() what was its place, the first of the heap:
# what lies there is never collected (its address is the heap's own, which the collector finds on
# the stack: measured on 1.29), and a module would keep all of its code.
for key in range(9):
    sys.modules[key] = None
for key in range(9):
    del sys.modules[key]


def fail(code, key, *values, **details):
    """The NATSBridgeError with the message that texts.py has for `key` under `code`; where the heap
    is too short for that, it is the key with the values."""
    gc.collect()
    try:
        if gc.mem_free() < _TEXTS:  # an import that fails half-way can leave its heap taken
            raise MemoryError
        from .texts import text

        key = text(code, key, values)
    except MemoryError:
        gc.collect()
        try:
            key = "%s %s" % (key, values)
        except MemoryError:
            pass  # the key alone, then
    try:
        drop("texts")
        return NATSBridgeError(code, key, details)
    except MemoryError:
        keep_only()
        return NATSBridgeError(code, key, details)


def check(name, value, start=0, kind=None):
    """Raise INVALID_ARGUMENT unless the argument of that name is an int, or of the type `kind`, and
    at least `start`, but not infinite."""
    if type(value) not in (int, kind) or value < start or value - value != 0:
        raise fail(INVALID_ARGUMENT, "limit", name, value, start)


def check_type(nc, function=None):
    """Raise INVALID_ARGUMENT unless they are a connection and a function, or nothing."""
    if (nc and not hasattr(nc, "scratch")) or (function and not callable(function)):
        raise fail(INVALID_ARGUMENT, "kinds")


def make_room(size, *needed):
    """Drop what is needed neither now nor always, if the heap is short: if less is free than `size`
    bytes, or than a working reserve where the parts `needed` are loaded already.

    Returns a list of a piece of the heap, to be kept while these are loaded: they get the smaller
    pieces. To let it go, clear the list: what is only forgotten may still lie on a stack: measured.
    """
    global _seen
    try:
        if _seen == (needed, len(sys.modules)) and bytearray(_PIECE // 8):
            return []  # as the last time
    except MemoryError:
        pass
    gc.collect()
    package = __name__[:-6]
    loaded = needed
    for part in needed:
        if package + part not in sys.modules:
            loaded = None
            break
    else:
        size = _RESERVE
    try:
        bytearray(_PIECE)
        gc.collect()  # its place is the first to be used again
    except MemoryError:  # what is free is in small pieces
        size = 1 << 30
    if gc.mem_free() < size:
        keep_only(*needed)
    _seen = loaded and (loaded, len(sys.modules))
    try:
        return [bytearray(_PIECE * 3 // 4)]
    except MemoryError:
        return []


def keep_only(*needed):
    """Drop what is needed neither now nor always."""
    package = __name__[:-6]
    part = working < 2  # what a callback interrupted must stay
    while part:  # without a list of them, for which a full heap has no room
        for name in sys.modules:
            part = name[len(package) :]
            if name.startswith(package) and part not in needed and part not in _ALWAYS:
                drop(part, name)
                break
        else:
            part = ""
    # What an import that failed has loaded stays in its place in the table, too (measured): a
    # number takes each in turn.
    for i in range(_PLACES):
        sys.modules[i] = None
        del sys.modules[i]
    gc.collect()


def drop(name, path=None):
    """Forget a module that is rarely needed, so that the collector gets its heap back. path: its
    whole name.

    The next import loads it again. It works for modules that are imported inside functions only.
    """
    global _seen
    _seen = None
    path = path or __name__[:-6] + name
    # What is removed from a table stays in its place until another takes that, and with a module
    # all of its code (measured on 1.29): first None takes it.
    if path in sys.modules:
        sys.modules[path] = None
        del sys.modules[path]
    package = sys.modules[__name__[:-7]]
    if name in package.__dict__:  # (hasattr() would load it again, by __getattr__)
        setattr(package, name, None)
        delattr(package, name)
