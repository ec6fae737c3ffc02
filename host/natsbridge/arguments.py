"""Checks of arguments that several calls share, and the overall time bound."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = [
    "MAX_FIELD",
    "Progress",
    "bounded",
    "check_count",
    "check_field",
    "check_timeout",
    "surely_fields",
]

#: UTF-8 bytes of any string field of an envelope, a dataname and a URL: a field is read into
#: memory whole by a device with a few tens of KB.
MAX_FIELD = 1024

#: on_progress(dataname, bytes done, bytes in total or None when unknown)
Progress = Callable[[str, int, int | None], object]

T = TypeVar("T")


def check_timeout(timeout: float | None, what: str = "timeout") -> None:
    """Refuse a time-out (s) that is neither None nor a finite number >= 0: `INVALID_ARGUMENT`."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{what} must be seconds or None, not {type(timeout).__name__}"
        )
    if not 0 <= timeout < math.inf:
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"{what} must be 0 or more seconds, or None for no limit, not {timeout}",
        )


def check_count(value: object, what: str, least: int = 0) -> None:
    """Refuse anything but an integer >= `least` with `INVALID_ARGUMENT`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{what} must be an integer of at least {least}, not {value!r}"
        )


def surely_fields(values: Iterable[Any]) -> bool:
    """Tell, quickly, of values that `check_field` takes, as most are, that it takes them all."""
    try:
        text = "".join(values)
    except TypeError:
        return False
    return text.isascii() and len(text) <= MAX_FIELD


def check_field(value: object, what: str) -> None:
    """Refuse what cannot be a string field of an envelope with `INVALID_ARGUMENT`.

    Args:
        value: must be a str that UTF-8 can carry, of at most `MAX_FIELD` bytes.
        what: the argument's name, for the message.
    """
    if not isinstance(value, str):
        raise NATSBridgeError(INVALID_ARGUMENT, f"{what} must be a str, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{what} holds a lone surrogate, which UTF-8 cannot carry"
        ) from None
    if size > MAX_FIELD:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"{what} has {size} bytes, more than the {MAX_FIELD} allowed"
        )


async def bounded(
    work: Coroutine[Any, Any, T], timeout: float | None, late: Callable[[], NATSBridgeError]
) -> T:
    """Await `work` for at most `timeout` seconds (None: for ever).

    Raises:
        NATSBridgeError: what `late` returns, once `work` was cancelled and has cleaned up.
    """
    if timeout is None:
        return await work
    try:
        return await asyncio.wait_for(work, timeout)
    except asyncio.TimeoutError:
        raise late() from None
