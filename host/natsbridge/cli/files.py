"""Files on their way to payloads, and payloads on their way to files.

Types are guessed from a file's name, and can be given: `photo.raw=image`. pyarrow's larger modules
are imported where they are needed: they take as long as the rest of the command.
"""

from __future__ import annotations

import codecs
import json
import mimetypes
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from natsbridge import arrow
from natsbridge.cli.settings import CONFIG
from natsbridge.download import MEMORY_LIMIT
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INVALID_ARGUMENT,
    INVALID_PAYLOAD_TYPE,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)
from natsbridge.payload import TYPES, from_bytes
from natsbridge.sink import FileTarget, safe_name

__all__ = ["TABLE_FORMATS", "Item", "converted", "read_file", "read_table", "received_name", "save"]

#: (dataname, value, payload_type), as smartsend takes it.
Item = tuple[str, Any, str]

#: What `receive --tables` writes.
TABLE_FORMATS = ("parquet", "csv", "arrow", "json")

#: Bytes that any received table may take when it is converted; four times what came, if that is
#: more: our own senders do not compress, and what claims to grow further is a bomb.
TABLE_LEAST = 64 << 20
#: Bytes of a text that are checked at a time.
BLOCK = 1 << 20
#: Cells of a table that rows with different columns may leave empty.
MANY = 1 << 20
#: Bytes of any value on its way to JSON.
CELL = 16


def _split(argument: str) -> tuple[Path, str]:
    """Return the path and the type of `PATH` or `PATH=TYPE`.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` for an unknown type.
    """
    path, mark, kind = argument.rpartition("=")
    if not mark or Path(argument).exists():
        return Path(argument), ""
    if kind not in TYPES:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{argument}: {kind!r} is no type; use one of {', '.join(TYPES)}"
        )
    return Path(path), kind


def _unreadable(path: Path, e: object) -> NATSBridgeError:
    why = getattr(e, "strerror", None) or e
    return NATSBridgeError(INVALID_ARGUMENT, f"{path} cannot be read: {why}")


def read_file(argument: str) -> Item:
    """Return the payload of `--file PATH[=TYPE]`; the file is open, and read when it is sent.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`.
    """
    path, given = _split(argument)
    guess = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
    kind = given or (guess if guess in ("image", "audio", "video", "text") else "binary")
    try:
        if kind == "text" and path.is_file():
            try:
                check_text(path)
            except NATSBridgeError as e:
                if given:
                    raise _unreadable(path, f"{e.message}; send it as {path}=binary") from None
                kind = "binary"  # text of another encoding
        elif kind in ("dictionary", "jsontable", "arrowtable") and path.is_file():
            try:
                from_bytes(path.name, path.read_bytes(), kind, MEMORY_LIMIT)
            except NATSBridgeError as e:
                raise _unreadable(path, e.message) from None
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
                value = _table_of(value)
        elif suffix == ".csv":
            value = pyarrow.csv.read_csv(path)
            for field in value.schema:
                if pa.types.is_binary(field.type):
                    raise ValueError(f"column {field.name!r} is no UTF-8: save it as UTF-8 first")
        elif suffix == ".parquet":
            from pyarrow import parquet

            value = parquet.read_table(path)
        elif suffix in (".arrow", ".feather"):
            value = _read_arrow(path)
        else:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{path} is no table that can be read: use .csv, .parquet, .arrow or .json",
            )
    except (
        *(OSError, ValueError, TypeError, ArithmeticError),
        *(RecursionError, AttributeError, pa.ArrowException),
    ) as e:
        raise _unreadable(path, e) from None
    kind = kind or ("jsontable" if suffix == ".json" else "arrowtable")
    return path.stem, value, kind


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _table_of(values: list[dict[str, Any]]) -> pa.Table:
    """Return rows as a table with every column that any of them has.

    Raises:
        ValueError, TypeError, ArithmeticError, pa.ArrowException: where they do not go together.
    """
    names = dict.fromkeys(name for row in values for name in row)
    cells = sum(map(len, values))
    if len(names) * len(values) > 4 * cells + MANY:
        raise ValueError("its rows have too little in common")
    return pa.table({name: [row.get(name) for row in values] for name in names})


def expanded(array: pa.Array, least: int) -> int:
    """Return at most how many bytes an array's values take where each is written out.

    A few bytes can stand for a value a million times: in a dictionary, in runs, in views.

    Args:
        array: what will be written.
        least: bytes of a value at least, also of null.
    """
    kind, count = array.type, len(array)
    size = count * least
    if pa.types.is_dictionary(kind):
        size += count * _longest(array.dictionary, least)
    elif pa.types.is_run_end_encoded(kind):
        size += count * _longest(array.values, least)
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = memoryview(array.buffers()[1]).cast("B").cast("i")  # each begins with its length
        size += sum(views[4 * array.offset : 4 * (array.offset + count) : 4])
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        size += count * expanded(array.values, least)
    elif pa.types.is_struct(kind):
        size += sum(expanded(inner, least) for inner in array.flatten())
        size += count * sum(len(field.name) for field in kind)
    elif pa.types.is_union(kind):
        size += count * sum(expanded(array.field(i), least) for i in range(kind.num_fields))
    elif pa.types.is_map(kind):
        size += expanded(array.keys, least) + expanded(array.items, least)
    elif pa.types.is_nested(kind):
        size += expanded(array.flatten(), least)
    else:
        size = max(size, array.nbytes)
    return size


