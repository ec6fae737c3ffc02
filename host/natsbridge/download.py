"""Downloading a link payload, verified by size and digest.

Nothing but size and digest proves that a body is complete: a cut body is an error only where it
had a Content-Length, and chunked framing can end early and be well-formed (FACTS, "HTTP").
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from natsbridge import http
from natsbridge.allowed import Allowed
from natsbridge.arguments import Progress, check_count
from natsbridge.errors import (
    DOWNLOAD_FAILED,
    INTEGRITY_ERROR,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)
from natsbridge.log import trace
from natsbridge.sink import MemoryTarget, Target
from natsbridge.source import CHUNK
from natsbridge.urls import Url, check_url, not_allowed, resolve

__all__ = ["MEMORY_LIMIT", "Download", "fetch_with_backoff", "in_thread"]

#: Bytes of one payload that may go to memory unless the caller says otherwise.
MEMORY_LIMIT = 1 << 30
#: Redirects followed, each to an allowed URL.
MAX_REDIRECTS = 3
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Run `work` in a worker thread, and when cancelled wait until the thread has let go.

    Closing a file under a thread that still writes would write into whatever file gets its
    descriptor next.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise


class _Again(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, why: str, status: int = 0, retry_after: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.retry_after = retry_after


@dataclass
class Download:
    """One payload to fetch.

    Attributes:
        dataname: for messages and `on_progress`.
        url: where it is.
        allowed: URLs that may be opened, which it and every redirect must be.
        size: bytes that the envelope claims, or None.
        sha256: hexadecimal digest that the envelope claims, or "".
        limit: bytes at most, or None.
        max_retries: attempts.
        base_delay, max_delay: ms between them.
        correlation_id: for the log.
        on_progress: called on the event loop's thread.
    """

    dataname: str
    url: Url
    allowed: Allowed
    size: int | None = None
    sha256: str = ""
    limit: int | None = None
    max_retries: int = 5
    base_delay: float = 100
    max_delay: float = 5000
    correlation_id: str = ""
    on_progress: Progress | None = None

    async def run(self, session: http.Session, target: Target) -> None:
        """Fetch into `target`.

        Raises:
            NATSBridgeError: `DOWNLOAD_FAILED`, `INTEGRITY_ERROR`, `PAYLOAD_TOO_LARGE`,
                `URL_NOT_ALLOWED`, and what `target` raises.
        """
        transfer = _Transfer(self, target)
        for attempt in range(1, self.max_retries + 1):
            try:
                await transfer.attempt(session)
                return
            except _Again as e:
                fault = e
            except http.FINAL_FAULTS as e:
                raise self.failed(http.describe(e), 0, attempt) from None
            except http.FAULTS as e:
                fault = _Again(http.describe(e))
            trace(self.correlation_id, f"Download of {self.dataname!r} failed: {fault}")
            if attempt < self.max_retries:
                await http.pause(attempt, self.base_delay, self.max_delay, fault.retry_after)
        details = {"dataname": self.dataname, "url": str(self.url), "attempts": self.max_retries}
        if transfer.ended_early:
            raise self._integrity(
                f"its body ends after {transfer.position} of {self.size} bytes", details
            )
        raise self.failed(str(fault), fault.status, self.max_retries)

    def failed(self, why: str, status: int, attempts: int) -> NATSBridgeError:
        """Return a `DOWNLOAD_FAILED` for this payload."""
        return NATSBridgeError(
            DOWNLOAD_FAILED,
            f"cannot fetch {self.dataname!r} from {self.url} (attempts: {attempts}): {why}",
            {
                "dataname": self.dataname,
                "url": str(self.url),
                "status": status,
                "attempts": attempts,
            },
        )

    def _integrity(self, why: str, details: dict[str, Any] | None = None) -> NATSBridgeError:
        return NATSBridgeError(
            INTEGRITY_ERROR,
            f"{self.dataname!r} from {self.url} is not what was sent: {why}",
            details or {"dataname": self.dataname, "url": str(self.url), "size": self.size},
        )

    def check_length(self, length: int) -> None:
        """Refuse a body that is or becomes longer than it may be."""
        if self.limit is not None and length > self.limit:
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"{self.dataname!r} from {self.url} has {length} bytes or more, and"
                f" max_payload_size is {self.limit}",
                {"dataname": self.dataname, "size": length, "limit": self.limit},
            )
        if self.size is not None and length > self.size:
            raise self._integrity(f"it has {length} bytes or more, not {self.size}")

    def check_content_length(self, length: int) -> None:
        """Refuse a body whose Content-Length is not the claimed size."""
        self.check_length(length)
        if self.size is not None and length != self.size:
            raise self._integrity(f"it has {length} bytes, not {self.size}")

    def check_digest(self, digest: str) -> None:
        """Compare the digest of the whole body with the claimed one."""
        if self.sha256 and digest != self.sha256.lower():
            raise self._integrity("its SHA-256 digest differs")

    async def deliver(self, data: bytes, target: Target) -> None:
        """Verify what somebody else downloaded, and write it to `target`."""
        self.check_content_length(len(data))
        if self.sha256:
            digest = await in_thread(hashlib.sha256, data)
            self.check_digest(digest.hexdigest())
        await in_thread(target.write, data)
        if self.on_progress:
            self.on_progress(self.dataname, len(data), len(data))


class _Transfer:
    """The state that attempts share: how much of the body was delivered, and its digest."""

    def __init__(self, download: Download, target: Target) -> None:
        self._download = download
        self._target = target
        self._delivered = 0
        self._delivered_hash = hashlib.sha256()
        self.position = 0
        self.ended_early = False
        self._hash = self._delivered_hash
        self._in_ranges = True

    async def attempt(self, session: http.Session) -> None:
        """Fetch once. Raises `_Again` or a connection fault where another attempt may help."""
        self.ended_early = False
        download, url = self._download, self._download.url
        for _ in range(MAX_REDIRECTS + 1):
            await download.allowed.check(session, url)
            headers = {"Range": f"bytes={self._delivered}-"} if self._resumes() else {}
            async with session.get(URL(str(url), encoded=True), headers=headers) as response:
                if response.status not in _REDIRECTS:
                    await self._receive(response)
                    return
                location = response.headers.get("Location")
                if not location:
                    raise download.failed("a redirect to nowhere", response.status, 1)
                try:
                    url = resolve(url, location)
                except ValueError:
                    raise not_allowed(location, download.allowed.bases) from None
        raise download.failed(f"more than {MAX_REDIRECTS} redirects", response.status, 1)

    def _resumes(self) -> bool:
        """Whether to ask for the rest: only a digest can tell whether halves belong together."""
        return bool(self._delivered and self._download.sha256 and self._in_ranges)

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        download, status = self._download, response.status
        if status in http.RETRY_STATUS:
            retry_after = response.headers.get("Retry-After", "")
            text = await http.words(response)
            raise _Again(http.answered(status, text), status, retry_after)
        resumed = status == 206 and self._resumes()
        if status != 200 and not resumed:
            text = await http.words(response)
            raise download.failed(http.answered(status, text), status, 1)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise download.failed("the server compressed it, unasked", status, 1)
        if resumed:
            content_range = response.headers.get("Content-Range", "")
            last = "" if download.size is None else f"{download.size - 1}/"
            if not content_range.startswith(f"bytes {self._delivered}-{last}"):
                self._in_ranges = False  # all of it, then
                raise _Again(f"not the range asked for: {content_range[:100]}", status)
            self.position, self._hash = self._delivered, self._delivered_hash
        else:
            await self._begin_again()
        if response.content_length is not None:
            download.check_content_length(self.position + response.content_length)
        await self._read(response)
        if download.size is not None and self.position < download.size:
            self.ended_early = True
            raise _Again(f"the body ended after {self.position} of {download.size} bytes")
        download.check_digest(self._hash.hexdigest())

    async def _begin_again(self) -> None:
        """Start at the body's first byte; what was delivered is rewritten or skipped."""
        self.position = 0
        self._hash = hashlib.sha256()
        if not self._delivered or await in_thread(self._target.restart):
            self._delivered = 0
            self._delivered_hash = self._hash

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        pieces: list[bytes] = []
        held = 0
        try:
            async for piece in response.content.iter_any():
                pieces.append(piece)
                held += len(piece)
                self._download.check_length(self.position + held)
                if held >= CHUNK:
                    data = b"".join(pieces)
                    pieces, held = [], 0
                    await self._take(data)
        except aiohttp.ClientError:
            if pieces:  # what did arrive need not be fetched again
                await self._take(b"".join(pieces))
            raise
        if pieces:
            await self._take(b"".join(pieces))

    async def _take(self, data: bytes) -> None:
        await in_thread(self._process, data)
        if self._download.on_progress:
            self._download.on_progress(self._download.dataname, self.position, self._download.size)

    def _process(self, data: bytes) -> None:
        """Hash and deliver (in a worker thread); skip what an earlier attempt delivered."""
        view = memoryview(data)
        skipped = min(max(self._delivered - self.position, 0), len(view))
        if skipped:
            self._hash.update(view[:skipped])
            self.position += skipped
            view = view[skipped:]
            if self.position == self._delivered:
                if self._hash.digest() != self._delivered_hash.digest():
                    raise self._download._integrity("it changed between two attempts")
                self._delivered_hash = self._hash
        if view:
            self._target.write(view)
            self._hash.update(view)
            self.position += len(view)
            self._delivered = self.position


