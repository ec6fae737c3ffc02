"""What stands before a server: TLS, or somebody who cuts connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TypeVar
from urllib.parse import urlsplit

from certificates import Certificates

T = TypeVar("T", bound="_Proxy")


class _Proxy:
    """Listens on loopback for what is meant for `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = parts.hostname, parts.port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        """Serve connections until the listener is closed."""
        raise NotImplementedError

    def __enter__(self: T) -> T:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


class TlsProxy(_Proxy):
    """Has the server certificate of `certificates`; `url` is where it is."""

    def __init__(self, url: str, certificates: Certificates) -> None:
        super().__init__(url)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates.server, certificates.server_key)
        self.url = f"https://localhost:{self._port}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            secure = self._context.wrap_socket(client, server_side=True)
        except OSError:
            client.close()
            return
        with secure, socket.create_connection(self._target) as server:
            back = threading.Thread(target=_pump, args=(server, secure), daemon=True)
            back.start()
            _pump(secure, server)
            back.join(10)


class CuttingProxy(_Proxy):
    """Passes on until the client says `word`: then it cuts.

    `url` is where it is; `connections` counts those that came.
    """

    def __init__(self, url: str, word: bytes) -> None:
        super().__init__(url)
        self._word = word
        self.url = f"nats://127.0.0.1:{self._port}"
        self.connections = 0

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                with client, socket.create_connection(self._target) as server:
                    back = threading.Thread(target=_pump, args=(server, client))
                    back.start()
                    seen = b""
                    with contextlib.suppress(OSError):
                        while data := client.recv(1 << 16):
                            seen = seen[-len(self._word) :] + data
                            if self._word in seen:
                                break
                            server.sendall(data)
                    for end in (client, server):
                        with contextlib.suppress(OSError):
                            end.shutdown(socket.SHUT_RDWR)
                    back.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
