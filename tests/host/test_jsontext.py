"""jsontext: strict JSON in and out."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsbridge import jsontext

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_passes_check_comes_back_the_same(value: Any) -> None:
    jsontext.check(value)
    assert jsontext.plain(jsontext.loads(jsontext.dumps(value).encode())) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NaN",
        "-Infinity",
        "[1 2}",
        "[1,]",
        '{"a":1',
        "1 2",
        '"\x01"',
        '"\\ud800"',
        '["\\udc00\\ud800"]',
        "[" * 33 + "]" * 33,
        "1" * 65,
        "0." + "1" * 63,
        "1e400",
        "[1e999]",
        "\ufeff{}",
        "'a'",
    ],
)
def test_loads_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsontext.loads(text.encode())


def test_loads_refuses_invalid_utf8() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        jsontext.loads(b'"\xff"')
    with pytest.raises(ValueError, match="utf-8"):
        jsontext.loads(b'"\xed\xa0\x80"')


def test_loads_takes_the_limits_themselves() -> None:
    jsontext.loads("[" * 32 + "]" * 32)
    assert jsontext.loads("9" * 64) == int("9" * 64)
    assert jsontext.loads('"\\ud83d\\ude00"') == "😀"
    assert jsontext.loads('["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "\\"[[[["]')
    assert math.isinf(jsontext.loads("1e999", envelope=True))


@pytest.mark.parametrize(
    "text", ["1e2", "1E+2", "-0.50", "1e-7", "[1.0,2.5,1e-07]", '{"ü":[1e2,3]}']
)
def test_the_size_of_a_value_in_an_envelope_is_that_of_its_spelling(text: str) -> None:
    value = jsontext.loads(text, envelope=True)
    assert jsontext.size(value) == len(text.encode())
    assert repr(jsontext.plain(value)) == repr(json.loads(text))
    if isinstance(value, float):
        assert type(jsontext.plain(value)) is float


def test_repeated_keys_are_remembered() -> None:
    value = jsontext.loads('{"a":1,"b":{"c":1,"c":2},"a":3}')
    assert value.repeated == {"a"}
    assert value["b"].repeated == {"c"}
    assert type(jsontext.plain(value)["b"]) is dict


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 200_000,
        '"' + '\\"' * 500_000,
        '"\\',
        "[" + '"",' * 300_000,
        '"' + "[" * 1_000_000,
    ],
)
def test_hostile_text_is_refused_fast(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"."):
        jsontext.loads(text)
    assert time.monotonic() - start < 2


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        -math.inf,
        {1: 2},
        b"a",
        {1},
        object(),
        nested(33),
        CYCLE,
        "\ud800",
        {"\ud800": 1},
        10**64,
        -(10**63),
        [math.nan],
    ],
)
def test_check_refuses(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsontext.check(value)


def test_check_takes_tuples_and_the_deepest_nesting() -> None:
    jsontext.check((1, (2.5, None)))
    jsontext.check(nested(32))
    jsontext.check(10**64 - 1)
    assert jsontext.dumps(("ü", "\u2028")) == json.dumps(
        ["ü", "\u2028"], ensure_ascii=False, separators=(",", ":")
    )
