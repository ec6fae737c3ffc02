"""What both directions share: payload types, the envelope's keys, limits, bytes and subjects.

Subjects are checked here, because the server lets bad ones vanish silently (measured on 2.15.1).
"""

from .errors import INVALID_ARGUMENT, fail

BYTE_TYPES = ("image", "audio", "video", "binary", "arrowtable")
TYPES = ("text", "dictionary", "jsontable") + BYTE_TYPES
STRINGS = (
    "correlation_id",
    "msg_id",
    "timestamp",
    "send_to",
    "msg_purpose",
    "sender_name",
    "sender_id",
    "receiver_name",
    "receiver_id",
    "reply_to",
    "reply_to_msg_id",
    "broker_url",
)
FIELDS = ("id", "dataname", "payload_type", "transport", "encoding", "size")  # before "data"
MAX_FIELD = 1024  # bytes of a string field
MAX_METADATA = 4096  # bytes of metadata as JSON
MAX_PAYLOADS = 64


def is_table(value):
    """Whether `value` is a jsontable: a list of dicts."""
    if not isinstance(value, (list, tuple)):
        return False
    for row in value:
        if not isinstance(row, dict):
            return False
    return True


def flat(data):
    """The bytes-like `data` as single bytes, of which len() is the size (an array counts its
    items). Raises TypeError."""
    if isinstance(data, (bytes, bytearray)):
        return data
    data = memoryview(data)
    return bytes(data) if len(bytes(data[:1])) > 1 else data


def is_subject(subject, wildcards=False):
    """Whether `subject` can be published to (or, with `wildcards`, subscribed to)."""
    if not isinstance(subject, str):
        return False
    data = subject.encode()  # each character of a str would stay in the heap as a name
    if not 0 < len(data) <= 1024 or min(data) <= 32 or 127 in data:
        return False
    words = subject.split(".")
    if not wildcards and ("*" in words or ">" in words):
        return False
    return "" not in words and ">" not in words[:-1]


def check_subject(subject, wildcards=False):
    """Raise INVALID_ARGUMENT if it can't."""
    if not is_subject(subject, wildcards):
        raise fail(INVALID_ARGUMENT, "subject", subject)
