"""The one exception of the package, and its codes.

NATSBridgeError
    `code` says what kind of failure it is, `message` what happened, to what, and what to do,
    `details` holds values a program can act on (url, status, attempts, sizes, correlation_id).

The first six codes are the walkthrough's (section "Error Handling"), the others are ours
(DESIGN, section "Errors").
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
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
    "UPLOAD_FAILED",
    "URL_NOT_ALLOWED",
    "NATSBridgeError",
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
)


def utc_timestamp() -> str:
    """Return the time now as ISO 8601 UTC with milliseconds and `Z` (DESIGN, "The API")."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


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
            "msg_id": str(uuid.uuid4()),
            "timestamp": utc_timestamp(),
            "send_to": send_to,
            "error": {"code": self.code, "message": self.message, "details": dict(self.details)},
        }
