"""Servers that note who comes: canaries, where nobody has any business, and a file server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Where a canary listens, as far as this machine has these addresses.
ADDRESSES = (
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, "127.0.0.2"),
    (socket.AF_INET6, "::1"),
)
PATIENCE_S = 10


class Canary:
    """Listens on one port of all loopback addresses; `heard` is what came there, as it came."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listeners = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._listeners[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        for family, address in ADDRESSES[1:]:
            with contextlib.suppress(OSError):
                self._listeners.append(socket.create_server((address, self.port), family=family))
        self._threads = [
            threading.Thread(target=self._listen, args=(listener,), daemon=True)
            for listener in self._listeners
        ]

    def __enter__(self) -> Canary:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _listen(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                at = len(self.heard)
                self.heard.append(b"")  # whoever connects was here, and need say nothing
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1)
                    self.heard[at] = connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")


#: Status, header lines, body.
Answer = tuple[int, list[str], bytes]
FOUND: Answer = (200, [], b"abc")


class Files:
    """A file server that answers as `rule`, called with method and target, says.

    `requests` holds (method, target, Host), as they came.
    """

    def __init__(self) -> None:
        self.rule: Callable[[str, str], Answer] = lambda method, target: FOUND
        self.requests: list[tuple[str, str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.close_connection = True
                line = self.rfile.readline(4096)
                if not line:
                    return
                method, target, _ = line.decode("latin-1").rstrip("\r\n").split(" ", 2)
                headers = {}
                while field := self.rfile.readline(4096).rstrip(b"\r\n").decode("latin-1"):
                    name, _, value = field.partition(": ")
                    headers[name.lower()] = value
                self.rfile.read(int(headers.get("content-length", 0)))
                outer.requests.append((method, target, headers["host"]))
                status, lines, body = outer.rule(method, target)
                head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
                head += [*lines, "Connection: close", "", ""]
                self.wfile.write("\r\n".join(head).encode() + body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Files:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)
