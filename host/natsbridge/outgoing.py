"""A message on its way out: its sources, their transports, and what was uploaded for it.

DESIGN, "Transport selection that cannot fail at the broker" and "The claim check that loses
nothing".
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from natsbridge import http, plik
from natsbridge.arguments import Progress, check_field
from natsbridge.arrow import is_table
from natsbridge.envelope import base64_size, build_payload, fill, frame, frame_size
from natsbridge.errors import PAYLOAD_TOO_LARGE, UPLOAD_FAILED, NATSBridgeError
from natsbridge.log import trace
from natsbridge.payload import make_source
from natsbridge.source import Source, is_stream
from natsbridge.urls import Server

__all__ = ["Message", "UploadHandler"]

#: handler(file_server_url, dataname, data) -> {"status", "uploadid", "fileid", "url"}
UploadHandler = Callable[[str, str, bytes], Any]


class Message:
    """One message on its way out: its env, its sources, and what was uploaded for it."""

    def __init__(self, env: dict[str, Any], removable: bool, on_progress: Progress | None) -> None:
        self.env = env
        self.removable = removable
        self.on_progress = on_progress
        self.sources: list[Source] = []
        self.values: list[Any] = []
        self.uploaded: list[dict[str, Any]] = []
        self._frame: list[str] = []  # of the env, once it is known
        self.correlation_id: str = env["correlation_id"]

    async def add(self, dataname: str, value: Any, payload_type: str, threshold: int) -> None:
        """Check a payload and choose its transport by its own size."""
        table = payload_type in ("arrowtable", "jsontable") and is_table(value)
        if table or is_stream(value):  # which may block
            source = await asyncio.to_thread(make_source, dataname, value, payload_type)
        else:
            source = make_source(dataname, value, payload_type)
        self.sources.append(source)
        self.values.append(value)
        size = source.size
        trace(
            self.correlation_id,
            f"Serialized payload {dataname!r} (type: {payload_type}) size: {size} bytes",
        )
        direct = size is not None and size < threshold
        self.env["payloads"].append(
            build_payload(dataname, payload_type, "direct", value, size or 0, {})
        )
        if not direct:
            self.to_link(len(self.sources) - 1)

    def to_link(self, i: int) -> None:
        """Make payload `i` a link whose URL is not known yet."""
        # Digest and size are as long as the real ones: they count in the message's size.
        size = self.sources[i].size
        digits = 10**15 if size is None else size
        metadata = {"payload_bytes": digits, "sha256": "0" * 64, "removable": self.removable}
        self.env["payloads"][i].update(
            transport="link", encoding="none", size=digits, data=None, metadata=metadata
        )

    def to_direct(self, i: int) -> None:
        """Make payload `i` direct."""
        size = self.sources[i].size
        self.env["payloads"][i].update(
            transport="direct",
            encoding="base64",
            size=size,
            data=self.values[i],
            metadata={"payload_bytes": size},
        )

    @property
    def has_links(self) -> bool:
        """Whether something is to be uploaded."""
        return len(self._directs()) < len(self.sources)

    def _directs(self) -> list[int]:
        payloads = self.env["payloads"]
        return [i for i, p in enumerate(payloads) if p["transport"] == "direct"]

    def size(self) -> int:
        """Return the bytes of the message, URLs that are not known estimated."""
        sizes = (self.sources[i].size or 0 for i in self._directs())
        self._frame = frame(self.env)
        return frame_size(self.env, self._frame) + sum(map(base64_size, sizes))

    def fit(self, max_payload: int) -> None:
        """Turn the largest direct payloads into links until the message fits the broker.

        Raises:
            NATSBridgeError: `PAYLOAD_TOO_LARGE`.
        """
        while (size := self.size()) > max_payload:
            directs = self._directs()
            if not directs:
                raise NATSBridgeError(
                    PAYLOAD_TOO_LARGE,
                    f"the message needs {size} bytes without any payload inside, and the broker"
                    f" takes {max_payload}: send fewer payloads at once, or less metadata",
                    {"size": size, "max_payload": max_payload},
                )
            largest = max(directs, key=lambda i: self.sources[i].size or 0)
            trace(
                self.correlation_id,
                f"The message would have {size} bytes of {max_payload}: payload"
                f" {self.sources[largest].name!r} goes by link",
            )
            self.to_link(largest)

    def fits_direct(self, i: int, max_payload: int) -> bool:
        """Tell whether payload `i`, now a link, could go inside the message."""
        source = self.sources[i]
        if source.size is None:
            return False
        link = dict(self.env["payloads"][i])
        self.to_direct(i)
        fits = self.size() <= max_payload
        self.env["payloads"][i] = link
        return fits

    async def upload_links(
        self,
        session: http.LazySession,
        handler: UploadHandler | None,
        server: Server,
        max_payload: int,
        fallback: bool,
    ) -> None:
        """Upload every link. Raises `UPLOAD_FAILED` where one can neither go nor stay."""
        for i, payload in enumerate(self.env["payloads"]):
            source = self.sources[i]
            if payload["transport"] == "direct":
                trace(self.correlation_id, f"Using direct transport for {source.size} bytes")
                continue
            trace(self.correlation_id, f"Using link transport for {source.size} bytes")
            self._frame = []  # its URL, size and digest come now
            try:
                result = await self._upload(session, handler, server, source)
            except NATSBridgeError as e:
                if e.code != UPLOAD_FAILED:
                    raise
                if not (fallback and self.fits_direct(i, max_payload)):
                    raise
                trace(self.correlation_id, f"Falling back to direct transport: {e.message}", 30)
                self.to_direct(i)
                continue
            size = result["size"]
            payload.update(
                size=size,
                data=result["url"],
                metadata={
                    "payload_bytes": size,
                    "sha256": result["sha256"],
                    "removable": result["removable"],
                },
            )

    async def _upload(
        self,
        session: http.LazySession,
        handler: UploadHandler | None,
        server: Server,
        source: Source,
    ) -> dict[str, Any]:
        if handler not in (None, plik.plik_upload, plik.plik_oneshot_upload):
            assert handler is not None
            return await _custom_upload(handler, server.full, source, self.on_progress)
        one_shot = handler is plik.plik_oneshot_upload
        removable = self.removable and not one_shot
        result = await plik.upload(
            session.get(),
            str(server.base),
            source,
            removable=removable,
            one_shot=one_shot,
            correlation_id=self.correlation_id,
            on_progress=self.on_progress,
        )
        self.uploaded.append(result)
        return {**result, "removable": removable}

    async def encode(self) -> str:
        """Return the message's JSON text. Raises `INVALID_ARGUMENT` where a source fails."""
        direct = []
        for i in self._directs():
            source = self.sources[i]
            if source.in_memory:
                direct.append(source.read_all())
            else:
                direct.append(await asyncio.to_thread(source.read_all))
            if self.on_progress and source.size:
                self.on_progress(source.name, source.size, source.size)
        return fill(self._frame or frame(self.env), direct)

    async def undo(self, session: http.LazySession, server: Server) -> None:
        """Remove what was uploaded for a message that was not published."""
        for result in self.uploaded:
            await plik.drop(
                session.get(),
                str(server.base),
                result["uploadid"],
                result["uploadtoken"],
                self.correlation_id,
            )

    def close(self) -> None:
        """Close the sources that were opened here."""
        for source in self.sources:
            source.close()


