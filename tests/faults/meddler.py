"""Stands between a client and a real broker, and changes what the broker says of itself."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from proxy import Proxy, pass_on


class Meddler(Proxy):
    """Changes the INFO that stands before TLS; all else passes as it is.

    `heard` is what clients said.
    """

    def __init__(self, port: int, change: Callable[[dict[str, Any]], object]) -> None:
        super().__init__()
        self._port = port
        self._change = change
        self.heard = bytearray()
        self._live: list[socket.socket] = []
        self.url = f"nats://127.0.0.1:{self.port}"

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.cut()

    def cut(self) -> None:
        """End the connections that there are."""
        for end in self._live:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._live.clear()

    def serve(self, client: socket.socket) -> None:
        """Change what is said first."""
        server = ("127.0.0.1", self._port)
        with contextlib.suppress(OSError), client, socket.create_connection(server) as there:
            self._live += [client, there]
            line = b""
            while not line.endswith(b"\n"):
                line += there.recv(1)
            info = json.loads(line[5:])
            self._change(info)
            client.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
            pass_on(client, there, self.heard)
