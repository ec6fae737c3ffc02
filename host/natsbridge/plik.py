"""Uploading payloads to a Plik file server.

What Plik (1.3.8) really does is told in DESIGN, "The claim check that loses nothing": a failed
file's id cannot be used again, so each attempt adds a new file to the same upload; the answer's
size and MD5 are compared; a refusal is a 400 with text, often before the body was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Mapping
from typing import Any

import aiohttp
from yarl import URL

from natsbridge import http
from natsbridge.arguments import Progress, bounded, check_count, check_field, check_timeout
from natsbridge.errors import INVALID_ARGUMENT, UPLOAD_FAILED, NATSBridgeError
from natsbridge.headers import check_headers
from natsbridge.log import trace
from natsbridge.multipart import Body, file_name
from natsbridge.payload import make_source
from natsbridge.source import Source
from natsbridge.tls import Tls, check_tls
from natsbridge.urls import parse_base, parse_server

__all__ = [
    "DEFAULT_TTL",
    "briefly",
    "drop",
    "plik_oneshot_upload",
    "plik_upload",
    "remove",
    "upload",
]

#: Seconds after which the server forgets a payload that nobody deleted: 24 h.
DEFAULT_TTL = 86400
#: Attempts for each request, and ms between them, as the walkthrough has them for downloads.
ATTEMPTS = 5
BASE_DELAY = 100
MAX_DELAY = 5000
#: Answers of a file server that is the right one, and runs.
REFUSALS = frozenset((400, 401, 403, 413, 429, 500, 507))
#: Seconds that removing what a failed call left behind may take.
CLEANUP_S = 2.0

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: What can't end a header.
_TOKEN = re.compile(r"[!-~]{0,1024}")


class _Refused(Exception):
    """The server's final answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(http.answered(status, text))
        self.status = status