def _longest(values: pa.Array, least: int) -> int:
    """Return at most how many bytes one of some values takes."""
    if pa.types.is_primitive(values.type) or not len(values):
        return 16
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        import pyarrow.compute as pc

        return int(pc.max(pc.binary_length(values)).as_py() or 0)
    return expanded(values, least)


def _check_size(table: pa.Table, form: str, limit: int) -> None:
    least = CELL if form == "json" else 1
    chunks = [chunk for column in table.columns for chunk in column.chunks]
    size = table.num_rows * least + sum(expanded(chunk, least) for chunk in chunks)
    if form == "json":  # where every row names every column
        size += table.num_rows * sum(map(len, table.column_names))
    if size > limit:
        text = f"as {form} it may take {size} bytes, more than {limit}"
        raise NATSBridgeError(PAYLOAD_TOO_LARGE, text)


def _without_views(table: pa.Table) -> pa.Table:
    """Return a table, such as polars makes, with texts that CSV can be written of."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):
            text = table.column(i).cast(pa.large_string())
            table = table.set_column(i, field.name, text)
    return table


def table_bytes(table: pa.Table, form: str, limit: int | None = None) -> bytes:
    """Return a table as the content of a file in one of `TABLE_FORMATS` (blocking).

    Args:
        table: what to write.
        form: the format.
        limit: bytes that it may take on the way; None: it comes from somebody who is trusted.

    Raises:
        NATSBridgeError: `INVALID_PAYLOAD_TYPE` where that format cannot hold it,
            `PAYLOAD_TOO_LARGE`.
    """
    sink = pa.BufferOutputStream()
    try:
        if limit is not None and form != "arrow":
            _check_size(table, form, limit)
        if form == "parquet":
            from pyarrow import parquet

            parquet.write_table(table, sink)
        elif form == "csv":
            pyarrow.csv.write_csv(_without_views(table), sink)
        elif form == "arrow":
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        else:
            arrow.write_json(table.to_reader(), sink, ",\n")
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as e:
        raise NATSBridgeError(
            INVALID_PAYLOAD_TYPE,
            f"the table cannot be written as {form}: {e}. Choose another --tables",
        ) from None
    content: bytes = sink.getvalue().to_pybytes()
    return content


def received_name(dataname: str, kind: str, tables: str = "") -> str:
    """Return the name for a received payload, with a suffix that tells what is in the file.

    Never one that a program takes for something else: an option, or this command's configuration.

    Args:
        dataname: what the sender calls it.
        kind: its payload type.
        tables: the format that a table was written in; "": it is as it came.
    """
    if tables:
        dataname = _suffixed(dataname, f".{tables}")
    elif kind == "arrowtable":
        dataname = _suffixed(dataname, ".arrow")
    elif kind in ("dictionary", "jsontable"):
        dataname = _suffixed(dataname, ".json")
    elif kind == "text" and not Path(dataname).suffix:
        dataname += ".txt"
    name = safe_name(dataname)
    return "_" + name if name.startswith("-") or name.casefold() == CONFIG else name


def check_text(path: Path) -> None:
    """Check that a file is UTF-8 (blocking). Raises `DESERIALIZATION_ERROR`."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with path.open("rb") as file:
        try:
            while block := file.read(BLOCK):
                decode(block)
            decode(b"", True)
        except UnicodeDecodeError as e:
            raise NATSBridgeError(DESERIALIZATION_ERROR, f"it is no UTF-8 text ({e})") from None


def converted(path: Path, kind: str, tables: str) -> bytes | None:
    """Check a received value, and return what its file should hold instead (blocking).

    Args:
        path: the payload as it came.
        kind: "text", "dictionary", "jsontable" or "arrowtable".
        tables: the format for tables.

    Returns:
        The table in that format, or None: it stays as it is.

    Raises:
        NATSBridgeError: `DESERIALIZATION_ERROR`, `PAYLOAD_TOO_LARGE`, and as `table_bytes`.
    """
    if kind == "text":
        check_text(path)
        return None
    if path.stat().st_size > MEMORY_LIMIT:
        raise NATSBridgeError(PAYLOAD_TOO_LARGE, "it is more than memory should hold")
    data = path.read_bytes()
    limit = min(max(TABLE_LEAST, 4 * len(data)), MEMORY_LIMIT)
    value = from_bytes(path.name, data, kind, limit)
    if kind == "arrowtable":
        return table_bytes(value, tables, limit)
    if kind == "dictionary" or tables == "json" or not value:
        return None
    try:
        table = _table_of(value)
        if not table.num_columns:
            return None
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as e:
        raise NATSBridgeError(
            INVALID_PAYLOAD_TYPE, f"its rows do not make a table of {tables}: {e}"
        ) from None
    return table_bytes(table, tables)


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
