"""payload, source and arrow: which values a type takes, and what comes back."""

import array
import datetime
import decimal
import io
import math
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from natsbridge import arrow, payload
from natsbridge.errors import NATSBridgeError

TABLE = pa.table({"a": [1, 2, 3], "s": ["x", None, "ü"]})
LIMIT = 1 << 20


def sent(value: Any, payload_type: str) -> bytes:
    source = payload.make_source("d", value, payload_type)
    try:
        return bytes(source.read_all())
    finally:
        source.close()


def round_trip(value: Any, payload_type: str) -> Any:
    return payload.from_bytes("d", sent(value, payload_type), payload_type, LIMIT)


@pytest.mark.parametrize(
    ("value", "payload_type"),
    [
        ("", "text"),
        ("Grüße 😀", "text"),
        (None, "dictionary"),
        ({"a": [1, 2.5, True, None, "x"]}, "dictionary"),
        ("a str", "dictionary"),
        ([], "jsontable"),
        ([{"a": 1}, {"b": None}], "jsontable"),
        (b"", "binary"),
        (b"\x00\xff", "image"),
        (b"a", "audio"),
        (b"a", "video"),
    ],
)
def test_values_come_back_the_same(value: Any, payload_type: str) -> None:
    assert round_trip(value, payload_type) == value


def test_any_type_takes_bytes_and_streams_as_they_are() -> None:
    for payload_type in payload.TYPES:
        for value in (b"abc", bytearray(b"abc"), memoryview(b"abc"), io.BytesIO(b"abc")):
            assert sent(value, payload_type) == b"abc"
    assert sent(array.array("h", [1, 2]), "binary") == array.array("h", [1, 2]).tobytes()
    assert sent(memoryview(b"abcdef")[::2], "binary") == b"ace"


@pytest.mark.parametrize(
    ("value", "payload_type"),
    [
        ("x", "nope"),
        (b"x", "Text"),
        (b"x", 5),
        (5, "text"),
        ("\ud800", "text"),
        ({1: 2}, "dictionary"),
        (math.nan, "dictionary"),
        ({"a": b"x"}, "dictionary"),
        ({"a": 1}, "jsontable"),
        ([1], "jsontable"),
        ("[]", "jsontable"),
        ("photo.jpg", "image"),
        (5, "binary"),
        (None, "video"),
        ([1], "audio"),
        ("x", "arrowtable"),
        ([{"a": 1}], "arrowtable"),
        (io.StringIO("x"), "text"),
        (Path("photo.jpg"), "image"),
    ],
)
def test_values_that_do_not_match_are_refused(value: Any, payload_type: Any) -> None:
    with pytest.raises(NATSBridgeError) as e:
        payload.make_source("d", value, payload_type)
    assert e.value.code == "INVALID_PAYLOAD_TYPE"
    assert "'d'" in e.value.message


@pytest.mark.parametrize(
    ("value", "payload_type", "words"),
    [
        (5, "binary", "it is of type int. Give bytes or a binary stream"),
        (5, "text", "it is of type int. Give a str, bytes or a binary stream"),
        (5, "jsontable", "it is of type int. Give a list of dicts or a table (as for arrowtable),"),
        (5, "arrowtable", "with __arrow_c_stream__), bytes or a binary stream"),
    ],
)
def test_the_message_says_what_it_is_and_what_to_give(
    value: Any, payload_type: Any, words: str
) -> None:
    with pytest.raises(NATSBridgeError) as e:
        payload.make_source("d", value, payload_type)
    assert words in e.value.message


