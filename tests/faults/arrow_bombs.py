"""Arrow IPC that lies: streams that pyarrow wrote, with a few bytes changed, each with a name.

`bombs` want more memory than CAP, `forged` say what can't be, `harmless` lie where nobody looks.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

#: Bytes that a table may take.
CAP = 16 << 20
MANY = 1 << 40
ROWS = 1009

#: Fields of the flatbuffers' tables, and kinds of messages.
KIND, HEADER, BODY = 1, 2, 3
LENGTH, NODES, BUFFERS, COMPRESSION = 0, 1, 2, 3
SCHEMA, DICTIONARY, BATCH, TENSOR, SPARSE = 1, 2, 3, 4, 5

Table = pa.Table | pa.RecordBatch


def stream(*tables: Table, compression: str | None = None) -> bytes:
    """A valid stream."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, tables[0].schema, options=options) as writer:
        for table in tables:
            writer.write(table)
    return sink.getvalue()


def file(table: Table) -> bytes:
    """A valid file."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue()


def column(array: pa.Array) -> pa.Table:
    return pa.table({"a": array})


def zeros(size: int) -> pa.Array:
    return pa.Array.from_buffers(pa.int8(), size, [None, pa.py_buffer(bytes(size))])


class Message:
    """One message of a stream: its metadata, whose numbers can be changed, and its body."""

    def __init__(self, message: pa.ipc.Message) -> None:
        self.metadata = bytearray(message.metadata.to_pybytes())
        self.body = bytearray(message.body.to_pybytes() if message.body else b"")

    def _get(self, layout: str, at: int) -> int:
        value: int = struct.unpack_from(layout, self.metadata, at)[0]
        return value

    @property
    def root(self) -> int:
        return self._get("<I", 0)

    def field(self, table: int, n: int) -> int:
        """Where the field `n` of a flatbuffers table is."""
        vtable = table - self._get("<i", table)
        assert 4 + 2 * n < self._get("<H", vtable), "not in this table"
        offset = self._get("<H", vtable + 4 + 2 * n)
        assert offset, "not in this table"
        return table + offset

    def follow(self, at: int) -> int:
        return at + self._get("<I", at)

    @property
    def batch(self) -> int:
        header = self.follow(self.field(self.root, HEADER))
        kind = self._get("<B", self.field(self.root, KIND))
        return self.follow(self.field(header, 1)) if kind == DICTIONARY else header

    def put(self, at: int, layout: str, value: int) -> None:
        struct.pack_into(layout, self.metadata, at, value)

    def structs(self, n: int) -> int:
        """Where the first struct of a batch's vector is."""
        return self.follow(self.field(self.batch, n)) + 4

    def replace(self, n: int, *structs: tuple[int, int], count: int | None = None) -> None:
        """Give a batch another vector, with perhaps a wrong count."""
        while len(self.metadata) % 8 != 4:
            self.metadata.append(0)
        at = self.field(self.batch, n)
        self.put(at, "<I", len(self.metadata) - at)
        self.metadata += struct.pack("<I", len(structs) if count is None else count)
        for pair in structs:
            self.metadata += struct.pack("<qq", *pair)

    def __bytes__(self) -> bytes:
        self.metadata += bytes(-len(self.metadata) % 8)
        return struct.pack("<II", 0xFFFFFFFF, len(self.metadata)) + self.metadata + self.body


Change = Callable[[Message], None]


def messages(data: bytes) -> list[Message]:
    return [Message(m) for m in pa.ipc.MessageReader.open_stream(data)]


def joined(parts: list[Message]) -> bytes:
    return b"".join(map(bytes, parts)) + struct.pack("<II", 0xFFFFFFFF, 0)


def changed(data: bytes, change: Change, which: int = -1) -> bytes:
    """A stream, one message of which, by default the last, was changed."""
    parts = messages(data)
    change(parts[which])
    return joined(parts)


def node(length: int, nulls: int = 0) -> Change:
    return lambda m: m.replace(NODES, (length, nulls))


def rows(length: int, *nodes: tuple[int, int]) -> Change:
    """A batch of so many rows, and columns."""

    def change(m: Message) -> None:
        m.put(m.field(m.batch, LENGTH), "<q", length)
        if nodes:
            m.replace(NODES, *nodes)

    return change


def kind(number: int) -> Change:
    return lambda m: m.put(m.field(m.root, KIND), "<B", number)


def body_length(length: int) -> Change:
    return lambda m: m.put(m.field(m.root, BODY), "<q", length)


def first_buffer(offset: int, length: int) -> Change:
    """The buffer after the one of nulls is said to be elsewhere."""
    return lambda m: struct.pack_into("<qq", m.metadata, m.structs(BUFFERS) + 16, offset, length)


