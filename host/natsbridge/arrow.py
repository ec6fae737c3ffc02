"""Arrow tables: written as an uncompressed IPC stream, read as stream or file format.

A received table is measured before pyarrow builds it. A few KB of compressed buffers can claim
hundreds of MB, and a forged length a TiB (FACTS, "Receivers have been attacked through"), so
`decoded_size` walks the messages itself: framing as in the Arrow columnar format ("IPC
Streaming Format"), metadata as flatbuffers (Message.fbs). pyarrow then checks every offset
(`validate(full=True)`), because it maps buffers without comparing them with the lengths.

A table can also be sent as a jsontable: `write_rows` makes rows of it.
"""

from __future__ import annotations

import math
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from json.encoder import encode_basestring
from typing import IO, Any

import pyarrow as pa

from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INVALID_PAYLOAD_TYPE,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)
from natsbridge.jsontext import MAX_NUMBER

__all__ = ["decoded_size", "is_table", "read_table", "write_json", "write_rows", "write_table"]

#: Bytes of a serialized table that stay in memory; more goes to a temporary file.
SPOOL = 16 << 20
#: What starts (and ends) the file format; the stream format follows, padded to 8 bytes.
_FILE_MAGIC = b"ARROW1\0\0"
#: Rows that are made JSON at a time.
ROWS = 4096
#: What pandas calls an index without a name, which is no column.
_INDEX = re.compile(r"__index_level_[0-9]+__")
_LISTS = (
    *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    *(pa.types.is_list_view, pa.types.is_large_list_view),
)
_CONTINUATION = 0xFFFFFFFF
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3


def is_table(value: object) -> bool:
    """Tell whether `write_table` and `write_rows` can take `value`."""
    return (
        isinstance(value, (pa.Table, pa.RecordBatch, pa.RecordBatchReader))
        or hasattr(value, "__arrow_c_stream__")
        or _is_pandas(value)
    )


