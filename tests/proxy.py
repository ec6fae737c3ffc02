"""What stands before a server: any, and one that has TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TypeVar
from urllib.parse import urlsplit

from certificates import Certificates

PATIENCE_S = 10
P = TypeVar("P", bound="Proxy")


class Proxy:
    """Listens on loopback for what is meant for another; `serve` does with it what it likes.

    `connections` is how many came.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0

    def serve(self, client: socket.socket) -> None:
        """Serve a connection."""
        raise NotImplementedError

    def __enter__(self: P) -> P:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()


def pass_on(client: socket.socket, server: socket.socket, heard: bytearray | None = None) -> None:
    """Pass bytes both ways until both have ended; what the client says is `heard`, too."""
    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
    back.start()
    _pump(client, server, heard)
    back.join(PATIENCE_S)


def _pump(source: socket.socket, target: socket.socket, heard: bytearray | None = None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if heard is not None:
                heard += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class TlsProxy(Proxy):
    """Stands before what `url` names; its own, with TLS, is `url` too.

    It has the server certificate of `certificates`.
    """

    def __init__(self, url: str, certificates: Certificates) -> None:
        super().__init__()
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = parts.hostname, parts.port or 80
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates.server, certificates.server_key)
        self.url = f"https://localhost:{self.port}"

    def serve(self, client: socket.socket) -> None:
        """Take TLS off it."""
        try:
            secure = self._context.wrap_socket(client, server_side=True)
        except OSError:
            client.close()
            return
        with secure, socket.create_connection(self._target) as server:
            pass_on(secure, server)
