"""What traces a message: ids, timestamps, and the log in the walkthrough's format.

The log goes to the console, and is off unless ``natsbridge.log.enabled = True``.
"""

import os
import time
from binascii import hexlify

enabled = False
run = ""  # this run of the program, in the names of its temporary files: see leftovers.py
cleared = None  # the folder where such of other runs were looked for last


def trace(correlation_id, text):
    """Print one step of the message with this correlation id."""
    if enabled:
        print("[%s] [Correlation: %s] %s" % (timestamp(), correlation_id, text))


def uuid4():
    """A random UUID as text (RFC 9562, version 4)."""
    b = bytearray(hexlify(os.urandom(18)))
    b[8] = b[13] = b[18] = b[23] = 45  # "-"
    b[14] = 52
    b[19] = b"89ab"[b[19] & 3]
    return str(b, "utf-8")


def timestamp():
    """The time now, ISO 8601 UTC with milliseconds: ``2026-03-13T07:02:50.443Z``.

    Right on ports that count from 1970 and from 2000: gmtime knows its port's epoch.
    """
    ms = time.time_ns() // 1000000
    t = time.gmtime(ms // 1000)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (t[0], t[1], t[2], t[3], t[4], t[5], ms % 1000)
