"""Users' own upload and download handlers, which take and give bytes."""

from binascii import hexlify
from hashlib import sha256

from .errors import (
    DOWNLOAD_FAILED,
    INTEGRITY_ERROR,
    INVALID_ARGUMENT,
    UPLOAD_FAILED,
    NATSBridgeError,
    fail,
)


def upload_by(handler, url, dataname, source, value):
    """The answer of a user's upload handler, with the size and digest of what it was given."""
    if isinstance(value, (bytes, bytearray)):
        data = value
    elif source.size is None:
        raise fail(INVALID_ARGUMENT, "unsized", "an upload handler")
    else:
        data = bytearray(source.size)
        view = memoryview(data)
        at = 0
        source.rewind()
        while at < len(data):
            n = source.readinto(view[at:])
            if not n:
                raise fail(UPLOAD_FAILED, "source", dataname, "it ended early")
            at += n
    try:
        answer = handler(url, dataname, data)
    except NATSBridgeError:
        raise
    except Exception as e:
        raise fail(UPLOAD_FAILED, "handler", "raised", e, dataname)
    if not isinstance(answer, dict) or answer.get("status") != 200 or not answer.get("url"):
        raise fail(UPLOAD_FAILED, "handler", "returned", answer, dataname)
    answer["size"] = len(data)
    answer["sha256"] = str(hexlify(sha256(data).digest()), "utf-8")
    return answer


def download_by(handler, url, max_retries, base_delay, max_delay, correlation_id, size, digest):
    """The bytes that a user's download handler returns, verified."""
    try:
        data = handler(url, max_retries, base_delay, max_delay, correlation_id)
    except NATSBridgeError:
        raise
    except Exception as e:
        raise fail(DOWNLOAD_FAILED, "handler", "raised", e, url)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise fail(DOWNLOAD_FAILED, "handler", "returned", data, url)
    if size is not None and size != len(data):
        raise fail(INTEGRITY_ERROR, "size", url, len(data), size)
    if digest and hexlify(sha256(data).digest()) != digest.lower().encode():
        raise fail(INTEGRITY_ERROR, "digest", url)
    return data
