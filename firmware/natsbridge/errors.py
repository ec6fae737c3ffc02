"""The one exception of this package.

Codes of the walkthrough: INVALID_PAYLOAD_TYPE, UPLOAD_FAILED, DOWNLOAD_FAILED,
INVALID_TRANSPORT, NATS_CONNECTION_FAILED, DESERIALIZATION_ERROR.
Ours: PAYLOAD_TOO_LARGE, INVALID_ENVELOPE, INTEGRITY_ERROR, URL_NOT_ALLOWED, INVALID_ARGUMENT.
"""

import gc
import sys

from micropython import const

_ROOM = const(28672)  # bytes of free heap that either direction can do with


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


def fail(code, text, *values, **details):
    """The NATSBridgeError with the message that texts.py has under `text`."""
    gc.collect()
    try:
        from .texts import TEXTS

        message = TEXTS[text] % values
        TEXTS = None
        drop("texts")
    except MemoryError:
        gc.collect()
        message = text + ": no heap left to say more"
    return NATSBridgeError(code, message, details)


# What links need. They share classes, so they go together.
LINK_PARTS = (
    "upload",
    "claim",
    "download",
    "plik",
    "plikadmin",
    "chunked",
    "retry",
    "whole",
    "http",
    "urls",
)


def make_room(*names):
    """Drop these modules if the heap is short."""
    gc.collect()
    if gc.mem_free() < _ROOM:
        drop(*names)
        gc.collect()


def drop(*names):
    """Forget modules that are rarely needed, so that the collector gets their heap back.

    The next import loads them again. It works for modules that are imported inside functions only.
    """
    package = sys.modules[__name__[:-7]]
    for name in names:
        # Not by hasattr(): the package's __getattr__ would load it again.
        if sys.modules.pop(package.__name__ + "." + name, None) and name in package.__dict__:
            delattr(package, name)
