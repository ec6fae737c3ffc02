"""Arrow tables between pyarrow and the apache-arrow package."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from conftest import WebSocketServer
from jspeers import JsPeer
from natsbridge import sync

pytestmark = pytest.mark.peers

#: Where this process listens.
TO_HOST = "tables.host"

INSTANT = 1_773_385_370_443_210_987
ROW = pa.struct([("x", pa.float64()), ("y", pa.list_(pa.int16())), ("at", pa.timestamp("us"))])


def column(values: list[Any], kind: pa.DataType) -> pa.ChunkedArray:
    """A column in two batches, the second of which begins in the middle of its buffers."""
    whole = pa.array(values, kind)
    return pa.chunked_array([whole.slice(0, 1), whole.slice(1)])


WORDS = pa.DictionaryArray.from_arrays(pa.array([2, 0, None], pa.int8()), ["on", "off", "ü"])
TABLES = {
    "numbers": pa.table(
        {
            "int8": column([-128, None, 127], pa.int8()),
            "int64": column([-(2**63), None, 2**63 - 1], pa.int64()),
            "uint64": column([2**64 - 1, 0, None], pa.uint64()),
            "float32": column([0.5, None, -1.0], pa.float32()),
            "float64": column([1e300, -0.1, None], pa.float64()),
            "bool": column([True, None, False], pa.bool_()),
            "decimal": column([Decimal("-1.25"), None, Decimal("0.01")], pa.decimal128(30, 2)),
        }
    ),
    "texts and bytes": pa.table(
        {
            "utf8": column(["", None, "Grüße, 世界 🙂\x00"], pa.string()),
            "large": column(["a", None, "b"], pa.large_string()),
            "binary": column([b"\x00\xff", None, b""], pa.binary()),
            "fixed": column([b"abcd", None, b"\x00" * 4], pa.binary(4)),
        }
    ),
    "times": pa.table(
        {
            "s": column([INSTANT // 10**9, None, -1], pa.timestamp("s")),
            "ms": column([INSTANT // 10**6, None, -1], pa.timestamp("ms", "UTC")),
            "us": column([INSTANT // 10**3, None, -1], pa.timestamp("us", "Europe/Berlin")),
            "ns": column([INSTANT, None, -1], pa.timestamp("ns")),
            "date": column(
                [datetime.date(2026, 3, 13), None, datetime.date(1969, 1, 1)], pa.date32()
            ),
            "time": column(
                [datetime.time(7, 2, 50, 443210), None, datetime.time()], pa.time64("us")
            ),
        }
    ),
    "dictionaries": pa.table(
        {
            "words": pa.chunked_array([WORDS, WORDS.slice(1)]),
            "numbers": pa.array([10, 20, 10, None, 20]).dictionary_encode(),
        }
    ),
    "nested": pa.table(
        {
            "list": column([[1, None], None, []], pa.list_(pa.int32())),
            "lists": column([[["a"], None], [], None], pa.list_(pa.list_(pa.string()))),
            "fixed": column([[1.5, 2.5], None, [None, 0.0]], pa.list_(pa.float64(), 2)),
            "struct": column([{"x": 1.5, "y": [1], "at": INSTANT // 1000}, {"x": None}, None], ROW),
            "rows": column([[{"x": 0.5, "y": [], "at": None}, None], [], None], pa.list_(ROW)),
            "map": column([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int32())),
        }
    ),
    "nothing but nulls": pa.table({"null": pa.nulls(2), "int": pa.nulls(2, pa.int32())}),
    "no rows": pa.table({"a": pa.array([], pa.int32()), "b": pa.array([], pa.list_(pa.string()))}),
    "no columns": pa.table({}),
}


@pytest.fixture
def take(web_broker: WebSocketServer, js: JsPeer) -> Iterator[Callable[[], pa.Table]]:
    """Takes the table that a message brings."""
    with sync.connect(web_broker.url) as nc:
        sub = nc.subscribe(TO_HOST)
        nc.flush()

        def take() -> pa.Table:
            msg = sub.next(10)
            assert msg is not None, "nothing came"
            env = sync.smartreceive(msg, fileserver_url=js.files)
            [(name, table, kind)] = env["payloads"]
            assert (name, kind) == ("table", "arrowtable")
            table.validate(full=True)
            return table

        yield take


def plain(array: pa.Array) -> list[Any]:
    """The values as the peers tell them: times as numbers, decimals unscaled, bytes as hex."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_temporal(kind):
        return array.view(pa.int64() if kind.bit_width == 64 else pa.int32()).to_pylist()
    if pa.types.is_struct(kind):
        columns = {field.name: plain(array.field(i)) for i, field in enumerate(kind)}
        rows = [{name: columns[name][i] for name in columns} for i in range(len(array))]
        return [row if value.is_valid else None for row, value in zip(rows, array, strict=True)]
    if pa.types.is_nested(kind):
        return [plain(value.values) if value.is_valid else None for value in array]
    values = array.to_pylist()
    if pa.types.is_decimal(kind):
        return [None if value is None else int(value.scaleb(kind.scale)) for value in values]
    return [value.hex() if isinstance(value, bytes) else value for value in values]


