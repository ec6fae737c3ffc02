"""What the firmware's tests share: MicroPython processes, firmware under CPython, HTTP faults."""

from __future__ import annotations

import contextlib
import gc
import importlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from pathlib import Path

from device import FIRMWARE, command, compiled

#: The name under which CPython knows the firmware; the host's package has its own name.
PACKAGE = "firmware_natsbridge"
#: Seconds that a connection of a scripted server waits for the firmware.
PATIENCE_S = 10


def run_micropython(
    script: str,
    *arguments: str,
    heap: str = "64K",
    timeout: float = 30,
    env: dict[str, str] | None = None,
    path: Path | None = None,
) -> str:
    """Run `script` (text) on the unix port and return what it printed.

    The firmware is the compiled one unless `path` says otherwise. A script that ends with an
    error fails the test.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        line, place = command(
            Path(file.name), *arguments, heap=heap, path=path or compiled(), env=env
        )
        done = subprocess.run(line, **place, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load_firmware(module: str) -> types.ModuleType:
    """Import a part of the firmware that needs no board (no socket, no ticks) under CPython."""
    if "micropython" not in sys.modules:
        stub = types.ModuleType("micropython")
        stub.const = lambda value: value  # type: ignore[attr-defined]
        sys.modules["micropython"] = stub
        gc.mem_free = lambda: 1 << 20  # type: ignore[attr-defined] # what only the device has
    if PACKAGE not in sys.modules:
        package = types.ModuleType(PACKAGE)
        package.__path__ = [str(FIRMWARE / "natsbridge")]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.{module}")


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
