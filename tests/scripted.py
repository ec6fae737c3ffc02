"""Servers that do what a test tells them, for what real ones won't do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

#: Seconds that a connection of a scripted server waits for its client.
PATIENCE_S = 10
INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n'


class ScriptedBroker:
    """Accepts one connection after the other, and plays `talk` on each."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._talk = talk
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._talk(connection)
                except OSError:
                    continue

    def close(self) -> None:
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)


def greet(connection: socket.socket, info: bytes = INFO, subject: bytes = b"faults") -> None:
    """Shake hands as a broker does, and wait for a subscription to `subject`."""
    connection.sendall(info)
    seen = b""
    while b"PING\r\n" not in seen:
        seen += connection.recv(4096)
    connection.sendall(b"PONG\r\n")
    while b"SUB " + subject not in seen or not seen.endswith(b"\n"):
        seen += connection.recv(4096)


class Request:
    """A request that a scripted server read: `line`, `headers` (names in lower case), `body`."""

    def __init__(self, line: str, headers: dict[str, str], body: bytes) -> None:
        self.line = line
        self.headers = headers
        self.body = body


class Peer:
    """The scripted server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._input = connection.makefile("rb")

    def head(self) -> Request:
        """Read a request's head."""
        line = self._input.readline().decode().rstrip()
        if not line:
            raise EOFError
        headers = {}
        while field := self._input.readline().decode().rstrip():
            name, _, value = field.partition(": ")
            headers[name.lower()] = value
        return Request(line, headers, b"")

    def request(self) -> Request:
        """Read a request with its body."""
        request = self.head()
        if request.headers.get("transfer-encoding") == "chunked":
            while size := int(self._input.readline(), 16):
                request.body += self._input.read(size)
                assert self._input.readline() == b"\r\n"
            assert self._input.readline() == b"\r\n"
        else:
            request.body = self._input.read(int(request.headers.get("content-length", 0)))
        return request

    def read(self, size: int) -> bytes:
        """Read a piece of a body."""
        return self._input.read(size)

    def line(self) -> bytes:
        """Read a line."""
        return self._input.readline()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close in order."""
        self._input.close()
        self.socket.close()


Step = bytes | Callable[[Peer], None]


class ScriptedServer:
    """An HTTP server on loopback that misbehaves as told.

    Each argument is one connection, in the order in which they come: a list of steps, after
    which it is closed. A step of bytes reads a request and answers with them; a callable gets the
    Peer. Further connections are refused. `requests` holds the requests of the steps of bytes.
    """

    def __init__(self, *connections: list[Step]) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._script = connections
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        for steps in self._script:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if not self._script:
                return
            self.connections += 1
            connection.settimeout(PATIENCE_S)
            peer = Peer(connection)
            try:
                for step in steps:
                    if callable(step):
                        step(peer)
                    else:
                        self.requests.append(peer.request())
                        peer.send(step)
            except (OSError, EOFError, ValueError):
                pass  # the firmware has gone
            peer.close()
        self._socket.close()

    @property
    def lines(self) -> list[str]:
        """The request lines."""
        return [request.line for request in self.requests]

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._script = ()
        with contextlib.suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(PATIENCE_S)


def answer(body: bytes = b"", status: int = 200, *headers: str) -> bytes:
    """Return an HTTP answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
