"""A message on its way in: delivering, fetching, verifying, and leaving nothing behind.

Files get their final names, and files on the server are deleted, only when every payload of the
message is complete (DESIGN, "The claim check that loses nothing").
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from typing import Any

from natsbridge import http, jsontext, plik
from natsbridge.allowed import Allowed
from natsbridge.arguments import Progress
from natsbridge.client import Connection
from natsbridge.download import MEMORY_LIMIT, Download, fetch_with_backoff, in_thread
from natsbridge.errors import DOWNLOAD_FAILED, PAYLOAD_TOO_LARGE, NATSBridgeError
from natsbridge.log import trace
from natsbridge.payload import BYTE_TYPES, from_bytes, from_json
from natsbridge.reader import Envelope, Payload, check_payload, decode_direct
from natsbridge.sink import (
    FileTarget,
    MemoryTarget,
    SinkFunction,
    Target,
    WritableTarget,
    sink_failed,
)
from natsbridge.urls import Server, Url, not_allowed, parse_url

__all__ = ["FAST", "INLINE", "DownloadHandler", "Incoming"]

#: handler(url, max_retries, base_delay, max_delay, correlation_id) -> bytes
DownloadHandler = Callable[[str, int, float, float, str], Any]


#: Bytes of JSON or text that are parsed on the event loop: about a millisecond's work, where a
#: hop to a worker thread costs a tenth.
INLINE = 256 << 10
#: The same for bytes that are only decoded, or copied.
FAST = 4 << 20


#: Bytes that are made a value on the event loop; without limit where there is nothing to do.
_FREELY = {"text": FAST, "dictionary": INLINE, "jsontable": INLINE, "arrowtable": -1}


class Incoming:
    """One message on its way in."""

    def __init__(
        self,
        envelope: Envelope,
        allowed: Allowed,
        sink: str | os.PathLike[str] | SinkFunction | None,
        limit: int | None,
        handler: DownloadHandler | None,
        retries: tuple[int, float, float],
        on_progress: Progress | None,
    ) -> None:
        self.envelope = envelope
        self.correlation_id: str = envelope.fields["correlation_id"]
        self.allowed = allowed
        self.sink = sink
        self.limit = limit
        self.handler = handler
        self.retries = retries
        self.on_progress = on_progress
        self.payloads: list[Payload] = []
        self.targets: list[Target | None] = []
        self.values: list[Any] = []
        self.consumed: list[Url] = []

    async def run(self, session: http.LazySession) -> list[tuple[str, Any, str]]:
        """Deliver every payload; on any failure leave nothing behind."""
        try:
            for i, raw in enumerate(self.envelope.payloads):
                payload = check_payload(raw, i)
                self.payloads.append(payload)
                self.targets.append(None)
                self.values.append(None)
                self._check_size(payload, payload.size or 0)
                if payload.transport == "direct":
                    await self._direct(i, payload)
            for i, payload in enumerate(self.payloads):
                if payload.transport == "link":
                    await self._link(session, i, payload)
            for i, target in enumerate(self.targets):
                if target is not None and not isinstance(target, MemoryTarget):
                    self.values[i] = await in_thread(target.commit)
        except BaseException:
            for target in self.targets:
                if target is not None:
                    target.discard()
            raise
        return [
            (p.dataname, value, p.payload_type)
            for p, value in zip(self.payloads, self.values, strict=True)
        ]

    def _check_size(self, payload: Payload, size: int, memory: bool = False) -> None:
        limit = MEMORY_LIMIT if memory and self.limit is None else self.limit
        if limit is not None and size > limit:
            raise NATSBridgeError(
                PAYLOAD_TOO_LARGE,
                f"{payload.dataname!r} has {size} bytes, more than the {limit} allowed: raise"
                " max_payload_size, or receive into a folder (sink=...)",
                {"dataname": payload.dataname, "size": size, "limit": limit},
            )

    async def _target(self, i: int, payload: Payload, size: int | None) -> Target:
        """Return where payload `i` goes, and remember it."""
        target: Target | None = None
        if callable(self.sink):
            try:
                writable = await self._opened(payload, size)
            except OSError as e:
                raise sink_failed(payload.dataname, e) from e
            if isinstance(writable, Target):  # of the command `natsbridge receive`
                target = writable
            elif writable is not None:
                target = WritableTarget(payload.dataname, writable)
        elif self.sink is not None and payload.payload_type in BYTE_TYPES:
            target = FileTarget(self.sink, payload.dataname)
        if target is None:
            self._check_size(payload, size or 0, memory=True)
            target = MemoryTarget()
        self.targets[i] = target
        return target

    async def _opened(self, payload: Payload, size: int | None) -> Any:
        """Ask the caller's sink where a payload goes."""
        sink = self.sink
        assert callable(sink)
        opened: list[Any] = []
        try:
            await in_thread(
                lambda: opened.append(sink(payload.dataname, payload.payload_type, size))
            )
        except asyncio.CancelledError:
            for target in opened:
                if isinstance(target, Target):
                    target.discard()  # nobody else knows of it
            raise
        return opened[0]

    async def _direct(self, i: int, payload: Payload) -> None:
        data, value = decode_direct(payload, self.envelope.size)
        if data is None:
            # Encoding "json" holds the value itself; a writable gets its text.
            value = from_json(payload.dataname, value, payload.payload_type)
            data = _json_bytes(value, payload.payload_type)
        self._check_size(payload, len(data))
        target = await self._target(i, payload, len(data))
        if isinstance(target, MemoryTarget):
            self.values[i] = await self._value(data, payload)
        else:
            await in_thread(target.write, data)
        if self.on_progress and data:
            self.on_progress(payload.dataname, len(data), len(data))

    async def _link(self, session: http.LazySession, i: int, payload: Payload) -> None:
        url = await self._check_url(session, payload.data)
        target = await self._target(i, payload, payload.size)
        memory = isinstance(target, MemoryTarget)
        max_retries, base_delay, max_delay = self.retries
        download = Download(
            dataname=payload.dataname,
            url=url,
            allowed=self.allowed,
            size=payload.size,
            sha256=payload.metadata.get("sha256") or "",
            limit=MEMORY_LIMIT if memory and self.limit is None else self.limit,
            max_retries=max_retries,
            base_delay=base_delay,
            max_delay=max_delay,
            correlation_id=self.correlation_id,
            on_progress=self.on_progress,
        )
        trace(self.correlation_id, f"Downloading {payload.dataname!r} from {url}")
        if self.handler is None or self.handler is fetch_with_backoff:
            await download.run(session.get(), target)
        else:
            await self._custom(self.handler, download, target)
        if isinstance(target, MemoryTarget):
            self.values[i] = await self._value(target.commit(), payload)
        verified = payload.size is not None and download.sha256
        if verified and payload.metadata.get("removable") is True:
            target.lasting = True
            self.consumed.append(url)

    async def _custom(self, handler: DownloadHandler, download: Download, target: Target) -> None:
        """Fetch with a handler of the caller's (walkthrough, "Download Handler Contract")."""
        arguments = (str(download.url), *self.retries, self.correlation_id)
        try:
            if inspect.iscoroutinefunction(handler):
                data = await handler(*arguments)
            else:
                data = await asyncio.to_thread(handler, *arguments)
                if inspect.isawaitable(data):
                    data = await data
        except NATSBridgeError:
            raise
        except Exception as e:
            raise download.failed(f"fileserver_download_handler: {e!r}", 0, 1) from e
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise NATSBridgeError(
                DOWNLOAD_FAILED,
                f"fileserver_download_handler returned a {type(data).__name__}, not bytes",
            )
        await download.deliver(bytes(data), target)

    async def _check_url(self, session: http.LazySession, text: str) -> Url:
        try:
            url = parse_url(text)
        except ValueError:
            raise not_allowed(text, self.allowed.bases) from None
        await self.allowed.check(session.get(), url)
        return url

    async def _value(self, data: bytes, payload: Payload) -> Any:
        limit = MEMORY_LIMIT if self.limit is None else self.limit
        arguments = (payload.dataname, data, payload.payload_type, limit)
        if len(data) <= _FREELY.get(payload.payload_type, len(data)):
            return from_bytes(*arguments)
        return await in_thread(from_bytes, *arguments)

    async def consume(self, me: Connection | None, server: Server) -> None:
        """Delete from the server what was meant for this receiver alone."""
        fields = self.envelope.fields
        if me is None:
            return
        if fields["receiver_id"]:
            mine = fields["receiver_id"] == me.id
        else:
            mine = bool(fields["receiver_name"]) and fields["receiver_name"] == me.name
        async with http.LazySession(server, me.tls) as session:
            for url in self.consumed if mine else []:
                if _is_file(url):
                    await plik.remove(session.get(), str(url), "", self.correlation_id)


def _is_file(url: Url) -> bool:
    """Tell whether a URL's path is exactly /file/<upload>/<file>/<name> (PROTOCOL.md)."""
    parts = url.path.split("/")
    return not url.query and len(parts) == 5 and parts[1] == "file" and all(parts[2:])


def _json_bytes(value: Any, payload_type: str) -> bytes:
    text: str = value if payload_type == "text" else jsontext.dumps(value)
    return text.encode()