async def fetch_with_backoff(
    url: str,
    max_retries: int = 5,
    base_delay: float = 100,
    max_delay: float = 5000,
    correlation_id: str = "",
) -> bytes:
    """Download a URL into memory (walkthrough, "Exponential Backoff for Downloads").

    Args:
        url: http or https; redirects are followed within its origin only.
        max_retries: attempts in all, at least 1.
        base_delay: ms before the second attempt; doubled before each further one.
        max_delay: ms at most.
        correlation_id: for the log.

    Raises:
        NATSBridgeError: `DOWNLOAD_FAILED`, `INVALID_ARGUMENT`; `PAYLOAD_TOO_LARGE` for more than
            `MEMORY_LIMIT` bytes; `URL_NOT_ALLOWED` for a redirect to another origin.
    """
    check_count(max_retries, "max_retries", 1)
    http.check_delays(base_delay, max_delay)
    parsed = check_url(url, "url")
    target = MemoryTarget()
    download = Download(
        dataname=parsed.path.rpartition("/")[2] or str(parsed),
        url=parsed,
        allowed=Allowed([Url(parsed.scheme, parsed.host, parsed.port, "/")]),
        limit=MEMORY_LIMIT,
        max_retries=max_retries,
        base_delay=base_delay,
        max_delay=max_delay,
        correlation_id=correlation_id,
    )
    async with http.Session() as session:
        await download.run(session, target)
    return target.commit()
