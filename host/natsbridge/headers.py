"""Which headers may go with a message.

A line break in one would start another header or end them all, so every name and value is
checked here.
"""

from __future__ import annotations

import re

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = ["check_headers"]

#: A token, as in HTTP.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Any control character.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Bytes around all headers, and around each.
_FRAME = len(b"NATS/1.0\r\n\r\n")
_SEPARATORS = len(b": \r\n")


def check_headers(headers: object) -> int:
    """Return how many bytes the headers of a message take; None and {} are no headers.

    Args:
        headers: None, or a dict of str to str. Names are tokens as in HTTP; values hold no control
            characters, and lose blanks at their ends.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`.
    """
    if headers is None or headers == {}:
        return 0
    if not isinstance(headers, dict):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"headers must be a dict, not {type(headers).__name__}"
        )
    size = _FRAME
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{ascii(name)[:80]} is no header name: letters, digits and dashes make one",
            )
        try:
            if not isinstance(value, str) or _CONTROL.search(value):
                raise ValueError
            size += len(name) + len(value.encode()) + _SEPARATORS
        except ValueError:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"the header {name} must be a str without line breaks and control characters, not"
                f" {ascii(value)[:80]}",
            ) from None
    return size
