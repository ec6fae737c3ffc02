"""A file server that stores as Plik does, but for what a test has it do to a few requests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from scripted import PATIENCE_S, Peer, Request, answer

#: Does something else with a request whose head was read; then the connection is closed.
Fault = Callable[["Store", Peer, Request], None]


class Store:
    """Listens on loopback. `uploads` is what it has, as {upload: {file: content}}.

    creating, sending: what happens to the first requests for a new upload, and for a file.
    """

    def __init__(self, creating: list[Fault], sending: list[Fault]) -> None:
        self.uploads: dict[str, dict[str, bytes]] = {}
        self.lines: list[str] = []
        #: Set when nobody waits any more.
        self.over = threading.Event()
        self._creating = list(creating)
        self._sending = list(sending)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen)
        self._threads: list[threading.Thread] = []
        self._peers: list[Peer] = []
        self._count = 0

    def __enter__(self) -> Store:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._socket.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                connection.settimeout(PATIENCE_S)
                peer = Peer(connection)
                self._peers.append(peer)
                thread = threading.Thread(target=self._serve, args=(peer,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: Peer) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, AssertionError):
            while True:
                request = peer.head()
                self.lines.append(request.line)
                if request.line.startswith("POST"):
                    new = request.line.startswith("POST /upload ")
                    if faults := self._creating if new else self._sending:
                        faults.pop(0)(self, peer, request)
                        break
                peer.send(self.answer(request, body(peer, request)))
        peer.close()

    def new(self) -> str:
        """An id that was never given."""
        self._count += 1
        return f"id{self._count}"

    def answer(self, request: Request, content: bytes) -> bytes:
        """What Plik answers to a request; what was sent is stored."""
        method, path, _ = request.line.split()
        _, kind, upload, *rest = [*path.split("/"), ""]
        if method == "POST" and kind == "upload":
            upload = self.new()
            self.uploads[upload] = {}
            return said({"id": upload, "uploadToken": "t"})
        if upload not in self.uploads:
            return answer(b"no such upload", 404)
        if method == "POST":
            return said(self.store(upload, content))
        if method == "GET":
            files = [{"id": name, "fileName": "f.bin"} for name in self.uploads[upload]]
            return said({"files": files})
        if kind == "upload":
            del self.uploads[upload]
        else:
            self.uploads[upload].pop(rest[0], None)
        return answer(b"ok")

    def store(self, upload: str, content: bytes) -> dict[str, Any]:
        """Store a file: what is said of it."""
        name = self.new()
        start = content.index(b"\r\n\r\n") + 4
        data = content[start : content.rindex(b"\r\n--")]
        self.uploads[upload][name] = data
        md5 = hashlib.md5(data).hexdigest()
        return {"id": name, "fileName": "f.bin", "fileSize": len(data), "fileMd5": md5}


def body(peer: Peer, request: Request) -> bytes:
    """Read a request's body."""
    if request.headers.get("transfer-encoding") != "chunked":
        return peer.read(int(request.headers.get("content-length", 0)))
    content = b""
    while size := int(peer.line(), 16):
        content += peer.read(size)
        peer.line()
    peer.line()
    return content


def said(value: Any, status: int = 200) -> bytes:
    """An answer in JSON."""
    return answer(json.dumps(value).encode(), status)
