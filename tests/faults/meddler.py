"""Stands between a client and a real broker, and changes what the broker says of itself."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

PATIENCE_S = 10


class Meddler:
    """Changes the INFO that stands before TLS; all else passes as it is.

    `heard` is what clients said, `connections` how many came.
    """

    def __init__(self, port: int, change: Callable[[dict[str, Any]], object]) -> None:
        self._port = port
        self._change = change
        self.heard = bytearray()
        self.connections = 0
        self._live: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Meddler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)
        self.cut()

    def cut(self) -> None:
        """End the connections that there are."""
        for end in self._live:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._live.clear()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = ("127.0.0.1", self._port)
        with contextlib.suppress(OSError), client, socket.create_connection(server) as there:
            self._live += [client, there]
            line = b""
            while not line.endswith(b"\n"):
                line += there.recv(1)
            info = json.loads(line[5:])
            self._change(info)
            client.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
            back = threading.Thread(target=_pump, args=(there, client), daemon=True)
            back.start()
            _pump(client, there, self.heard)
            back.join(PATIENCE_S)


def _pump(source: socket.socket, target: socket.socket, heard: bytearray | None = None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if heard is not None:
                heard += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