def _is_pandas(value: object) -> bool:
    # pandas before 2.2 has no __arrow_c_stream__; pandas is not imported to find out.
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def _reader(value: Any) -> pa.RecordBatchReader:
    if isinstance(value, pa.RecordBatchReader):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(value.schema, [value])
    if isinstance(value, pa.Table):
        return value.to_reader()
    if hasattr(value, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(value)
    return pa.Table.from_pandas(value).to_reader()


def write_table(dataname: str, value: Any) -> IO[bytes]:
    """Serialize a table into a temporary file, positioned at its start (blocking).

    Args:
        dataname: for the message of an error.
        value: a pyarrow Table, RecordBatch or RecordBatchReader, anything with
            `__arrow_c_stream__`, or a pandas DataFrame.

    Raises:
        NATSBridgeError: `INVALID_PAYLOAD_TYPE` where Arrow cannot represent it.
    """

    def write(reader: pa.RecordBatchReader, spool: IO[bytes]) -> None:
        options = pa.ipc.IpcWriteOptions(compression=None)
        sink = pa.PythonFile(spool, mode="w")
        with pa.ipc.new_stream(sink, reader.schema, options=options) as writer:
            for batch in reader:
                writer.write_batch(batch)

    return _spooled(dataname, "an Arrow table", value, write)


def _spooled(
    dataname: str,
    what: str,
    value: Any,
    write: Callable[[pa.RecordBatchReader, IO[bytes]], None],
) -> IO[bytes]:
    """Have `write` write a table into a temporary file."""
    spool: Any = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115 the caller closes
    try:
        write(_reader(value), spool)
        spool.seek(0)
    except (pa.ArrowException, TypeError, ValueError) as e:
        spool.close()
        raise NATSBridgeError(
            INVALID_PAYLOAD_TYPE, f"{dataname!r} cannot be written as {what}: {e}"
        ) from e
    except BaseException:
        spool.close()
        raise
    result: IO[bytes] = spool
    return result


def write_rows(dataname: str, value: Any) -> IO[bytes]:
    """Write a table as a JSON list of its rows into a temporary file, as `write_table` does.

    An index of pandas without a name is left out.

    Raises:
        NATSBridgeError: `INVALID_PAYLOAD_TYPE`, naming the column, for what JSON cannot represent.
    """
    return _spooled(dataname, "a jsontable", value, write_json)


def write_json(reader: pa.RecordBatchReader, sink: IO[bytes], separator: str = ",") -> None:
    """Write rows as a JSON list of objects, with `separator` between them.

    Missing values and NaN become null; dates and times ISO 8601 text, in UTC where they have a time
    zone; decimals numbers; structs objects.

    Raises:
        ValueError, pa.ArrowException: for what JSON cannot represent.
    """
    kept = [i for i, name in enumerate(reader.schema.names) if not _INDEX.fullmatch(name)]
    names = [reader.schema.names[i] for i in kept]
    written = 0
    sink.write(b"[")
    for batch in reader:
        for start in range(0, batch.num_rows, ROWS):
            piece = batch.slice(start, ROWS)
            rows = _objects(names, [piece.column(i) for i in kept], piece.num_rows)
            sink.write(((separator if written else "") + separator.join(rows)).encode())
            written += len(rows)
    sink.write(b"]")


def _column(name: str, column: pa.Array) -> list[str]:
    """Return a column's values as JSON text."""
    try:
        return _texts(column)
    except (pa.ArrowException, ValueError) as e:
        raise ValueError(f"column {name!r}: {e}") from e


def _texts(array: pa.Array) -> list[str]:
    """Return values as JSON text; those of lists and structs are made of their parts'."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _texts(array.storage)
    if pa.types.is_dictionary(kind):
        values = array.dictionary
        if pa.types.is_string_view(values.type):  # which pyarrow cannot pick from
            values = values.cast(pa.large_string())
        return _texts(pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode())
    if pa.types.is_struct(kind):
        rows = _objects([field.name for field in kind], array.flatten(), len(array))
        valid = array.is_valid().to_pylist()
        return [row if there else "null" for row, there in zip(rows, valid, strict=True)]
    if any(is_list(kind) for is_list in _LISTS):
        parts = iter(_texts(array.flatten()))
        lengths = array.value_lengths().to_pylist()
        return ["null" if n is None else f"[{','.join(islice(parts, n))}]" for n in lengths]
    text = _text_of(kind)
    return ["null" if value is None else text(value) for value in _plain(array).to_pylist()]


def _objects(names: list[str], columns: list[pa.Array], count: int) -> list[str]:
    """Return rows as JSON objects."""
    if not columns:
        return ["{}"] * count
    texts = []
    for name, column in zip(names, columns, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"two columns are called {name!r}")
        key = encode_basestring(name) + ":"
        texts.append([key + text for text in _column(name, column)])
    return ["{" + ",".join(row) + "}" for row in zip(*texts, strict=True)]


def _plain(array: pa.Array) -> pa.Array:
    """Return an array in a type whose values have a text."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        # The same instants without their zone, so that no database of time zones is needed.
        return array.view(pa.timestamp(kind.unit)).cast(pa.string())
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return array.cast(pa.string())
    return array.cast(pa.float32()) if pa.types.is_float16(kind) else array


def _text_of(kind: pa.DataType) -> Callable[[Any], str]:
    """Return what makes JSON text of a value of an array that was made `_plain`."""
    types = pa.types
    if types.is_timestamp(kind):
        zone = "" if kind.tz is None else "Z"
        return lambda value: f'"{value.replace(" ", "T")}{zone}"'
    if types.is_date(kind) or types.is_time(kind):
        return lambda value: f'"{value}"'
    if types.is_boolean(kind):
        return lambda value: "true" if value else "false"
    if types.is_floating(kind):
        return _float_text
    if types.is_decimal(kind):
        return _decimal_text
    if types.is_integer(kind) or types.is_null(kind):
        return str
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return encode_basestring
    raise ValueError(f"JSON has nothing like {kind}")


def _float_text(value: float) -> str:
    if math.isinf(value):
        raise ValueError("it holds infinity, which is not JSON")
    return "null" if math.isnan(value) else repr(value)


def _decimal_text(value: Any) -> str:
    text = format(value, "f")
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number of {len(text)} characters, more than {MAX_NUMBER}")
    return text


class _Flat:
    """One flatbuffers table: field `n` at the offset that its vtable names."""

    def __init__(self, data: memoryview, position: int) -> None:
        self.data = data
        self.position = position
        self.vtable = position - self._unpack("<i", position)
        self.fields = (self._unpack("<H", self.vtable) - 4) // 2

    def _unpack(self, layout: str, position: int) -> int:
        if position < 0:
            raise ValueError("an offset before the start")
        value: int = struct.unpack_from(layout, self.data, position)[0]
        return value

    @classmethod
    def root(cls, data: memoryview) -> _Flat:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _field(self, n: int) -> int:
        if n >= self.fields:
            return 0
        offset = self._unpack("<H", self.vtable + 4 + 2 * n)
        return self.position + offset if offset else 0

    def number(self, n: int, layout: str) -> int:
        at = self._field(n)
        return self._unpack(layout, at) if at else 0

    def table(self, n: int) -> _Flat | None:
        at = self._field(n)
        return _Flat(self.data, at + self._unpack("<I", at)) if at else None

    def structs(self, n: int, layout: str) -> Iterator[tuple[int, ...]]:
        at = self._field(n)
        if not at:
            return iter(())
        start = at + self._unpack("<I", at)
        count = self._unpack("<I", start)
        end = start + 4 + count * struct.calcsize(layout)
        if end > len(self.data):
            raise ValueError("a vector longer than its message")
        return struct.iter_unpack(layout, self.data[start + 4 : end])


def _buffers_size(message: _Flat, body: memoryview) -> int:
    """Return the bytes that one batch's buffers decode to; a byte for each value, if that is more.

    Nulls and the like have no buffers, and say in a few bytes that there are any number of them.
    """
    kind = message.number(1, "<B")
    batch = message.table(2)
    if kind == _DICTIONARY_BATCH and batch:
        batch = batch.table(1)
    elif kind != _RECORD_BATCH:
        return 0
    if batch is None:
        raise ValueError("a batch without content")
    compressed = batch.table(3) is not None
    total = 0
    for offset, length in batch.structs(2, "<qq"):
        if offset < 0 or length < 0 or offset + length > len(body):
            raise ValueError("a buffer outside its message")
        size = length
        if compressed and length:
            (size,) = struct.unpack_from("<q", body, offset)
            size = length - 8 if size == -1 else size
            if size < 0:
                raise ValueError("a buffer of negative size")
        total += size
    values = sum(max(length, 0) for length, _ in batch.structs(1, "<qq"))
    return max(total, values, batch.number(0, "<q"))


def decoded_size(data: memoryview) -> int:
    """Return how many bytes the values of an IPC stream take once decompressed.

    Raises:
        ValueError: for what is not a stream, or is truncated.
    """
    total = position = 0
    while position + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, position)
        position += 4
        if length == _CONTINUATION:  # before Arrow 0.15 the length came at once
            if position + 4 > len(data):
                raise ValueError("truncated")
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
        if not length:
            return total
        metadata = data[position : position + length]
        message = _Flat.root(metadata)
        body_length = message.number(3, "<q")
        position += length
        if body_length < 0 or position + body_length > len(data):
            raise ValueError("truncated")
        total += _buffers_size(message, data[position : position + body_length])
        position += body_length
    if not position:
        raise ValueError("empty")
    return total


