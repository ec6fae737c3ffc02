"""Files on their way to payloads, and payloads on their way to files.

Types are guessed from a file's name, and can be given: `photo.raw=image`.
"""

from __future__ import annotations

import json
import mimetypes
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from natsbridge import jsontext
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INVALID_ARGUMENT,
    INVALID_PAYLOAD_TYPE,
    NATSBridgeError,
)
from natsbridge.payload import TYPES
from natsbridge.sink import FileTarget

__all__ = ["TABLE_FORMATS", "Item", "read_file", "read_table", "save", "table_bytes", "value_file"]

#: (dataname, value, payload_type), as smartsend takes it.
Item = tuple[str, Any, str]

#: What `receive --tables` writes.
TABLE_FORMATS = ("parquet", "csv", "arrow", "json")


def _split(argument: str) -> tuple[Path, str]:
    """Return the path and the type of `PATH` or `PATH=TYPE`."""
    path, mark, kind = argument.rpartition("=")
    return (Path(path), kind) if mark and kind in TYPES else (Path(argument), "")


def _unreadable(path: Path, e: object) -> NATSBridgeError:
    why = getattr(e, "strerror", None) or e
    return NATSBridgeError(INVALID_ARGUMENT, f"{path} cannot be read: {why}")


def read_file(argument: str) -> Item:
    """Return the payload of `--file PATH[=TYPE]`; the file is open, and read when it is sent.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`.
    """
    path, kind = _split(argument)
    if not kind:
        kind = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
        kind = kind if kind in ("image", "audio", "video", "text") else "binary"
    try:
        return path.name, path.open("rb"), kind
    except OSError as e:
        raise _unreadable(path, e) from None


def read_table(argument: str) -> Item:
    """Return the payload of `--table PATH[=TYPE]`: a .csv, .parquet, .arrow or .json file.

    It is an arrowtable, which desktops open best; .json is a jsontable, which devices can read.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, `INVALID_PAYLOAD_TYPE`.
    """
    path, kind = _split(argument)
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            value: Any = json.loads(path.read_text(encoding="utf-8"))
            if kind == "arrowtable":
                value = pa.Table.from_pylist(value)
        elif suffix == ".csv":
            value = pyarrow.csv.read_csv(path)
        elif suffix == ".parquet":
            value = pyarrow.parquet.read_table(path)
        elif suffix in (".arrow", ".feather"):
            value = _read_arrow(path)
        else:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{path} is no table that can be read: use .csv, .parquet, .arrow or .json",
            )
    except (OSError, ValueError, TypeError, pa.ArrowException) as e:
        raise _unreadable(path, e) from None
    kind = kind or ("jsontable" if suffix == ".json" else "arrowtable")
    if kind == "jsontable" and isinstance(value, pa.Table):
        value = rows(value)
    return path.stem, value, kind


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows as JSON can carry them: dates and the like as text."""
    result: list[dict[str, Any]] = json.loads(json.dumps(table.to_pylist(), default=str))
    return result


def table_bytes(table: pa.Table, form: str) -> bytes:
    """Return a table as the content of a file in one of `TABLE_FORMATS` (blocking).

    Raises:
        NATSBridgeError: `INVALID_PAYLOAD_TYPE` where that format cannot hold it.
    """
    sink = pa.BufferOutputStream()
    try:
        if form == "parquet":
            pyarrow.parquet.write_table(table, sink)
        elif form == "csv":
            pyarrow.csv.write_csv(table, sink)
        elif form == "arrow":
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        else:
            return json.dumps(rows(table), ensure_ascii=False, indent=1).encode()
    except (pa.ArrowException, ValueError, TypeError) as e:
        raise NATSBridgeError(
            INVALID_PAYLOAD_TYPE,
            f"the table cannot be written as {form}: {e}. Choose another --tables",
        ) from None
    content: bytes = sink.getvalue().to_pybytes()
    return content


def value_file(dataname: str, value: Any, kind: str, tables: str) -> tuple[str, bytes]:
    """Return the file name and content for a payload that is a value (blocking).

    Raises:
        NATSBridgeError: as `table_bytes`.
    """
    stem = dataname
    if kind == "text":
        return _suffixed(stem, ".txt"), value.encode()
    if kind == "arrowtable":
        return _suffixed(stem, f".{tables}"), table_bytes(value, tables)
    if kind == "jsontable" and tables != "json":
        try:
            table = pa.Table.from_pylist(value)
        except (pa.ArrowException, ValueError, TypeError):
            pass  # rows that do not go together: they stay what they are
        else:
            if table.num_columns:
                return _suffixed(stem, f".{tables}"), table_bytes(table, tables)
    try:
        return _suffixed(stem, ".json"), jsontext.dumps(value).encode()
    except (ValueError, UnicodeEncodeError) as e:
        raise NATSBridgeError(DESERIALIZATION_ERROR, f"{dataname!r} cannot be saved: {e}") from None


def _suffixed(name: str, suffix: str) -> str:
    return name if name.lower().endswith(suffix) else name + suffix


def save(folder: str | os.PathLike[str], name: str, content: bytes) -> Path:
    """Write a file under a safe, unique name made of `name`: nothing, or all of it (blocking).

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` where the folder has no room or cannot be written.
    """
    target = FileTarget(folder, name)
    try:
        target.write(content)
        return Path(target.commit())
    except BaseException:
        target.discard()
        raise
