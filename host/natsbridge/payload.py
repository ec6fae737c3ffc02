"""The payload types: which values each takes, and how they become bytes and values again.

DESIGN, "Types". Any type may also be given as bytes-like or as a binary stream, and is then sent
as it is.
"""

from __future__ import annotations

import os
from typing import Any

from natsbridge import arrow, jsontext
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INVALID_PAYLOAD_TYPE,
    NATSBridgeError,
)
from natsbridge.source import Source, bytes_view, is_stream

__all__ = ["BYTE_TYPES", "TYPES", "from_bytes", "from_json", "make_source"]

TYPES = ("text", "dictionary", "arrowtable", "jsontable", "image", "audio", "video", "binary")
#: The types that a folder sink writes to files.
BYTE_TYPES = ("arrowtable", "image", "audio", "video", "binary")
_EXPECTED = {
    "text": "a str, ",
    "dictionary": "a JSON value, ",
    "jsontable": "a list of dicts or a table (as for arrowtable), ",
    "arrowtable": "an Arrow table (pyarrow, pandas or anything with __arrow_c_stream__), ",
}


def _refused(dataname: str, payload_type: str, why: str) -> NATSBridgeError:
    wanted = _EXPECTED.get(payload_type, "")
    return NATSBridgeError(
        INVALID_PAYLOAD_TYPE,
        f"the value of {dataname!r} does not fit the type {payload_type!r}: {why}."
        f" Give {wanted}bytes or a binary stream",
        {"dataname": dataname, "payload_type": payload_type},
    )


def make_source(dataname: str, value: Any, payload_type: str) -> Source:
    """Check a value and make its bytes readable (blocking: tables are serialized, files sought).

    Args:
        dataname: for the messages of errors.
        value: what to send.
        payload_type: one of `TYPES`.

    Raises:
        NATSBridgeError: `INVALID_PAYLOAD_TYPE` for an unknown type or a value that does not match.
    """
    if payload_type not in TYPES:
        raise NATSBridgeError(
            INVALID_PAYLOAD_TYPE,
            f"{dataname!r} has the unknown type {payload_type!r}: use one of {', '.join(TYPES)}",
            {"dataname": dataname, "payload_type": str(payload_type)},
        )
    if payload_type == "arrowtable" and arrow.is_table(value):
        return Source.of_stream(dataname, arrow.write_table(dataname, value), owned=True)
    if payload_type == "jsontable" and arrow.is_table(value):
        return Source.of_stream(dataname, arrow.write_rows(dataname, value), owned=True)
    view = bytes_view(value)
    if view is not None:
        return Source.of_bytes(dataname, view)
    if is_stream(value):
        return Source.of_stream(dataname, value)
    if payload_type == "text":
        if not isinstance(value, str):
            raise _refused(dataname, payload_type, f"it is of type {type(value).__name__}")
        try:
            return Source.of_bytes(dataname, value.encode())
        except UnicodeEncodeError:
            raise _refused(dataname, payload_type, "it holds a lone surrogate") from None
    if payload_type in ("dictionary", "jsontable"):
        if payload_type == "jsontable":
            _check_rows(dataname, value)
        try:
            jsontext.check(value)
        except ValueError as e:
            raise _refused(dataname, payload_type, str(e)) from None
        return Source.of_bytes(dataname, jsontext.dumps(value).encode())
    why = f"it is of type {type(value).__name__}"
    if isinstance(value, (str, os.PathLike)):
        why += ' (a path? then pass open(path, "rb"))'
    raise _refused(dataname, payload_type, why)


def _check_rows(dataname: str, value: object) -> None:
    if not isinstance(value, (list, tuple)):
        raise _refused(dataname, "jsontable", f"it is of type {type(value).__name__}")
    for row in value:
        if not isinstance(row, dict):
            raise _refused(dataname, "jsontable", f"it has a row of type {type(row).__name__}")


def from_bytes(dataname: str, data: bytes, payload_type: str, limit: int) -> Any:
    """Return the value that received bytes stand for (blocking for large ones).

    Args:
        dataname: for the messages of errors.
        data: the payload, complete and verified.
        payload_type: one of `TYPES`.
        limit: bytes that a decoded Arrow table may take.

    Raises:
        NATSBridgeError: `DESERIALIZATION_ERROR`; `PAYLOAD_TOO_LARGE` for an Arrow table.
    """
    if payload_type == "arrowtable":
        return arrow.read_table(dataname, data, limit)
    if payload_type == "text":
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            raise _undecodable(dataname, payload_type, f"is not UTF-8: {e}") from None
    if payload_type in ("dictionary", "jsontable"):
        try:
            return from_json(dataname, jsontext.loads(data), payload_type)
        except ValueError as e:
            raise _undecodable(dataname, payload_type, f"is not JSON: {e}") from None
    return data


def from_json(dataname: str, value: Any, payload_type: str) -> Any:
    """Return a parsed JSON value as plain dicts, lists and scalars.

    Raises:
        NATSBridgeError: `DESERIALIZATION_ERROR` for a jsontable that is no list of objects.
    """
    if payload_type == "jsontable" and not (
        isinstance(value, list) and all(isinstance(row, dict) for row in value)
    ):
        raise _undecodable(dataname, payload_type, "is not a list of objects")
    return jsontext.plain(value)


def _undecodable(dataname: str, payload_type: str, why: str) -> NATSBridgeError:
    return NATSBridgeError(
        DESERIALIZATION_ERROR,
        f"the {payload_type} {dataname!r} {why}",
        {"dataname": dataname, "payload_type": payload_type},
    )
