"""The one exception of the package, and its codes.

NATSBridgeError
    `code` says what kind of failure it is, `message` what happened, to what, and what to do,
    `details` holds values a program can act on (url, status, attempts, sizes, correlation_id).

The first six codes are the walkthrough's (section "Error Handling"), the others are ours
(DESIGN, section "Errors").
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

__all__ = [
    "CODES",
    "DESERIALIZATION_ERROR",
    "DOWNLOAD_FAILED",
    "INTEGRITY_ERROR",
    "INVALID_ARGUMENT",
    "INVALID_ENVELOPE",
    "INVALID_PAYLOAD_TYPE",
    "INVALID_TRANSPORT",
    "NATS_CONNECTION_FAILED",
    "PAYLOAD_TOO_LARGE",
    "STREAM_FAILED",
    "UPLOAD_FAILED",
    "URL_NOT_ALLOWED",
    "NATSBridgeError",
    "new_uuid",
    "utc_timestamp",
]

#: The type is unknown, or the value does not match it. Nothing was sent.
INVALID_PAYLOAD_TYPE = "INVALID_PAYLOAD_TYPE"
#: The file server did not take a payload, and it could not go inside the message either.
UPLOAD_FAILED = "UPLOAD_FAILED"
#: A link payload could not be fetched.
DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
#: A received payload is neither "direct" nor "link".
INVALID_TRANSPORT = "INVALID_TRANSPORT"
#: The broker cannot be reached, refuses us, or went away.
NATS_CONNECTION_FAILED = "NATS_CONNECTION_FAILED"
#: The bytes are not what the payload type promises.
DESERIALIZATION_ERROR = "DESERIALIZATION_ERROR"
#: Larger than a limit allows.
PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
#: The message is not an envelope.
INVALID_ENVELOPE = "INVALID_ENVELOPE"
#: Size or digest differ from what the envelope says.
INTEGRITY_ERROR = "INTEGRITY_ERROR"
#: The message names a URL that the receiver was not told to trust.
URL_NOT_ALLOWED = "URL_NOT_ALLOWED"
#: A call was made with an argument that cannot work.
INVALID_ARGUMENT = "INVALID_ARGUMENT"
#: A stream, or its consumer, is not there or does not do what it was asked for.
STREAM_FAILED = "STREAM_FAILED"

CODES = (
    INVALID_PAYLOAD_TYPE,
    UPLOAD_FAILED,
    DOWNLOAD_FAILED,
    INVALID_TRANSPORT,
    NATS_CONNECTION_FAILED,
    DESERIALIZATION_ERROR,
    PAYLOAD_TOO_LARGE,
    INVALID_ENVELOPE,
    INTEGRITY_ERROR,
    URL_NOT_ALLOWED,
    INVALID_ARGUMENT,
    STREAM_FAILED,
)


def utc_timestamp() -> str:
    """Return the time now as ISO 8601 UTC with milliseconds and `Z` (DESIGN, "The API")."""
    second, ms = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_date_time(second)}.{ms:03}Z"


@lru_cache(maxsize=1)
def _date_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def new_uuid() -> str:
    """Return a random UUID (version 4), in a third of the time of the module `uuid`."""
    number = int.from_bytes(os.urandom(16), "big")
    text = f"{number & ~(0xF000C << 60) | 0x40008 << 60:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class NATSBridgeError(Exception):
    """Everything that goes wrong in this package.

    Args:
        code: one of `CODES`.
        message: what happened, to what, and what to do.
        details: values for programs; must be JSON values.
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def to_dict(self, send_to: str = "") -> dict[str, Any]:
        """Return the walkthrough's error response ("Error Response Format").

        Args:
            send_to: the subject that the response will be published to.
        """
        return {
            "correlation_id": str(self.details.get("correlation_id", "")),
            "msg_id": new_uuid(),
            "timestamp": utc_timestamp(),
            "send_to": send_to,
            "error": {"code": self.code, "message": self.message, "details": dict(self.details)},
        }
