"""JSON, strictly.

Python's `json` takes NaN and Infinity, numbers of any length, lone surrogates, and dies of a
RecursionError in deep nesting. What comes from the network passes `loads`, what goes out
passes `check` and `dumps`; both sides of this project refuse the same things.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MAX_DEPTH", "MAX_NUMBER", "Object", "check", "dumps", "loads", "plain", "size"]

#: Levels of arrays and objects: a device reads nested JSON on a stack of a few KB.
MAX_DEPTH = 32
#: Characters of a number: more digits than any double or 128-bit integer needs.
MAX_NUMBER = 64

_OUTSIDE = re.compile(r'["\[\]{}]')
_INSIDE = re.compile(r'["\\]')
_HUGE_EXPONENT = re.compile(r"[0-9][eE]\+?[0-9]{3}")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class Object(dict[str, Any]):
    """A JSON object that remembers which keys came twice."""

    repeated: frozenset[str] = frozenset()


class Spelled(float):
    """A number of an envelope that its sender spells otherwise than Python does: 1e2, 1e-7."""

    text = ""


def _object(pairs: list[tuple[str, Any]]) -> Object:
    result = Object(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        result.repeated = frozenset(key for key, count in counts.items() if count > 1)
    return result


def _check_depth(text: str) -> None:
    """Raise ValueError where `text` nests deeper than `MAX_DEPTH`, in linear time."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return  # strings and all: there are not enough of them
    depth = position = 0
    while found := _OUTSIDE.search(text, position):
        position = found.end()
        mark = found[0]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif mark != '"':
            depth -= 1
        else:
            while (inner := _INSIDE.search(text, position)) and inner[0] == "\\":
                position = inner.end() + 1
            if not inner:
                return  # an unterminated string: the parser stops there as well
            position = inner.end()


def _integer(text: str) -> int:
    _check_number(text)
    return int(text)


def _float(text: str) -> float:
    _check_number(text)
    return float(text)


def _spelled(text: str) -> float:
    value = _float(text)
    if repr(value) == text:
        return value
    number = Spelled(value)
    number.text = text
    return number


def _check_number(text: str) -> None:
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number of {len(text)} characters, more than {MAX_NUMBER}")


def _decoder(
    values: Sequence[Any], parse_float: Callable[[str], float] = _float
) -> json.JSONDecoder:
    """Return a decoder that takes the next of `values` for each NaN."""
    left = iter(values)

    def constant(text: str) -> Any:
        if text == "NaN":
            for value in left:
                return value
        raise ValueError(f"{text} is not JSON")

    return json.JSONDecoder(
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=parse_float,
        parse_constant=constant,
    )


_DECODER = _decoder(())
_ENVELOPE_DECODER = _decoder((), _spelled)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(
    data: bytes | bytearray | memoryview | str, envelope: bool = False, values: Sequence[Any] = ()
) -> Any:
    """Parse JSON text; objects become `Object`.

    Args:
        data: the text, in UTF-8.
        envelope: whether it is an envelope, in which `size` can be told of a value later. Numbers
            beyond a double's range become infinite there, and are refused elsewhere.
        values: what stands there in the text as NaN, in its order.

    Raises:
        ValueError: for anything that is not one JSON value within the limits.
    """
    text = data if isinstance(data, str) else str(data, "utf-8")
    _check_depth(text)
    decoder = _decoder(values, _spelled) if values else _ENVELOPE_DECODER if envelope else _DECODER
    value = decoder.decode(text)
    if not envelope and _HUGE_EXPONENT.search(text):
        dumps(value)
    # Only an escape can make a lone surrogate; a pair of them makes a legal character.
    if "\\u" in text and _SURROGATE_ESCAPE.search(text):
        json.dumps(value, ensure_ascii=False, default=lambda _: None).encode()
    return value


def check(value: object, depth: int = MAX_DEPTH) -> None:
    """Raise ValueError unless `value` is JSON: None, bool, int, finite float, str, list, tuple
    or dict with str keys, nested at most `depth` levels."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
    elif isinstance(value, int):
        if not -(10 ** (MAX_NUMBER - 1)) < value < 10**MAX_NUMBER:
            raise ValueError(f"an integer of more than {MAX_NUMBER} characters")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not JSON")
    elif isinstance(value, (list, tuple, dict)):
        if depth == 0:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"the key {key!r} is not a str")
                key.encode()
        for item in value.values() if isinstance(value, dict) else value:
            check(item, depth - 1)
    else:
        raise ValueError(f"a value of type {type(value).__name__} is not JSON")


def dumps(value: object) -> str:
    """Return `value`, which passed `check`, as compact JSON text in raw UTF-8 characters."""
    return _ENCODER.encode(value)


def size(value: Any) -> int:
    """Return the bytes of the compact text of what `loads` returned of an envelope, with numbers
    as their sender spells them. Raises ValueError for one that is too large."""
    return len(dumps(value).encode()) + _longer(value)


def _longer(value: Any) -> int:
    """Return how many characters longer than Python's the spelling of the numbers is."""
    if isinstance(value, dict):
        return sum(map(_longer, value.values()))
    if isinstance(value, list):
        return sum(map(_longer, value))
    return len(value.text) - len(repr(value)) if isinstance(value, Spelled) else 0


def plain(value: Any) -> Any:
    """Return what `loads` returned with every `Object` as an ordinary dict."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Spelled) else value
