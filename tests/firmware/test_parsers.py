"""The firmware's parsers, driven by a byte stream on CPython: all input, in any pieces."""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import math
import os
import random
import re
import string
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectors
from harness import load_firmware
from natsbridge import nack as host_nack
from natsbridge import sink as host_sink
from natsbridge import subjects as host_subjects

errors = load_firmware("errors")
files = load_firmware("files")
foreign = load_firmware("foreign")
jsonpull = load_firmware("jsonpull")
strings = load_firmware("strings")
nack = load_firmware("nack")
load_firmware("news")  # so that no example is slowed by its import
subjects = load_firmware("payload")
subscription = load_firmware("subscription")
reader = load_firmware("reader")
sink = load_firmware("sink")
stream = load_firmware("stream")


class Pieces(io.BytesIO):
    """A stream as MicroPython's are, which gives at most `step` bytes at a time."""

    step = 1 << 20

    def readinto(  # type: ignore[override]
        self, buf: Any, n: int | None = None, wait: bool = True
    ) -> int:
        piece = self.read(min(len(buf) if n is None else n, self.step))
        buf[: len(piece)] = piece
        return len(piece)


def pieces(data: bytes, step: int) -> Pieces:
    source = Pieces(data)
    source.step = step
    return source


@pytest.fixture(scope="module", autouse=True)
def as_on_micropython() -> Iterator[None]:
    """Streams in memory take a length there, json writes raw UTF-8, and collecting is quick."""
    raw = functools.partial(json.dumps, ensure_ascii=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "BytesIO", Pieces)
        patch.setattr(io, "BytesIO", Pieces)
        patch.setattr(strings, "dumps", raw)
        patch.setattr(foreign, "json", types.SimpleNamespace(dumps=raw))
        heap = types.SimpleNamespace(
            collect=lambda: None, mem_free=lambda: 1 << 20, threshold=lambda amount=0: -1
        )
        patch.setattr(errors, "gc", heap)
        patch.setattr(reader, "gc", heap)
        yield


class Memory(sink.Sink):  # type: ignore[misc]
    """A sink into a memory that is as large as needed."""

    def open(self, dataname: str, payload_type: str, size: int | None) -> Any:
        return None if size is None else sink.Target(bytearray(size), memory=True)


def receive(data: bytes, step: int, buffer: int, limit: int | None = None) -> dict[str, Any]:
    """What smartreceive makes of a message without links, as a result of vectors.py."""
    it = reader.EnvelopeReader(
        pieces(data, step), len(data), Memory(None, None, limit), None, bytearray(buffer)
    )
    try:
        env = it.read()
    except errors.NATSBridgeError as e:
        return {"error": e.code, "message": e.message}
    found = [
        [i["dataname"], vectors.describe(i["target"].data, i["payload_type"]), i["payload_type"]]
        for i in env["payloads"]
    ]
    del env["payloads"]
    return {"payloads": found, "fields": env}


def without_links(case: vectors.Case) -> bool:
    options = set(case.get("options", {})) - {"max_payload_size"}
    wire = vectors.wire(case, "http://127.0.0.1:1")
    return not (options or case.get("files") or b"link" in wire or len(wire) > 30_000)


