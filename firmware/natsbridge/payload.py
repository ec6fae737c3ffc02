"""What both directions share: payload types, the envelope's keys, and limits."""

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
