"""A broker and a file server that note all that a client writes, and read it strictly: whatever
does not belong there is an error."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from typing import Any, NamedTuple

from scripted import INFO, PATIENCE_S, ScriptedBroker

#: Arguments are apart by these, as nats-server reads them.
BLANKS = re.compile(rb"[ \t]+")


class Frame(NamedTuple):
    """An operation of a NATS client: its name, arguments, headers and payload."""

    name: str
    words: tuple[str, ...] = ()
    block: bytes = b""
    data: bytes = b""


def take(buffer: bytearray) -> Frame | None:
    """Take the first operation out of the buffer, None if it is not all there. Raises ValueError
    for what a server would not understand, and for what none of ours writes."""
    end = buffer.find(b"\r\n")
    if end < 0:
        return None
    line = bytes(buffer[:end])
    name, *words = (part for part in BLANKS.split(line) if part)
    done = end + 2
    block = data = b""
    if name in (b"PUB", b"HPUB"):
        more = name == b"HPUB"
        if len(words) not in (2 + more, 3 + more) or not all(
            w.isdigit() for w in words[-1 - more :]
        ):
            raise ValueError(line)
        size = int(words[-1])
        if len(buffer) < done + size + 2:
            return None
        data = bytes(buffer[done : done + size])
        done += size + 2
        if buffer[done - 2 : done] != b"\r\n":
            raise ValueError(line)
        if more:
            block, data = data[: int(words[-2])], data[int(words[-2]) :]
        words = words[: -1 - more]
    elif name == b"CONNECT":
        json.loads(line[8:])
        words = [line[8:]]
    elif name in (b"SUB", b"UNSUB"):
        if not 1 <= len(words) <= 3 or not words[-1].isdigit():
            raise ValueError(line)
        words = words[:-1] if name == b"SUB" else words
    elif line not in (b"PING", b"PONG"):
        raise ValueError(line)
    del buffer[:done]
    return Frame(name.decode(), tuple(word.decode() for word in words), block, data)


class RecordingBroker(ScriptedBroker):
    """Takes every login, and answers PING. `connections` has the operations of each."""

    def __init__(self) -> None:
        self.connections: list[list[Frame]] = []
        self.faults: list[object] = []
        super().__init__(self._record)

    def _record(self, connection: socket.socket) -> None:
        frames: list[Frame] = []
        self.connections.append(frames)
        connection.sendall(INFO)
        buffer = bytearray()
        try:
            while data := connection.recv(1 << 16):
                buffer += data
                while frame := take(buffer):
                    frames.append(frame)
                    if frame.name == "PING":
                        connection.sendall(b"PONG\r\n")
        except ValueError as e:
            self.faults.append(e)
        if buffer:
            self.faults.append(bytes(buffer))


class Request(NamedTuple):
    """A request as it was read."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes


LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class RecordingServer:
    """Takes every upload, and has every file. `requests` has what it was asked, `faults` what was
    no request."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[object] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(PATIENCE_S)
                    try:
                        self._talk(connection, connection.makefile("rb"))
                    except (OSError, ValueError) as e:
                        self.faults.append(e)

    def _talk(self, connection: socket.socket, source: Any) -> None:
        while line := source.readline():
            found = LINE.fullmatch(line.removesuffix(b"\r\n"))
            if not found:
                raise ValueError(line)
            headers = []
            while (line := source.readline()) != b"\r\n":
                field = FIELD.fullmatch(line.removesuffix(b"\r\n"))
                if not field:
                    raise ValueError(line)
                headers.append((field[1].decode().lower(), field[2].decode()))
            sizes = [value for name, value in headers if name == "content-length"]
            if len(sizes) > 1 or any(name == "transfer-encoding" for name, _ in headers):
                raise ValueError(headers)
            body = source.read(int(sizes[0])) if sizes else b""
            request = Request(found[1].decode(), found[2].decode(), headers, body)
            self.requests.append(request)
            answer = b'{"id":"ab","uploadToken":"cd"}'
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(answer) + answer)
            if request.method == "POST" and request.path.endswith("/upload"):
                return

    def close(self) -> None:
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)