CASES = [
    case
    for case in vectors.load("receive.json")
    if vectors.runs(case, {"float64", "bigint"}) and without_links(case)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_envelope_is_read_alike_in_any_pieces(case: vectors.Case) -> None:
    data = vectors.wire(case, "http://127.0.0.1:1")
    limit = case.get("options", {}).get("max_payload_size")
    rng = random.Random(case["name"])
    ways = [(1 << 20, 2048), (1, 1024), *((rng.randint(2, 99), 1024 + 4 * rng.randrange(99)),) * 2]
    results = [receive(data, step, buffer, limit) for step, buffer in ways]
    assert vectors.receive_problems(case, results[0]) == []
    for result in results[1:]:
        assert result.get("error") == results[0].get("error")
        if "error" not in result:
            assert result == results[0]


def test_enough_vectors_have_no_link() -> None:
    assert len(CASES) > 500


def envelope(data: str) -> bytes:
    p = {"dataname": "a", "payload_type": "binary", "transport": "direct", "data": data}
    return json.dumps({"payloads": [p]}).encode()


BASE64 = re.compile(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@pytest.mark.parametrize("key_first", [True, False], ids=["type first", "data first"])
@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_base64_may_be_split_at_every_point(size: int, key_first: bool) -> None:
    payload = bytes(range(size))
    items = {
        "dataname": "a",
        "payload_type": "binary",
        "transport": "direct",
        "encoding": "base64",
        "size": size,
        "data": base64.b64encode(payload).decode(),
    }
    if not key_first:
        items = dict(reversed(items.items()))
    data = json.dumps({"payloads": [items]}).encode()
    expected = [["a", vectors.describe(payload, "binary"), "binary"]]
    for pad in range(1024 - len(data), 1024 + 4):  # white space before it moves the buffer's end
        assert receive(b" " * pad + data, 1 << 20, 1024)["payloads"] == expected


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=60),
    at=st.integers(0, 80),
    what=st.sampled_from([*"=A/+-_ \n?~", "==", "\\n", "é", ""]),
    cut=st.integers(0, 2),
    pad=st.integers(0, 1030),
)
def test_only_base64_is_taken_for_base64(
    data: bytes, at: int, what: str, cut: int, pad: int
) -> None:
    text = base64.b64encode(data).decode()
    text = text[:at] + what + text[at + cut :]
    result = receive(b" " * pad + envelope(text), 1 << 20, 1024)
    if BASE64.fullmatch(text):
        expected = vectors.describe(base64.b64decode(text), "binary")
        assert result["payloads"] == [["a", expected, "binary"]]
    else:
        assert result.get("error") == "DESERIALIZATION_ERROR"


def refusing(first: list[bytes], real: Any, part: Any) -> Any:
    return first.pop() if first else real(part)