class Camera(io.RawIOBase):
    """A stream of a user's, who saw no reason to write `readable`."""

    def __init__(self) -> None:
        self.left = b"snap"

    def readinto(self, buffer: Any) -> int:
        piece, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def test_the_message_says_how_to_open_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    with path.open() as text, pytest.raises(NATSBridgeError, match='mode "rb"'):
        payload.make_source("d", text, "binary")
    for mode in ("ab", "wb", "xb"):
        new = tmp_path / mode
        with new.open(mode) as stream, pytest.raises(NATSBridgeError) as e:
            payload.make_source("d", stream, "binary")
        assert e.value.code == "INVALID_PAYLOAD_TYPE"
        assert "it is not open for reading" in e.value.message
        assert 'mode "rb"' in e.value.message
    with tempfile.NamedTemporaryFile("wb") as wrapped, pytest.raises(NATSBridgeError) as e:
        payload.make_source("d", wrapped, "binary")
    assert "it is not open for reading" in e.value.message
    with path.open("wb", buffering=0) as raw, pytest.raises(NATSBridgeError) as e:
        payload.make_source("d", raw, "binary")
    assert "it is not open for reading" in e.value.message
    assert payload.make_source("d", Camera(), "binary").read_all() == b"snap"
    with tempfile.TemporaryFile() as both:  # w+b
        both.write(b"abc")
        both.seek(0)
        assert payload.make_source("d", both, "binary").size == 3
    for value in ("a.jpg", path):
        with pytest.raises(NATSBridgeError, match=r'open\(path, "rb"\)'):
            payload.make_source("d", value, "image")


class TestStreams:
    def test_a_stream_is_sent_from_its_position_and_can_be_sent_again(self) -> None:
        stream = io.BytesIO(b"0123456789")
        stream.seek(4)
        source = payload.make_source("d", stream, "binary")
        assert source.size == 6
        assert source.read_all() == source.read_all() == b"456789"

    def test_an_unseekable_stream_has_no_size_and_is_read_once(self) -> None:
        read, write = os.pipe()
        os.write(write, b"abc")
        os.close(write)
        with open(read, "rb", buffering=0) as stream:  # noqa: PTH123 a descriptor
            source = payload.make_source("d", stream, "binary")
            assert source.size is None
            assert not source.rewindable
            assert source.read_all() == b"abc"
            with pytest.raises(NATSBridgeError, match="cannot seek"):
                source.rewind()

    def test_what_a_file_grows_by_is_left(self) -> None:
        stream = io.BytesIO(b"abc")
        source = payload.make_source("d", stream, "binary")
        stream.seek(0, 2)
        stream.write(b"more")
        assert source.read_all() == b"abc"

    def test_a_file_that_was_cut_is_an_error(self) -> None:
        stream = io.BytesIO(b"abcdef")
        source = payload.make_source("d", stream, "binary")
        stream.truncate(2)
        with pytest.raises(NATSBridgeError, match="ended after 2 of 6") as e:
            source.read_all()
        assert e.value.code == "INVALID_ARGUMENT"

    def test_a_stream_that_fails_is_an_error(self) -> None:
        class Broken(io.RawIOBase):
            def readinto(self, buffer: Any) -> int:
                raise OSError("disk gone")

        with pytest.raises(NATSBridgeError, match="disk gone"):
            payload.make_source("d", Broken(), "binary").read_all()

    def test_short_reads_are_joined(self) -> None:
        class Slow(io.BytesIO):
            def readinto(self, buffer: Any) -> int:
                return super().readinto(memoryview(buffer)[:1])

        assert payload.make_source("d", Slow(b"abcdef"), "binary").read(4) == b"abcd"

    def test_read_is_enough(self) -> None:
        class Reader:
            def __init__(self) -> None:
                self.left = b"abc"

            def read(self, count: int) -> bytes:
                piece, self.left = self.left[:count], self.left[count:]
                return piece

        assert payload.make_source("d", Reader(), "binary").read_all() == b"abc"


