"""Headers of a message: what may be sent, and what came.

A line break in one would start another header or end them all, so every name and value is
checked here. What others sent is taken as it is: it is no reason to lose a message.
"""

from __future__ import annotations

import re

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = ["check_headers", "parse_headers"]

#: A token, as in HTTP.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Any control character but a tab.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS = " \t\r\n\v\f"
#: Bytes around all headers, and around each.
_FRAME = len(b"NATS/1.0\r\n\r\n")
_SEPARATORS = len(b": \r\n")


def check_headers(headers: object) -> int:
    """Return how many bytes the headers of a message take; None and {} are no headers.

    Args:
        headers: None, or a dict of str to str. Names are tokens as in HTTP; values hold no control
            characters but tabs, and lose blanks at their ends.

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
                f"the header {name} must be a str without line breaks and control characters",
            ) from None
    return size


def parse_headers(block: bytes | None) -> tuple[dict[str, str] | None, int, str]:
    """Return the headers in what stands before a payload, the status and its description.

    Of a name that stands twice, the last counts.

    Args:
        block: "NATS/1.0", perhaps a status, and the headers, in lines; None where nothing stands.
    """
    if block is None or not block.startswith(b"NATS/1.0"):
        return None, 0, ""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    words = first[len("NATS/1.0") :].strip(_BLANKS)
    code, description = words[:3], words[3:]
    status = 0
    if len(code) == 3 and code.isascii() and code.isdigit() and description[:1] in ("", " "):
        status = int(code)
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip(_BLANKS)] = value.strip(_BLANKS)
    return headers, status, description.strip(_BLANKS) if status else ""
