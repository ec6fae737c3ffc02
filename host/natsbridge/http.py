"""What uploads and downloads share: the session, its time-outs, and when to try again."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import random
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.tls import Tls, check_tls
from natsbridge.urls import Server

__all__ = [
    "FAULTS",
    "FINAL_FAULTS",
    "RETRY_STATUS",
    "STALL_S",
    "LazySession",
    "Session",
    "answered",
    "check_delays",
    "describe",
    "fileserver_config",
    "pause",
    "read_json",
    "read_text",
    "words",
]

#: Seconds without a byte moving after which a transfer has failed.
STALL_S = 10.0
#: Plik answers a true 404 to this one, and to others a redirect to its web page (DESIGN).
USER_AGENT = "plik_client/natsbridge"
#: Answers worth another attempt (FACTS, "HTTP"); other 4xx are final.
RETRY_STATUS = frozenset((408, 429, 500, 502, 503, 504))
#: What a connection fault can be.
FAULTS = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
#: Those among them that no further attempt mends.
FINAL_FAULTS = (aiohttp.ClientConnectorCertificateError,)
#: What to do about these answers.
ADVICE = {
    401: ": put the login into the file server's URL, http://user:password@host",
    403: ": it does not let these credentials do that",
}
#: What Plik tells instead of its reasons, a full disk among them.
SILENT = ("", "internal server error")
NO_HTTP = "what answers there does not speak HTTP"
#: Bytes of an answer that is not a payload.
MAX_ANSWER = 64 << 10


class _Socket(socket.socket):
    """A socket that leaves it to its reader to find that the other end has gone.

    A server that refuses an upload answers, and resets the connection while the body is still
    coming: an event loop whose write fails then reads no more, and never hears why.
    """

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            return len(data)

    if hasattr(socket.socket, "sendmsg"):

        def sendmsg(self, buffers: Iterable[Any], *more: Any) -> int:
            buffers = list(buffers)
            try:
                return super().sendmsg(buffers, *more)
            except (BrokenPipeError, ConnectionResetError):
                return sum(map(len, buffers))


def _watch_for_reuse() -> aiohttp.TraceConfig:
    """Return what tells a request, in its `trace_request_ctx`, that its connection is not new."""

    async def reused(session: Any, context: SimpleNamespace, params: Any) -> None:
        context.trace_request_ctx.append(True)

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(reused)
    return config


class _Protocol(ResponseHandler):
    """aiohttp's, in which who reads a body that turns out to be no HTTP waits for ever (3.14)."""

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """Tell whoever waits that the connection is at its end."""
        super().set_exception(exc, *cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(NO_HTTP))


class Session:
    """A session for one operation; use it with `async with`. It follows no redirects.

    Args:
        server: the caller's own file server, whose login goes to its origin alone.
        headers: further headers for that origin.
        tls: for https; None: the system's certificate authorities. Its hostname is the server's.
    """

    def __init__(
        self,
        server: Server | None = None,
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._origin = server.base.origin if server else ""
        self._headers = dict(headers or {})
        if server and server.login:
            self._headers = {"Authorization": server.authorization, **self._headers}
        self._hostname = tls.hostname if tls else ""
        connector = aiohttp.TCPConnector(
            ssl=tls.context if tls else True,
            socket_factory=lambda address: _Socket(*address[:3]),
        )
        loop = asyncio.get_running_loop()
        connector._factory = functools.partial(_Protocol, loop=loop)  # type: ignore[assignment]
        self._client = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[_watch_for_reuse()],
        )
        # By itself it makes every GET again that breaks off: those would be uncounted attempts.
        self._client._retry_connection = False

    @asynccontextmanager
    async def request(
        self, method: str, url: str | URL, headers: Mapping[str, str] | None = None, **body: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request; `async with` gives its answer."""
        told = dict(headers or {})
        # What is compared is what will be connected to.
        if self._origin and str(URL(url).origin()) == self._origin:
            told = {**self._headers, **told}
            if self._hostname:
                body["server_hostname"] = self._hostname
        reused: list[bool] = []
        body.update(headers=told, allow_redirects=False, trace_request_ctx=reused)
        try:
            response = await self._client.request(method, url, **body)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if method == "POST" or not reused:
                raise
            # The server had closed a connection that waited: nothing came of this request yet.
            response = await self._client.request(method, url, **body)
        async with response:
            yield response

    def get(
        self, url: str | URL, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Make a GET request."""
        return self.request("GET", url, **options)

    def post(
        self, url: str | URL, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Make a POST request."""
        return self.request("POST", url, **options)

    def delete(
        self, url: str | URL, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Make a DELETE request."""
        return self.request("DELETE", url, **options)

    async def close(self) -> None:
        """End it."""
        await self._client.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class LazySession:
    """A session that is opened by its first `get`: most messages have no links.

    Args:
        server: the caller's own file server.
        tls: what `connect` was told about TLS; a hostname in it is the broker's.
    """

    def __init__(self, server: Server, tls: object = None) -> None:
        self._server = server
        self._tls = tls
        self._session: Session | None = None

    def get(self) -> Session:
        """Return the session."""
        if self._session is None:
            tls = check_tls(self._tls)
            self._session = Session(self._server, tls=tls and tls._replace(hostname=""))
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
        max_delay: ms at most, whatever the server asks for.
        retry_after: the server's Retry-After in seconds, or "" (dates are not understood).
    """
    delay = min(base_delay * 2 ** min(attempt - 1, 32), max_delay)
    delay *= random.uniform(0.25, 1)  # many devices must not come back in step
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9:
        delay = max(delay, min(float(retry_after) * 1000, max_delay))
    await asyncio.sleep(delay / 1000)


def describe(e: BaseException) -> str:
    """Return what a connection fault was, never empty and of one line."""
    if isinstance(e, aiohttp.ClientResponseError):
        return NO_HTTP  # and what it said may be long
    if isinstance(e, asyncio.TimeoutError):
        return f"no byte moved for {STALL_S:g} s"
    return str(e) or type(e).__name__


async def read_text(response: aiohttp.ClientResponse) -> str:
    """Return the start of a short answer as printable text, for messages."""
    data = await response.content.read(300)
    return "".join(c if c.isprintable() else " " for c in data.decode(errors="replace")).strip()


async def words(response: aiohttp.ClientResponse) -> str:
    """Return the start of an error's answer as `read_text`, "" where it breaks off."""
    try:
        return await read_text(response)
    except FAULTS:
        return ""


def answered(status: int, text: str) -> str:
    """Return what a server answered instead of what it was asked for, for messages."""
    text = text.removeprefix(str(status)).lstrip(" :")  # aiohttp's text is "404: Not Found"
    advice = ADVICE.get(status, "")
    if status == 500 and text.lower() in SILENT:
        advice = ": its log says why; is its disk full?"
    return f"the server answered {status} {text}".rstrip() + advice


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


async def fileserver_config(session: Session, base: str) -> dict[str, Any]:
    """Return the file server's `GET /config`, {} where it has none to give.

    Args:
        session: an open session.
        base: the file server's URL without a final slash.
    """
    try:
        async with session.get(base + "/config") as response:
            return await read_json(response) if response.status == 200 else {}
    except (*FAULTS, ValueError):
        return {}


def check_delays(base_delay: object, max_delay: object) -> None:
    """Refuse delays (ms) that are no finite numbers >= 0 with `INVALID_ARGUMENT`."""
    for what, value in (("base_delay", base_delay), ("max_delay", max_delay)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:  # type: ignore[operator]
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"{what} must be 0 or more milliseconds, not {value!r}"
            )