def told(table: pa.Table) -> dict[str, list[Any]]:
    """A table's columns as the peers tell them."""
    chunks = {name: table[name].chunks for name in table.column_names}
    return {name: [v for chunk in chunks[name] for v in plain(chunk)] for name in chunks}


def send(web_broker: WebSocketServer, js: JsPeer, table: pa.Table, threshold: int) -> None:
    data = [("table", table, "arrowtable")]
    sync.smartsend(
        js.inbox, data, broker_url=web_broker.url, fileserver_url=js.files, size_threshold=threshold
    )


@pytest.mark.parametrize("threshold", [0, 500_000], ids=["link", "direct"])
@pytest.mark.parametrize("name", TABLES)
def test_a_peer_reads_what_pyarrow_writes(
    js: JsPeer, web_broker: WebSocketServer, name: str, threshold: int
) -> None:
    table = TABLES[name]
    send(web_broker, js, table, threshold)
    result = js.ask(do="receive", subject=js.inbox, options={})
    assert "error" not in result, result
    assert result["transports"] == ["direct" if threshold else "link"]
    assert result["payloads"][0][1]["arrow"] == told(table)


@pytest.mark.parametrize("threshold", [0, 500_000], ids=["link", "direct"])
@pytest.mark.parametrize("name", TABLES)
def test_pyarrow_reads_what_a_peer_wrote_of_it(
    js: JsPeer, web_broker: WebSocketServer, take: Callable[[], pa.Table], name: str, threshold: int
) -> None:
    table = TABLES[name]
    send(web_broker, js, table, threshold)
    sent = js.ask(do="forward", subject=js.inbox, to=TO_HOST, options={"size_threshold": threshold})
    assert "error" not in sent, sent
    [[_, about, _]] = sent["sent"]
    assert about["transport"] == ("direct" if threshold else "link")
    back = take()
    assert back.schema.equals(table.schema), f"{back.schema}\n\n{table.schema}"
    assert told(back) == told(table)


def test_pyarrow_reads_a_table_of_javascript(js: JsPeer, take: Callable[[], pa.Table]) -> None:
    data = [["table", {"table": "sample"}, "arrowtable"]]
    js.ask(do="send", subject=TO_HOST, data=data, options={})
    table = take()
    row = pa.struct([("x", pa.float64()), ("y", pa.list_(pa.int32()))])
    assert {field.name: field.type for field in table.schema} == {
        **{"whole": pa.int32(), "large": pa.int64(), "real": pa.float64(), "flag": pa.bool_()},
        **{"text": pa.string(), "word": pa.dictionary(pa.int32(), pa.string())},
        **{"day": pa.date32(), "milli": pa.timestamp("ms", "UTC"), "micro": pa.timestamp("us")},
        **{"list": pa.list_(pa.int32()), "nested": row},
    }
    assert told(table) == {
        "whole": [1, None, -3],
        "large": [2**62, -1, None],
        "real": [0.5, -1e300, None],
        "flag": [True, None, False],
        "text": ["", "Grüße 🙂", None],
        "word": ["on", "off", "on"],
        "day": [20_525, None, 0],
        "milli": [1_773_385_370_443, None, -1],
        "micro": [1_773_385_370_443_000, 0, None],
        "list": [[1, 2], None, []],
        "nested": [{"x": 1.5, "y": [1]}, {"x": None, "y": None}, None],
    }