async def _custom_upload(
    handler: UploadHandler, server_url: str, source: Source, on_progress: Progress | None
) -> dict[str, Any]:
    """Upload with a handler of the caller's (walkthrough, "File Server Handler Contract")."""
    data = bytes(await asyncio.to_thread(source.read_all))
    try:
        if inspect.iscoroutinefunction(handler):
            result = await handler(server_url, source.name, data)
        else:
            result = await asyncio.to_thread(handler, server_url, source.name, data)
            if inspect.isawaitable(result):
                result = await result
    except NATSBridgeError as e:
        raise NATSBridgeError(UPLOAD_FAILED, e.message, e.details) from e
    except Exception as e:
        raise NATSBridgeError(
            UPLOAD_FAILED, f"fileserver_upload_handler failed for {source.name!r}: {e!r}"
        ) from e
    url = result.get("url") if isinstance(result, dict) else None
    status = result.get("status", 200) if isinstance(result, dict) else None
    if not isinstance(url, str) or not url or status != 200:
        raise NATSBridgeError(
            UPLOAD_FAILED,
            f"fileserver_upload_handler returned {result!r:.200} for {source.name!r}: it must"
            ' return {"status": 200, "uploadid", "fileid", "url"}',
        )
    check_field(url, "the URL that fileserver_upload_handler returned")
    if on_progress:
        on_progress(source.name, len(data), len(data))
    digest = await asyncio.to_thread(hashlib.sha256, data)
    return {"url": url, "size": len(data), "sha256": digest.hexdigest(), "removable": False}