class Capsule:
    """Only what the Arrow PyCapsule interface asks for."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return TABLE.__arrow_c_stream__(requested_schema)


FRAMES = [polars.from_arrow(TABLE), duckdb.from_arrow(TABLE), TABLE.to_pandas()]


class TestArrow:
    @pytest.mark.parametrize("value", FRAMES, ids=lambda value: type(value).__module__)
    def test_what_data_people_have_is_sent(self, value: Any) -> None:
        for kind in ("arrowtable", "jsontable"):
            received = round_trip(value, kind)
            rows = received if kind == "jsontable" else received.to_pylist()
            assert rows == TABLE.to_pylist()

    @pytest.mark.parametrize(
        "value", [TABLE, TABLE.to_batches()[0], TABLE.to_reader(), Capsule()], ids=type
    )
    def test_tables_of_every_kind_are_sent(self, value: Any) -> None:
        assert round_trip(value, "arrowtable").equals(TABLE)

    def test_it_is_written_as_an_uncompressed_stream(self) -> None:
        data = sent(TABLE, "arrowtable")
        assert data[:4] == b"\xff\xff\xff\xff"
        with pa.ipc.open_stream(data) as reader:
            assert reader.read_all().equals(TABLE)
        assert arrow.decoded_size(memoryview(data)) == pytest.approx(TABLE.nbytes, abs=64)

    def test_the_file_format_is_read(self) -> None:
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, TABLE.schema) as writer:
            writer.write_table(TABLE)
        assert payload.from_bytes("d", sink.getvalue(), "arrowtable", LIMIT).equals(TABLE)

    def test_dictionaries_nulls_and_nesting_survive(self) -> None:
        table = pa.table(
            {
                "d": pa.array(["a", "b", "a"]).dictionary_encode(),
                "n": pa.nulls(3),
                "l": pa.array([[1], [], None]),
                "v": pa.array(["x" * 50, "y", None], pa.string_view()),
            }
        )
        assert round_trip(table, "arrowtable").equals(table)

    def test_a_large_table_is_spooled_to_disk(self) -> None:
        table = pa.table({"a": [b"x" * (20 << 20)]})
        source = payload.make_source("d", table, "arrowtable")
        try:
            assert source._stream._rolled
            assert source.size is not None
            assert source.size > 20 << 20
        finally:
            source.close()

    def test_a_small_message_cannot_become_a_large_table(self) -> None:
        zeros = pa.table({"a": [0] * 1_000_000})
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, zeros.schema, options=options) as writer:
            writer.write_table(zeros)
        assert len(sink.getvalue()) < 10_000
        with pytest.raises(NATSBridgeError, match="8000000 bytes in memory") as e:
            payload.from_bytes("d", sink.getvalue(), "arrowtable", LIMIT)
        assert e.value.code == "PAYLOAD_TOO_LARGE"
        assert payload.from_bytes("d", sink.getvalue(), "arrowtable", 8_000_000).equals(zeros)

    def test_a_forged_length_is_refused_before_anything_is_allocated(self) -> None:
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, TABLE.schema, options=options) as writer:
            writer.write_table(pa.table({"a": [5] * 1000, "s": ["x"] * 1000}))
        data = bytearray(sink.getvalue())
        at = data.index(struct.pack("<q", 8000))
        data[at : at + 8] = struct.pack("<q", 1 << 40)
        with pytest.raises(NATSBridgeError) as e:
            payload.from_bytes("d", bytes(data), "arrowtable", LIMIT)
        assert e.value.code == "PAYLOAD_TOO_LARGE"

    def test_damage_anywhere_is_an_error_and_never_a_crash(self) -> None:
        data = sent(TABLE, "arrowtable")
        for cut in range(0, len(data) - 8, 7):
            with pytest.raises(NATSBridgeError):
                payload.from_bytes("d", data[:cut], "arrowtable", LIMIT)
        codes = set()
        for at in range(0, len(data), 3):
            damaged = bytearray(data)
            damaged[at] ^= 0xFF
            try:
                payload.from_bytes("d", bytes(damaged), "arrowtable", LIMIT)
            except NATSBridgeError as e:
                codes.add(e.code)
        assert codes <= {"DESERIALIZATION_ERROR", "PAYLOAD_TOO_LARGE"}

    def test_offsets_outside_their_buffer_are_refused(self) -> None:
        data = sent(pa.table({"s": ["abcdefgh"] * 3}), "arrowtable")
        right = struct.pack("<iiii", 0, 8, 16, 24)
        assert data.count(right) == 1
        data = data.replace(right, struct.pack("<iiii", 0, 8, 16, 1 << 30))
        with pytest.raises(NATSBridgeError) as e:
            payload.from_bytes("d", data, "arrowtable", LIMIT)
        assert e.value.code == "DESERIALIZATION_ERROR"


@pytest.mark.parametrize(
    ("data", "payload_type"),
    [
        (b"\xff", "text"),
        (b"{", "dictionary"),
        (b"", "dictionary"),
        (b"NaN", "dictionary"),
        (b'"\\ud800"', "dictionary"),
        (b"[" * 33 + b"]" * 33, "dictionary"),
        (b"{}", "jsontable"),
        (b"[1]", "jsontable"),
        (b"not arrow", "arrowtable"),
        (b"", "arrowtable"),
        (b"ARROW1\0\0", "arrowtable"),
    ],
)
def test_bytes_that_are_not_what_they_say_are_refused(data: bytes, payload_type: str) -> None:
    with pytest.raises(NATSBridgeError) as e:
        payload.from_bytes("d", data, payload_type, LIMIT)
    assert e.value.code == "DESERIALIZATION_ERROR"


BERLIN = datetime.timezone(datetime.timedelta(hours=1))
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678900)
DAY = datetime.date(2026, 1, 2)
NOON = datetime.time(12, 0, 1)
INF = float("inf")
NAN = float("nan")


class TestRows:
    """A jsontable from what arrowtable takes."""

    @pytest.mark.parametrize(
        "value",
        [TABLE, TABLE.to_batches()[0], TABLE.to_reader(), Capsule(), TABLE.to_pandas()],
        ids=type,
    )
    def test_tables_of_every_kind_become_rows(self, value: Any) -> None:
        rows = [{"a": 1, "s": "x"}, {"a": 2, "s": None}, {"a": 3, "s": "ü"}]
        assert round_trip(value, "jsontable") == rows

    @pytest.mark.parametrize(
        ("column", "expected"),
        [
            (pa.array([True, None]), [True, None]),
            (pa.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
            (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
            (pa.array([1.5, NAN, None]), [1.5, None, None]),
            (pa.array([0.5, NAN], pa.float16()), [0.5, None]),
            (pa.array([decimal.Decimal("-1.20"), None]), [-1.2, None]),
            (pa.array(['"\\\n', ""]), ['"\\\n', ""]),
            (pa.array(["ü"], pa.large_string()), ["ü"]),
            (pa.array(["y" * 50], pa.string_view()), ["y" * 50]),
            (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
            (pa.nulls(2), [None, None]),
            (pa.array([DAY, None]), ["2026-01-02", None]),
            (pa.array([DAY], pa.date64()), ["2026-01-02"]),
            (pa.array([NOON], pa.time32("s")), ["12:00:01"]),
            (pa.array([NOON], pa.time64("us")), ["12:00:01.000000"]),
            (pa.array([MOMENT], pa.timestamp("ms")), ["2026-01-02T03:04:05.678"]),
            (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
            (pa.array([MOMENT], pa.timestamp("us", "UTC")), ["2026-01-02T03:04:05.678900Z"]),
            (
                pa.array([MOMENT.replace(tzinfo=BERLIN)], pa.timestamp("s", "+01:00")),
                ["2026-01-02T02:04:05Z"],
            ),
            (pa.array([[1, None], [], None, [2]])[1:], [[], None, [2]]),
            (pa.array([["a"], None], pa.large_list(pa.string())), [["a"], None]),
            (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], None, [3, 4]]),
            (pa.array([[1], None, [2, 3]], pa.list_view(pa.int8())), [[1], None, [2, 3]]),
            (pa.array([{"a": 1, "b": None}, None, {}])[1:], [None, {"a": None, "b": None}]),
            (pa.array([{}, None], pa.struct([])), [{}, None]),
            (
                pa.array([[{"t": MOMENT, "l": [[0.5, NAN]]}]]),
                [[{"t": "2026-01-02T03:04:05.678900", "l": [[0.5, None]]}]],
            ),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_values_of_every_type(self, column: pa.Array, expected: list[Any]) -> None:
        rows = round_trip(pa.table({"x": column}), "jsontable")
        assert rows == [{"x": value} for value in expected]

    def test_numbers_keep_every_digit(self) -> None:
        value = decimal.Decimal("12345678901234567890.123456789012345678")
        table = pa.table({"x": [value], "f": pa.array([0.1], pa.float32())})
        text = sent(table, "jsontable").decode()
        assert text == f'[{{"x":{value},"f":0.10000000149011612}}]'

    @pytest.mark.parametrize(
        ("column", "why"),
        [
            (pa.array([1.0, INF]), "infinity"),
            (pa.array([-INF], pa.float32()), "infinity"),
            (pa.array([b"x"]), "binary"),
            (pa.array([[b"x"]]), "binary"),
            (pa.array([{"a": [1.0, INF]}]), "'a': it holds infinity"),
            (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), "map"),
            (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), "two columns"),
            (pa.array([1], pa.duration("s")), "duration"),
            (pa.array([decimal.Decimal("1" * 70)], pa.decimal256(76)), "70 characters"),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_what_json_cannot_hold_is_refused(self, column: pa.Array, why: str) -> None:
        with pytest.raises(NATSBridgeError) as e:
            sent(pa.table({"fine": [0] * len(column), "odd": column}), "jsontable")
        assert e.value.code == "INVALID_PAYLOAD_TYPE"
        assert "'odd'" in e.value.message
        assert why in e.value.message

    def test_two_columns_of_one_name_are_refused(self) -> None:
        table = pa.table([pa.array([1]), pa.array([2])], names=["twin", "twin"])
        with pytest.raises(NATSBridgeError, match="twin"):
            sent(table, "jsontable")

    def test_tables_without_rows_or_columns(self) -> None:
        assert round_trip(TABLE.slice(0, 0), "jsontable") == []
        assert round_trip(TABLE.select([]), "jsontable") in ([], [{}] * 3)

    def test_a_dataframe_as_people_have_them(self) -> None:
        frame = pandas.DataFrame(
            {
                "when": pandas.to_datetime(["2026-01-02 03:04:05", None, "2026-01-03 00:00:00"]),
                "celsius": [21.5, NAN, 19.0],
                "room": pandas.Categorical(["a", "b", None]),
            }
        )
        rows = round_trip(frame[frame.celsius > 20], "jsontable")  # with an index of its own
        assert [(row["celsius"], row["room"]) for row in rows] == [(21.5, "a")]
        assert rows[0]["when"].startswith("2026-01-02T03:04:05")
        assert list(rows[0]) == ["when", "celsius", "room"]
        assert [row["when"] is None for row in round_trip(frame, "jsontable")] == [0, 1, 0]
        named = frame.set_index(pandas.Index(["x", "y", "z"], name="key"))
        assert [row["key"] for row in round_trip(named, "jsontable")] == ["x", "y", "z"]

    def test_a_long_stream_passes_through_little_memory(self) -> None:
        batch = pa.record_batch({"n": pa.array(range(2500)), "s": ["x" * 500] * 2500})
        reader = pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(42)))
        tracemalloc.start()
        source = payload.make_source("d", reader, "jsontable")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        try:
            assert source._stream._rolled
            assert source.size is not None
            assert source.size > 50 << 20
            assert peak < 24 << 20  # what is spooled, and the rows at hand
        finally:
            source.close()