def uncompressed(claim: int) -> Change:
    return lambda m: struct.pack_into("<q", m.body, 0, claim)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    """A stream with other bytes in its last body."""

    def change(m: Message) -> None:
        at = m.body.index(old)
        m.body[at : at + len(new)] = new

    return changed(data, change)


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def longs(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


INTS = column(pa.array(range(ROWS), pa.int64()))
PLAIN = stream(INTS)
ZSTD = stream(INTS, compression="zstd")
LISTS = column(pa.array([[None] * 5]))


def nested(depth: int) -> pa.DataType:
    kind = pa.int8()
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def deep(depth: int) -> bytes:
    """A stream whose type is so many lists in each other."""
    return stream(pa.schema([("a", nested(depth))]).empty_table())


def bombs() -> dict[str, bytes]:
    """Return what takes, or claims to take, more than CAP."""
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), zeros(2 * CAP))
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([ROWS]), pa.array(["x"]))
    no_bytes = pa.array([b""] * ROWS, pa.binary(0))
    four = [column(zeros(CAP // 4))] * 8
    wide = pa.table({f"c{i}": zeros(CAP // 4) for i in range(8)})
    text = pa.table({"a": pa.array(["x" * (2 * CAP)], pa.large_string())})
    same = (0, len(messages(stream(column(zeros(1 << 16)), compression="zstd"))[-1].body))

    def often(m: Message) -> None:
        m.replace(BUFFERS, *[same] * 2000)

    return {
        "zeros-in-zstd": stream(column(zeros(200 << 20)), compression="zstd"),
        "zeros-in-lz4": stream(column(zeros(5 * CAP)), compression="lz4"),
        "columns-in-zstd": stream(wide, compression="zstd"),
        "batches-in-zstd": stream(*four, compression="zstd"),
        "text-in-zstd": stream(text, compression="zstd"),
        "dictionary-in-zstd": stream(column(dictionary), compression="zstd"),
        "dictionary-in-lz4": stream(column(dictionary), compression="lz4"),
        "one-buffer-two-thousand-times": changed(
            stream(column(zeros(1 << 16)), compression="zstd"), often
        ),
        "claim-of-1-TiB": changed(ZSTD, uncompressed(MANY)),
        "claim-of-all-there-is": changed(ZSTD, uncompressed((1 << 63) - 1)),
        "claim-just-over-the-cap": changed(ZSTD, uncompressed(CAP + 1)),
        "nulls": changed(stream(column(pa.nulls(ROWS))), rows(MANY, (MANY, MANY))),
        "nulls-of-62-bits": changed(stream(column(pa.nulls(ROWS))), rows(1 << 62, (1 << 62, 0))),
        "rows-without-columns": changed(stream(INTS.select([])), rows(MANY)),
        "rows-of-no-bytes": changed(stream(column(no_bytes)), rows(MANY, (MANY, 0))),
        "rows-of-a-struct-of-nothing": changed(
            stream(column(pa.array([{}] * ROWS, pa.struct([])))), rows(MANY, (MANY, 0))
        ),
        "one-run": patched(
            changed(stream(column(runs)), rows(MANY, (MANY, 0), (1, 0), (1, 0))),
            longs(ROWS),
            longs(MANY),
        ),
        "a-list-of-nulls": changed(stream(LISTS), rows(1, (1, 0), (MANY, MANY))),
        "a-list-of-31-bits-of-nulls": patched(
            changed(stream(LISTS), rows(1, (1, 0), ((1 << 31) - 1, 0))),
            ints(0, 5),
            ints(0, (1 << 31) - 1),
        ),
        "a-list-of-fixed-size-of-nulls": changed(
            stream(column(pa.array([[None] * 5], pa.list_(pa.null(), 5)))),
            rows(1, (1, 0), (MANY, 0)),
        ),
        "a-thousand-columns-of-nulls": changed(
            stream(pa.table({f"c{i}": pa.nulls(ROWS) for i in range(1000)})),
            rows(CAP // 2, *[(CAP // 2, 0)] * 1000),
        ),
    }


def forged() -> dict[str, bytes]:
    """Return what is no Arrow."""
    words = stream(column(pa.array(["abcdefgh"] * 3)))
    offsets = ints(0, 8, 16, 24)
    large = stream(column(pa.array(["abcdefgh"] * 3, pa.large_string())))
    wide = longs(0, 8, 16, 24)
    lists = stream(column(pa.array([[7, 7], [7]], pa.list_(pa.int8()))))
    picks = pa.DictionaryArray.from_arrays(pa.array([5] * 8, pa.int8()), pa.array([3] * 6))
    dictionary = stream(column(picks))
    views = stream(column(pa.array(["abcdefghijklmnopqrstuvwxyz"], pa.string_view())))
    view = struct.pack("<i4sii", 26, b"abcd", 0, 0)
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([77, 78], pa.int64()), pa.array([1, 2]))
    ends = longs(77, 78)
    union = stream(
        column(pa.UnionArray.from_sparse(pa.array([0] * 7, pa.int8()), [pa.array(range(7))]))
    )
    dense = stream(
        column(
            pa.UnionArray.from_dense(
                pa.array([0] * 3, pa.int8()), pa.array([1, 1, 1], pa.int32()), [pa.array([8, 9])]
            )
        )
    )
    maps = stream(column(pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int8()))))
    half = file(INTS)

    return {
        "metadata-of-2-GiB": PLAIN[:4] + ints((1 << 31) - 8) + PLAIN[8:],
        "metadata-of-negative-length": PLAIN[:4] + ints(-8) + PLAIN[8:],
        "metadata-of-4-bytes": PLAIN[:4] + ints(4) + PLAIN[8:],
        "metadata-that-begins-outside": PLAIN[:8] + b"\xff\xff\xff\x7f" + PLAIN[12:],
        "metadata-that-begins-at-itself": PLAIN[:8] + bytes(4) + PLAIN[12:],
        "body-of-1-TiB": changed(PLAIN, body_length(MANY)),
        "body-of-negative-length": changed(PLAIN, body_length(-8)),
        "body-of-all-there-is": changed(PLAIN, body_length((1 << 63) - 1)),
        "body-that-is-shorter": changed(PLAIN, body_length(8)),
        "rows-of-1-TiB": changed(PLAIN, rows(MANY, (MANY, 0))),
        "rows-of-31-bits": changed(PLAIN, rows((1 << 31) - 1, ((1 << 31) - 1, 0))),
        "rows-more-than-there-are": changed(PLAIN, rows(2 * ROWS, (2 * ROWS, 0))),
        "rows-of-negative-number": changed(PLAIN, rows(-1, (-1, 0))),
        "rows-of-most-negative-number": changed(PLAIN, rows(-(1 << 63), (-(1 << 63), 0))),
        "rows-that-the-columns-have-not": changed(PLAIN, rows(2)),
        "column-of-negative-length": changed(PLAIN, node(-ROWS)),
        "column-longer-than-the-rows": changed(PLAIN, node(ROWS + 1)),
        "column-with-more-nulls-than-rows": changed(PLAIN, node(ROWS, ROWS + 1)),
        "nulls-that-are-nowhere": changed(PLAIN, node(ROWS, 5)),
        "columns-without-end": changed(PLAIN, lambda m: m.replace(NODES, count=(1 << 32) - 1)),
        "columns-of-which-there-are-none": changed(PLAIN, lambda m: m.replace(NODES)),
        "buffers-without-end": changed(PLAIN, lambda m: m.replace(BUFFERS, count=(1 << 32) - 1)),
        "buffers-of-28-bits": changed(PLAIN, lambda m: m.replace(BUFFERS, count=1 << 28)),
        "buffers-of-which-there-are-none": changed(PLAIN, lambda m: m.replace(BUFFERS)),
        "buffer-before-the-body": changed(PLAIN, first_buffer(-8, 8 * ROWS)),
        "buffer-at-1-TiB": changed(PLAIN, first_buffer(MANY, 8)),
        "buffer-of-1-TiB": changed(PLAIN, first_buffer(0, MANY)),
        "buffer-of-negative-length": changed(PLAIN, first_buffer(0, -8)),
        "buffer-that-wraps-around": changed(PLAIN, first_buffer((1 << 63) - 8, 16)),
        "buffer-that-is-too-short": changed(PLAIN, first_buffer(0, 8)),
        "claim-of-less-than-there-is": changed(ZSTD, uncompressed(8)),
        "claim-of-more-than-there-is": changed(ZSTD, uncompressed(9 * ROWS)),
        "claim-of-negative-size": changed(ZSTD, uncompressed(-2)),
        "claim-of-most-negative-size": changed(ZSTD, uncompressed(-(1 << 63))),
        "claim-not-to-be-compressed": changed(ZSTD, uncompressed(-1)),
        "buffer-without-its-claim": changed(ZSTD, first_buffer(0, 4)),
        "compressed-buffer-that-is-cut": changed(ZSTD, first_buffer(0, 100)),
        "compressed-buffer-that-is-damaged": changed(
            ZSTD, lambda m: m.body.__setitem__(slice(8, 16), b"\xff" * 8)
        ),
        "text-that-begins-before": patched(words, offsets, ints(-8, 8, 16, 24)),
        "text-that-ends-at-2-GiB": patched(words, offsets, ints(0, 8, 16, (1 << 31) - 1)),
        "text-that-ends-before-it-begins": patched(words, offsets, ints(0, 16, 8, 24)),
        "large-text-that-ends-at-1-TiB": patched(large, wide, longs(0, 8, 16, MANY)),
        "text-that-is-no-UTF-8": patched(words, b"abcdefgh" * 3, b"\xff" * 24),
        "list-that-ends-outside": patched(lists, ints(0, 2, 3), ints(0, 2, 1 << 30)),
        "list-that-begins-before": patched(lists, ints(0, 2, 3), ints(-9, 2, 3)),
        "map-that-ends-outside": patched(maps, ints(0, 1, 2, 3), ints(0, 1, 2, 1 << 30)),
        "pick-outside-the-dictionary": patched(dictionary, b"\5" * 8, b"\x7f" * 8),
        "pick-before-the-dictionary": patched(dictionary, b"\5" * 8, b"\xff" * 8),
        "dictionary-that-is-missing": joined(
            [part for i, part in enumerate(messages(dictionary)) if i != 1]
        ),
        "dictionary-after-its-batch": joined([messages(dictionary)[i] for i in (0, 2, 1)]),
        "view-outside-its-buffer": patched(views, view, struct.pack("<i4sii", 26, b"abcd", 0, 999)),
        "view-of-2-GiB": patched(views, view, struct.pack("<i4sii", (1 << 31) - 1, b"abcd", 0, 0)),
        "view-of-negative-length": patched(views, view, struct.pack("<i4sii", -26, b"abcd", 0, 0)),
        "view-of-another-buffer": patched(views, view, struct.pack("<i4sii", 26, b"abcd", 9, 0)),
        "runs-that-go-back": patched(stream(column(runs)), ends, longs(77, 5)),
        "runs-of-negative-length": patched(stream(column(runs)), ends, longs(-7, 78)),
        "runs-that-end-early": patched(stream(column(runs)), ends, longs(7, 8)),
        "union-of-another-kind": changed(union, lambda m: m.body.__setitem__(0, 99)),
        "union-of-a-negative-kind": changed(union, lambda m: m.body.__setitem__(0, 0xFF)),
        "dense-union-outside": patched(dense, ints(1, 1, 1), ints(1, 1, 1 << 30)),
        "tensor": changed(PLAIN, kind(TENSOR)),
        "sparse-tensor": changed(PLAIN, kind(SPARSE)),
        "kind-that-is-not-known": changed(PLAIN, kind(99)),
        "kind-of-nothing": changed(PLAIN, kind(0)),
        "schema-that-is-a-batch": changed(PLAIN, kind(BATCH), 0),
        "batch-that-is-a-schema": changed(PLAIN, kind(SCHEMA)),
        "batch-that-is-a-dictionary": changed(PLAIN, kind(DICTIONARY)),
        "batch-before-its-schema": joined(messages(PLAIN)[::-1]),
        "batch-without-a-schema": joined(messages(PLAIN)[1:]),
        "type-in-a-thousand-lists": deep(1000),
        "file-that-is-cut": half[:-20],
        "file-without-anything": b"ARROW1\0\0" + ints(0) + b"ARROW1",
        "file-that-is-only-its-end": b"ARROW1\0\0ARROW1",
        "stream-that-is-cut": PLAIN[:-200],
        "stream-of-ends": b"",
        "stream-of-zeros": bytes(64)[:3],
    }


def harmless(canary: Path) -> dict[str, tuple[bytes, int]]:
    """Return what lies where it is not believed, and the rows that it has.

    canary: a file that the first to unpickle what stands in a type's name would make.
    """
    half = file(INTS)
    end = len(half) - 10
    lying = half[:end] + ints((1 << 31) - 1) + half[-6:]

    class Opens:
        def __reduce__(self) -> Any:
            return open, (str(canary), "w")

    field = pa.field(
        "a",
        pa.int8(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(Opens(), 0),
        },
    )
    extension = pa.table([zeros(5)], schema=pa.schema([field]))
    return {
        "footer-of-2-GiB": (lying, ROWS),
        "footer-of-negative-length": (half[:end] + ints(-1) + half[-6:], ROWS),
        "footer-that-is-damaged": (half[: end - 40] + b"\xff" * 40 + half[end:], ROWS),
        "footer-of-another-file": (half[: end - 1] + file(LISTS)[-400:], ROWS),
        "type-that-is-a-pickle": (stream(extension), 5),
        "type-in-fifty-lists": (deep(50), 0),
        "many-columns": (stream(pa.table({f"c{i}": pa.nulls(2) for i in range(20_000)})), 2),
        "much-about-the-schema": (
            stream(INTS.replace_schema_metadata({"x": "y" * 1_000_000})),
            ROWS,
        ),
        "a-million-buffers": (
            changed(
                PLAIN,
                lambda m: m.replace(BUFFERS, (0, 0), (0, 8 * ROWS), *[(0, 0)] * 500_000),
            ),
            ROWS,
        ),
        "many-batches": (stream(*[column(zeros(1))] * 2000), 2000),
    }