class _Again(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, why: str, status: int = 0, retry_after: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.retry_after = retry_after


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the JSON object that a request was answered with."""
    if response.status != 200:
        text = await http.words(response)
        if response.status in http.RETRY_STATUS:
            raise _Again(
                http.answered(response.status, text),
                response.status,
                response.headers.get("Retry-After", ""),
            )
        if 300 <= response.status < 400:
            text = f"(a redirect to {response.headers.get('Location', '')[:200]})"
        raise _Refused(response.status, text)
    try:
        return await http.read_json(response)
    except ValueError as e:
        raise _Again(f"not the answer of a Plik server: {e}", response.status) from None


def _identifier(answer: dict[str, Any]) -> str:
    value = answer.get("id")
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise _Again("not the answer of a Plik server: it has no id", 200)
    return value


def _token(answer: dict[str, Any]) -> str:
    value = answer.get("uploadToken") or ""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise _Again("not the answer of a Plik server: its token is none", 200)
    return value


class _Upload:
    """One upload of one file."""

    def __init__(self, session: http.Session, base: str, correlation_id: str) -> None:
        self._session = session
        self._base = base
        self._correlation_id = correlation_id
        self.id = ""
        self.token = ""
        self._domain = base
        self._abandoned = False

    async def _attempts(self, what: str, once: Any, attempts: int) -> Any:
        """Await `once()` until it succeeds. Raises `UPLOAD_FAILED`."""
        for attempt in range(1, attempts + 1):
            try:
                return await once()
            except _Refused as e:
                raise self._failed(what, str(e), e.status, attempt) from None
            except _Again as e:
                fault = e
            except http.FINAL_FAULTS as e:
                raise self._failed(what, http.describe(e), 0, attempt) from None
            except http.FAULTS as e:
                fault = _Again(http.describe(e))
            trace(self._correlation_id, f"{what} failed: {fault}")
            if attempt < attempts:
                await http.pause(attempt, BASE_DELAY, MAX_DELAY, fault.retry_after)
        raise self._failed(what, str(fault), fault.status, attempts)

    def _failed(self, what: str, why: str, status: int, attempts: int) -> NATSBridgeError:
        advice = ". Check that this is the file server's URL and that it runs"
        return NATSBridgeError(
            UPLOAD_FAILED,
            f"{what} at {self._base} failed (attempts: {attempts}): {why}"
            f"{'' if status in REFUSALS else advice}",
            {"url": self._base, "status": status, "attempts": attempts},
        )

    async def create(self, ttl: int, removable: bool, one_shot: bool) -> None:
        """Open the upload; `ttl` is in seconds, 0 for the server's default."""

        async def once() -> dict[str, Any]:
            body = {"ttl": ttl, "removable": removable, "oneShot": one_shot}
            async with self._session.post(self._base + "/upload", json=body) as response:
                answer = await _answer(response)
                _identifier(answer)
                _token(answer)
                return answer

        try:
            answer = await self._attempts("creating an upload", once, ATTEMPTS)
        except NATSBridgeError as e:
            # A TTL over the maximum is a 400 with text; the limit is in the configuration.
            if e.details.get("status") != 400:
                raise
            longest = (await http.fileserver_config(self._session, self._base)).get("maxTTL")
            if not isinstance(longest, int) or not 0 < longest < ttl:
                raise
            trace(self._correlation_id, f"The file server keeps files for {longest} s, not {ttl}")
            ttl = longest
            answer = await self._attempts("creating an upload", once, ATTEMPTS)
        self.id = answer["id"]
        self.token = _token(answer)
        domain = answer.get("downloadDomain")
        if domain:
            try:
                self._domain = str(parse_base(domain, "downloadDomain"))
            except NATSBridgeError as e:
                raise self._failed("creating an upload", e.message, 200, 1) from None

    async def send(
        self, name: str, source: Source, on_progress: Progress | None
    ) -> tuple[str, Body]:
        """Send the file; return its id and the hashed body."""

        async def once() -> tuple[str, Body]:
            if source.rewindable:
                await asyncio.to_thread(source.rewind)
            body = Body(name, source, on_progress)
            try:
                return await body.watched(self._send_once(body)), body
            except (*http.FAULTS, _Again):
                self._abandoned = True
                if body.fault:  # the source's or the caller's fault, not the server's
                    raise body.fault from None
                raise

        attempts = ATTEMPTS if source.rewindable else 1
        result: tuple[str, Body] = await self._attempts(f"uploading {name!r}", once, attempts)
        return result

    async def _send_once(self, body: Body) -> str:
        async with self._session.post(
            f"{self._base}/file/{self.id}",
            data=body,
            headers={**body.headers, "X-UploadToken": self.token},
        ) as response:
            answer = await _answer(response)
            identifier = _identifier(answer)
            size, md5 = answer.get("fileSize"), answer.get("fileMd5")
            wrong_size = size is not None and size != body.count
            wrong_md5 = bool(md5 and body.md5 is not None and md5 != body.md5.hexdigest())
            if wrong_size or wrong_md5:
                raise _Again(f"the server stored {size} bytes, not the {body.count} sent", 200)
            return identifier

    def url(self, file_id: str, name: str) -> str:
        """Return where a file can be downloaded."""
        return f"{self._domain}/file/{self.id}/{file_id}/{name}"

    async def tidy(self, kept: str) -> None:
        """Remove the files of attempts that failed; errors are only logged."""
        if not self._abandoned:
            return
        try:
            async with self._session.get(
                f"{self._base}/upload/{self.id}", headers={"X-UploadToken": self.token}
            ) as response:
                files = (await _answer(response)).get("files")
            for file in files if isinstance(files, list) else []:
                file_id, name = (
                    map(file.get, ("id", "fileName")) if isinstance(file, dict) else "  "
                )
                if not (isinstance(file_id, str) and isinstance(name, str)) or file_id == kept:
                    continue
                if not _ID.fullmatch(file_id) or name != file_name(name):
                    continue  # no file of ours
                url = f"{self._base}/file/{self.id}/{file_id}/{name}"
                await remove(self._session, url, self.token, self._correlation_id)
        except (*http.FAULTS, _Again, _Refused) as e:
            trace(self._correlation_id, f"Failed attempts could not be removed: {e}")

    async def drop(self) -> None:
        """Remove the whole upload, of which nothing is used; errors are only logged."""
        if self.id:
            await drop(self._session, self._base, self.id, self.token, self._correlation_id)


async def remove(
    session: http.Session, url: str, token: str = "", correlation_id: str = ""
) -> bool:
    """Delete a file (or, with its token, an upload). Failures are logged, never raised.

    Args:
        session: an open session.
        url: the file's.
        token: the upload's token, where the file is not removable by anybody.
        correlation_id: for the log.
    """
    headers = {"X-UploadToken": token} if token else {}
    try:
        async with session.delete(URL(url, encoded=True), headers=headers) as response:
            done, why = response.status == 200, f"the server answered {response.status}"
    except http.FAULTS as e:
        done, why = False, http.describe(e)
    trace(correlation_id, f"Removed {url}" if done else f"Could not remove {url}: {why}")
    return done


async def drop(
    session: http.Session, base: str, upload_id: str, token: str, correlation_id: str
) -> bool:
    """Delete an upload of ours with its files; as `remove`."""
    return await remove(session, f"{base}/upload/{upload_id}", token, correlation_id)


async def upload(
    session: http.Session,
    base: str,
    source: Source,
    *,
    ttl: int = DEFAULT_TTL,
    removable: bool = False,
    one_shot: bool = False,
    correlation_id: str = "",
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Upload a source in an upload of its own; see `plik_upload` for the result and errors."""
    job = _Upload(session, base, correlation_id)
    name = file_name(source.name)
    try:
        await job.create(ttl, removable, one_shot)
        file_id, body = await job.send(name, source, on_progress)
    except BaseException:
        await briefly(job.drop())
        raise
    await job.tidy(file_id)
    url = job.url(file_id, name)
    check_field(url, "the file's URL")
    trace(correlation_id, f"Uploaded {source.name!r}, {body.count} bytes, to {url}")
    return {
        "status": 200,
        "uploadid": job.id,
        "fileid": file_id,
        "url": url,
        "size": body.count,
        "sha256": body.sha256.hexdigest(),
        "uploadtoken": job.token,
    }


async def briefly(work: Awaitable[object]) -> None:
    """Clean up, but not for long: something has gone wrong already."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(work, CLEANUP_S)


async def plik_upload(
    file_server_url: str,
    dataname: str,
    data: Any,
    *,
    ttl: int = DEFAULT_TTL,
    removable: bool = False,
    headers: Mapping[str, str] | None = None,
    tls: Any = None,
    correlation_id: str = "",
    on_progress: Progress | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Upload one file that any number of receivers can download.

    Args:
        file_server_url: for example "http://localhost:8080", or with a login, which goes to that
            server alone: "https://user:password@host", with %40 for an @ in it.
        dataname: what to call it; unsafe characters are replaced.
        data: bytes-like or a binary stream.
        ttl: seconds until the server forgets it; 0: the server's default. A longer one than the
            server allows becomes its longest.
        removable: whether everybody who knows the URL may delete it.
        headers: more headers for that server, such as {"X-PlikToken": "..."}.
        tls: for https, as `connect` takes it; None: the system's certificate authorities.
        correlation_id: for the log.
        on_progress: called on the event loop's thread with (dataname, bytes done, total or None).
        timeout: seconds for the whole, or None: until no byte moves for 10 s.

    Returns:
        {"status": 200, "uploadid", "fileid", "url", "size" (bytes), "sha256", "uploadtoken"}

    Raises:
        NATSBridgeError: `UPLOAD_FAILED`, `INVALID_ARGUMENT`, `INVALID_PAYLOAD_TYPE`.
    """
    check_headers(headers)
    if not all(value.isascii() for value in (headers or {}).values()):
        raise NATSBridgeError(INVALID_ARGUMENT, "the headers of an upload must be ASCII")
    return await _plik(
        file_server_url,
        dataname,
        data,
        ttl=ttl,
        removable=removable,
        headers=headers,
        tls=check_tls(tls),
        correlation_id=correlation_id,
        on_progress=on_progress,
        timeout=timeout,
    )


async def plik_oneshot_upload(file_server_url: str, dataname: str, data: Any) -> dict[str, Any]:
    """Upload one file that the server deletes at its first download (walkthrough).

    The server marks it as removed before it has sent it: a download that is cut half-way is lost
    for ever, and of several receivers only the first gets it. `plik_upload` has no such risk.

    Args:
        file_server_url: for example "http://localhost:8080".
        dataname: what to call it.
        data: bytes-like or a binary stream.

    Returns:
        {"status": 200, "uploadid", "fileid", "url"}

    Raises:
        NATSBridgeError: as `plik_upload`.
    """
    result = await _plik(file_server_url, dataname, data, one_shot=True)
    return {key: result[key] for key in ("status", "uploadid", "fileid", "url")}


async def _plik(
    file_server_url: str,
    dataname: str,
    data: Any,
    *,
    ttl: int = DEFAULT_TTL,
    removable: bool = False,
    one_shot: bool = False,
    headers: Mapping[str, str] | None = None,
    tls: Tls | None = None,
    correlation_id: str = "",
    on_progress: Progress | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    server = parse_server(file_server_url, "file_server_url")
    base = str(server.base)
    check_field(dataname, "dataname")
    check_count(ttl, "ttl")
    check_timeout(timeout)
    if not isinstance(removable, bool):
        raise NATSBridgeError(INVALID_ARGUMENT, f"removable must be a bool, not {removable!r}")
    source = await asyncio.to_thread(make_source, dataname, data, "binary")

    async def work() -> dict[str, Any]:
        async with http.Session(server, headers, tls) as session:
            return await upload(
                session,
                base,
                source,
                ttl=ttl,
                removable=removable,
                one_shot=one_shot,
                correlation_id=correlation_id,
                on_progress=on_progress,
            )

    def late() -> NATSBridgeError:
        return NATSBridgeError(
            UPLOAD_FAILED,
            f"uploading {dataname!r} to {base} took longer than timeout={timeout} s",
            {"url": base, "status": 0, "attempts": 0},
        )

    return await bounded(work(), timeout, late)
