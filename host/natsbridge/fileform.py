"""What the file server is sent: a file in a form, and the options of an upload; and how it refuses.

As Plik and Go's standard library read them (FACTS, "Plik").
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from aiohttp import web

__all__ = ["Form", "moving", "read_options", "refusal"]

#: Bytes of a multipart body before its file starts.
MAX_PREFACE = 1 << 20
#: Seconds without a byte moving after which a transfer is given up: a device that lost its
#: network does not say so.
STALL_S = 60.0

_BOUNDARY = re.compile(
    r'multipart/(?:form-data|mixed)\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s";]{1,70}))', re.I
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PARAMETER = re.compile(r';\s*([\w.*-]+)=(?:"([^"]*)"|([^\s";]+))')
_DISPOSITION = re.compile(r'form-data(?:\s*;\s*[\w.*-]+=(?:"[^"]*"|[^\s";]+))*;?', re.I)

T = TypeVar("T")


_ERRORS: dict[int, type[web.HTTPException]] = {
    400: web.HTTPBadRequest,
    403: web.HTTPForbidden,
    404: web.HTTPNotFound,
    500: web.HTTPInternalServerError,
}


def refusal(status: int, message: str) -> web.HTTPException:
    """Return an error as Go writes it: plain text and a line break."""
    return _ERRORS[status](text=message + "\n", headers={"X-Content-Type-Options": "nosniff"})


async def moving(transfer: Awaitable[T]) -> T:
    """Await one step of a transfer. Raises ConnectionAbortedError after `STALL_S`."""
    try:
        return await asyncio.wait_for(transfer, STALL_S)
    except asyncio.TimeoutError:
        raise ConnectionAbortedError(f"no byte moved for {STALL_S:g} s") from None


class Form:
    """The file in a multipart body (RFC 7578): first its name, then its bytes as they arrive.

    A body that ends before the boundary that closes the file is an error, also where HTTP has no
    objection: a sender that fails in the middle of a chunked body can end it well.
    """

    def __init__(self, request: web.Request) -> None:
        match = _BOUNDARY.match(request.headers.get("Content-Type", ""))
        if not match:
            why = "request Content-Type isn't multipart/form-data"
            raise refusal(400, f"invalid multipart form : {why}")
        self._content = request.content
        self._delimiter = b"\r\n--" + (match[1] or match[2]).encode(errors="replace")
        self._held = b"\r\n"
        self._taken = 0

    async def _more(self) -> None:
        data = await moving(self._content.readany())
        if not data:
            raise EOFError
        self._held += data
        self._taken += len(data)

    async def data(self) -> AsyncIterator[bytes]:
        """Yield what comes before the next boundary. Raises EOFError if there is none."""
        keep = len(self._delimiter) - 1
        while (end := self._held.find(self._delimiter)) < 0:
            if len(self._held) > keep:
                yield self._held[:-keep]
                self._held = self._held[-keep:]
            await self._more()
        if end:
            yield self._held[:end]
        self._held = self._held[end + len(self._delimiter) :]

    async def _next_part(self) -> dict[str, str]:
        """Return the next part's parameters ("name", "filename"); its data comes next."""
        async for _ in self.data():
            self._check_preface()
        while b"\r\n\r\n" not in self._held:
            if self._held.startswith(b"--"):
                raise refusal(400, "missing file from multipart form")
            self._check_preface()
            await self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        return self._parameters(head.decode(errors="replace"))

    def _check_preface(self) -> None:
        if self._taken > MAX_PREFACE:
            raise EOFError

    async def name(self) -> str:
        """Go to the part called "file" and return its file name, without folders."""
        try:
            while (part := await self._next_part()).get("name") != "file":
                pass
        except EOFError:
            raise refusal(400, "invalid multipart form : multipart: NextPart: EOF") from None
        name = part.get("filename", "").rstrip("/").rpartition("/")[2]
        if not name:
            raise refusal(400, "missing file name from multipart form")
        if _CONTROL.search(name):
            raise refusal(400, "invalid multipart form : malformed MIME header line")
        return name

    @staticmethod
    def _parameters(head: str) -> dict[str, str]:
        for line in head.split("\r\n"):
            key, _, value = line.partition(":")
            if key.lower() == "content-disposition" and _DISPOSITION.fullmatch(value.strip()):
                found = _PARAMETER.findall(value)
                return {name.lower(): quoted or bare for name, quoted, bare in found}
        return {}


#: The options of an upload that matter here; like Go, we take their names in any case.
_OPTIONS: dict[str, type] = {
    **dict.fromkeys(("oneshot", "removable", "stream"), bool),
    **dict.fromkeys(("login", "password"), str),
    "ttl": int,
}


def read_options(body: bytes) -> dict[str, Any]:
    """Return every option, from JSON as Go reads it: null, or no body at all, changes nothing."""
    options = {name: kind() for name, kind in _OPTIONS.items()}
    try:
        given = json.loads(body or b"null")
        if not isinstance(given, dict | None):
            raise ValueError("not an object")
        for name, value in (given or {}).items():
            kind = _OPTIONS.get(name.casefold())
            if kind and value is not None:
                if type(value) is not kind:
                    raise ValueError(f"{name} is not of type {kind.__name__}")
                options[name.casefold()] = value
    except (ValueError, RecursionError) as e:
        raise refusal(400, f"unable to deserialize request body : {e}") from None
    return options