@pytest.mark.parametrize(
    "what",
    ['"', '"}]}', "\\", "\\/", "\\u002b", "\n", "\x00", "\x7f", "é", "=", "==", "A=", "-", "", "/"],
)
def test_what_is_in_a_full_buffer_is_noticed_as_where_it_is_looked_for(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer in which every byte is decoded is not searched for what may end the base64."""
    size = 128
    real = reader.a2b_base64
    text = base64.b64encode(bytes(range(256)) * 2).decode()
    for at in range(size, 3 * size + 1):  # at least one whole buffer and the bounds around it
        damaged = (text[:at] + what + text[at + 1 :]).encode()
        data = envelope("*").replace(b"*", damaged)
        monkeypatch.setattr(reader, "a2b_base64", real)
        result = receive(data, 1 << 20, size)
        first = [b""]  # refused, so that from the first bytes on all is searched
        patched = functools.partial(refusing, first, real)
        monkeypatch.setattr(reader, "a2b_base64", patched)
        assert result == receive(data, 1 << 20, size)
        assert not first


# ---------------------------------------------------------------- JSON

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def pulled(data: bytes, step: int, buffer: int, keep: bool = True) -> Any:
    """The value of a JSON text. Raises ValueError or EOFError."""
    pull = jsonpull.JsonPull(pieces(data, step), bytearray(buffer))
    value = pull.value(len(data), 0, keep)
    pull.finish()
    if pull.overflow:
        raise ValueError("too large")
    return value


def no_constant(name: str) -> None:
    raise ValueError(name)


def too_large(text: str) -> float:
    value = float(text)
    if math.isinf(value) or len(text) > 64:
        raise ValueError(text)
    return value


def a_whole(text: str) -> int:
    if len(text) > 64:
        raise ValueError(text)
    return int(text)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def expected_of(data: bytes) -> Any:
    """What the standard library makes of it, within the limits. Raises ValueError."""
    value = json.loads(
        data.decode(), parse_constant=no_constant, parse_float=too_large, parse_int=a_whole
    )
    if depth(value) > 32:
        raise ValueError("too deep")
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is a ValueError
    return value


@settings(deadline=None)
@given(value=VALUES, ascii=st.booleans(), step=st.integers(1, 50), buffer=st.integers(16, 80))
def test_every_value_comes_through(value: Any, ascii: bool, step: int, buffer: int) -> None:
    data = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    try:
        expected = expected_of(data)
    except ValueError:
        with pytest.raises((ValueError, EOFError)):
            pulled(data, step, buffer)
        return
    assert pulled(data, step, buffer) == expected
    assert repr(pulled(data, step, buffer)) == repr(expected)  # types, and -0.0


FRAGMENTS = [
    *'[]{}",:\\ \t\n0123456789eE+-.',
    *("true", "false", "null", "NaN", "Infinity", "-0", "1e5", "1.5", "01", '"a"', '"a":'),
    *("\\u00e9", "\\ud83d\\ude42", "\\ud83d", "\\ude42", "\\x", "é", "\x00", "\x0c", "\xa0"),
    *("[" * 31, "]" * 31, "9" * 64, "1e400", "\ufeff"),
]


@settings(max_examples=1500, deadline=None)
@given(parts=st.lists(st.sampled_from(FRAGMENTS), max_size=12), step=st.integers(1, 9))
def test_the_same_texts_are_refused(parts: list[str], step: int) -> None:
    same_verdict("".join(parts).encode(), step)


@settings(max_examples=1000, deadline=None)
@given(
    value=VALUES,
    at=st.integers(0, 200),
    cut=st.integers(0, 3),
    what=st.sampled_from(FRAGMENTS) | st.binary(max_size=3),
    step=st.integers(1, 9),
)
def test_the_same_damage_is_noticed(
    value: Any, at: int, cut: int, what: str | bytes, step: int
) -> None:
    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    at = min(at, len(data))
    damage = what if isinstance(what, bytes) else what.encode()
    same_verdict(data[:at] + damage + data[at + cut :], step)


@pytest.mark.parametrize(
    "digits", ["00\x101", "00 1", "00g1", "00@1", "+041", "00`1", "004", "004é"]
)
def test_an_escape_has_four_hexadecimal_digits(digits: str) -> None:
    same_verdict(b'"\\u%s"' % digits.encode(), 1)
    same_verdict(b'"\\u%sx"' % digits.encode(), 1)


def same_verdict(data: bytes, step: int) -> None:
    """The pull parser and the standard library agree, also on what is only passed over."""
    try:
        expected = expected_of(data)
    except ValueError:
        with pytest.raises((ValueError, EOFError)):
            pulled(data, step, 16)
        return
    assert repr(pulled(data, step, 16)) == repr(expected)
    pulled(data, step, 16, keep=False)


@given(
    text=st.binary(max_size=12) | st.text(max_size=6).map(lambda s: s.encode("utf-8", "replace")),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_utf8_is_checked_across_pieces(text: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    state = 0
    good = True
    try:
        for start, end in itertools.pairwise(ends):
            if end > start:
                state = strings.check_utf8(text[start:end], state)
    except ValueError:
        good = False
    try:
        text.decode()
    except UnicodeDecodeError:
        assert not good or state
    else:
        assert good
        assert not state


# ---------------------------------------------------------------- lines, and the NATS protocol


@given(
    lines=st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b and b[-1:] != b"\r")),
    end=st.sampled_from([b"\n", b"\r\n"]),
    step=st.integers(1, 50),
    size=st.integers(1, 50),
)
def test_lines_are_the_same_in_any_pieces(
    lines: list[bytes], end: bytes, step: int, size: int
) -> None:
    source = stream.Reader(pieces(b"".join(line + end for line in lines) + b"rest", step), size)
    assert [source.readline(100) for _ in lines] == lines
    with pytest.raises(EOFError):
        source.readline(100)


@given(length=st.integers(0, 60), step=st.integers(1, 50), size=st.integers(1, 50))
def test_a_line_that_is_too_long_is_refused_and_held_no_further(
    length: int, step: int, size: int
) -> None:
    source = stream.Reader(pieces(b"x" * length + b"\n", step), size)
    if length <= 30:
        assert source.readline(30) == b"x" * length
    else:
        with pytest.raises(ValueError, match="more than 30 bytes"):
            source.readline(30)
        assert len(source.head) <= 30 + size


@given(
    data=st.binary(max_size=200),
    asks=st.lists(st.tuples(st.booleans(), st.integers(1, 70)), max_size=20),
    step=st.integers(1, 50),
    size=st.integers(1, 50),
)
def test_bytes_are_read_and_skipped_in_order(
    data: bytes, asks: list[tuple[bool, int]], step: int, size: int
) -> None:
    source = stream.Reader(pieces(data, step), size)
    at = 0
    for skip, n in asks:
        buf = bytearray(n)
        got = source.skip(n) if skip else source.readinto(buf, n)
        assert 0 <= got <= n
        assert got or at == len(data)
        if not skip:
            assert buf[:got] == data[at : at + got]
        at += got


WORD = st.text(string.ascii_letters + string.digits + ".$_-", min_size=1, max_size=20)


class Subscribed:
    """A connection with every subscription there can be."""

    def __init__(self) -> None:
        self._got = None
        self._subs = self

    def get(self, sid: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(_sid=sid)

    def __contains__(self, sid: int) -> bool:
        return True


@given(
    subject=WORD,
    sid=st.integers(0, 10**6),
    reply=WORD | st.just(""),
    sizes=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    headers=st.booleans(),
)
def test_the_lines_of_messages_are_understood(
    subject: str, sid: int, reply: str, sizes: tuple[int, int], headers: bool
) -> None:
    least, most = sorted(sizes)
    sizes_text = f"{least} {most}" if headers else f"{most}"
    line = f"{'HMSG' if headers else 'MSG'} {subject} {sid} {reply} {sizes_text}".encode()
    connection = Subscribed()
    for size in (most, most, most + 7):  # the first one is remembered for the others
        again = line[: -len(str(most))] + str(size).encode()
        msg = subscription.Msg(connection, again)
        assert (msg.subject, msg.sub._sid, msg.reply) == (subject, sid, reply)
        assert msg.head == (least if headers else 0)
        assert len(msg) == size - msg.head
        assert msg.left == (len(msg) + 2 if size > 2048 else 0)


@given(line=st.lists(st.sampled_from([b"a", b"1", b"-1", b"1.5", b"99999999999", b"\xff", b""])))
def test_other_lines_are_refused_and_nothing_else_happens(line: list[bytes]) -> None:
    try:
        msg = subscription.Msg(Subscribed(), b" ".join([b"MSG", *line]))
    except ValueError:
        return
    assert msg.sub._sid >= 0
    assert msg.head == 0
    assert 0 <= len(msg) < 10**10


SUBJECT = st.text(st.sampled_from("ab.*> \t\n\x7f\x00é"), max_size=8)


@settings(max_examples=500)
@given(subject=SUBJECT, wildcards=st.booleans())
def test_subjects_are_judged_as_on_the_host(subject: str, wildcards: bool) -> None:
    good = subjects.is_subject(subject, wildcards)
    assert good == (host_subjects._fault(subject, wildcards) == "")


@pytest.mark.parametrize("subject", ["a" * 1025, "é" * 512, "é" * 513, "🙂" * 256, "🙂" * 257])
def test_a_subject_has_so_many_bytes_as_on_the_host(subject: str) -> None:
    assert subjects.is_subject(subject) == (len(subject.encode()) <= 1024)
    assert subjects.is_subject(subject) == host_subjects.is_subject(subject)


@settings(max_examples=500)
@given(*[st.lists(st.sampled_from(["a", "b", "*", ">"]), min_size=1, max_size=4)] * 2)
def test_patterns_match_as_on_the_host(pattern: list[str], subject: list[str]) -> None:
    one, other = ".".join(pattern), ".".join(subject)
    assert nack.matches(one, other) == host_nack.matches(one, other)


@settings(max_examples=1000)
@given(
    name=st.text(string.ascii_letters + string.digits + "._-/\\: \n~", max_size=130)
    | st.tuples(
        st.sampled_from(["con", "NUL", "com1", "LPTx", "a" * 99]), st.text("x.", max_size=60)
    ).map("".join)
)
def test_file_names_are_those_of_the_host(name: str) -> None:
    assert files.safe_name(name) == host_sink.safe_name(name)


def test_the_next_of_many_files_of_one_name_is_found_with_few_looks(tmp_path: Path) -> None:
    for number in range(300):
        assert files.unique(str(tmp_path), "a.csv") == str(
            tmp_path / (f"a-{number}.csv" if number else "a.csv")
        )
        (tmp_path / (f"a-{number}.csv" if number else "a.csv")).touch()
    looks = []

    def stat(path: str) -> None:
        looks.append(path)
        os.lstat(path)

    with mock.patch.object(os, "stat", stat):
        assert files.unique(str(tmp_path), "a.csv") == str(tmp_path / "a-300.csv")
    assert len(looks) < 20