def read_table(dataname: str, data: bytes, limit: int) -> pa.Table:
    """Build the table that `data` holds (blocking); its buffers stay those of `data`.

    Args:
        dataname: for the message of an error.
        data: Arrow IPC, stream or file format.
        limit: bytes that the table may take in memory.

    Raises:
        NATSBridgeError: `DESERIALIZATION_ERROR`, `PAYLOAD_TOO_LARGE`.
    """
    view = memoryview(data)
    if data[: len(_FILE_MAGIC)] == _FILE_MAGIC:
        # The stream inside a file is read as such: the index at its end could name one
        # compressed batch a thousand times. The end is there if nothing was cut off.
        view = view[len(_FILE_MAGIC) :] if data.endswith(_FILE_MAGIC[:6]) else view[:0]
    try:
        size = decoded_size(view)
        if size > limit:
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"the Arrow table {dataname!r} takes {size} bytes in memory, more than the {limit}"
                " allowed: receive it into a folder (sink=...) or raise max_payload_size",
                {"dataname": dataname, "size": size, "limit": limit},
            )
        with pa.ipc.open_stream(pa.py_buffer(view)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, struct.error) as e:
        raise NATSBridgeError(
            DESERIALIZATION_ERROR,
            f"{dataname!r} is not an Arrow IPC stream or file: {e}",
            {"dataname": dataname},
        ) from e
    return table
