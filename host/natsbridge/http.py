"""What uploads and downloads share: the session, its time-outs, and when to try again."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import aiohttp

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = [
    "FAULTS",
    "RETRY_STATUS",
    "STALL_S",
    "LazySession",
    "check_delays",
    "describe",
    "fileserver_config",
    "open_session",
    "pause",
    "read_json",
    "read_text",
]

#: Seconds without a byte moving after which a transfer has failed.
STALL_S = 10.0
#: Plik answers a true 404 to this one, and to others a redirect to its web page (DESIGN).
USER_AGENT = "plik_client/natsbridge"
#: Answers worth another attempt (FACTS, "HTTP"); other 4xx are final.
RETRY_STATUS = frozenset((408, 429, 500, 502, 503, 504))
#: What a connection fault can be.
FAULTS = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
#: Bytes of an answer that is not a payload.
MAX_ANSWER = 64 << 10
#: Seconds that a server may ask us to wait, at most.
MAX_RETRY_AFTER_S = 30.0


def open_session() -> aiohttp.ClientSession:
    """Return a session for one operation; use it with `async with`."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


class LazySession:
    """A session that is opened by its first `get`: most messages have no links."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def get(self) -> aiohttp.ClientSession:
        """Return the session."""
        if self._session is None:
            self._session = open_session()
        return self._session

    async def __aenter__(self) -> LazySession:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()


async def pause(attempt: int, base_delay: float, max_delay: float, retry_after: str = "") -> None:
    """Wait before another attempt.

    Args:
        attempt: how many have failed, from 1.
        base_delay: ms after the first; doubled after each.
        max_delay: ms at most.
        retry_after: the server's Retry-After in seconds, or "" (dates are not understood).
    """
    delay = min(base_delay * 2 ** min(attempt - 1, 32), max_delay) / 1000
    delay *= random.uniform(0.75, 1.25)  # many devices must not come back in step
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9:
        delay = max(delay, min(float(retry_after), MAX_RETRY_AFTER_S))
    await asyncio.sleep(delay)


def describe(e: BaseException) -> str:
    """Return what a connection fault was, never empty."""
    if isinstance(e, asyncio.TimeoutError):
        return f"no byte moved for {STALL_S:g} s"
    return str(e) or type(e).__name__


async def read_text(response: aiohttp.ClientResponse) -> str:
    """Return the start of a short answer as printable text, for messages."""
    data = await response.content.read(300)
    return "".join(c if c.isprintable() else " " for c in data.decode(errors="replace")).strip()


async def read_json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return an answer that is a JSON object. Raises ValueError for anything else."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MAX_ANSWER:
            raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")
    try:
        answer = json.loads(data)
    except RecursionError:
        raise ValueError("an answer nested too deeply") from None
    if not isinstance(answer, dict):
        raise ValueError("an answer that is no JSON object")
    return answer


async def fileserver_config(session: aiohttp.ClientSession, base: str) -> dict[str, Any]:
    """Return the file server's `GET /config`, {} where it has none to give.

    Args:
        session: an open session.
        base: the file server's URL without a final slash.
    """
    try:
        async with session.get(base + "/config", allow_redirects=False) as response:
            return await read_json(response) if response.status == 200 else {}
    except (*FAULTS, ValueError):
        return {}


def check_delays(base_delay: object, max_delay: object) -> None:
    """Refuse delays (ms) that are no numbers >= 0 with `INVALID_ARGUMENT`."""
    for what, value in (("base_delay", base_delay), ("max_delay", max_delay)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"{what} must be 0 or more milliseconds, not {value!r}"
            )
