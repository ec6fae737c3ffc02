"""A client of a broker that is neither side of this project: it sees what the broker delivers."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections import Counter

#: Seconds for whatever should come soon.
PATIENCE_S = 20


def payload(n: int, size: int) -> bytes:
    """What message `n` carries."""
    block = hashlib.sha256(str(n).encode()).digest() * 16
    return (block * (size // len(block) + 1))[:size]


class Observer:
    """Subscribed to `subject`.*, whose last word is a message's number, at whatever broker it was
    connected to last; `seen` counts them, and `wrong` are those that do not carry what they should.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.clear()

    def clear(self) -> None:
        """Forget what was seen."""
        self.seen: Counter[int] = Counter()
        self.wrong: list[int] = []

    def connect(self, port: int) -> None:
        """Connect, also after the broker was killed: subscribed when this returns."""
        self.close()
        there = self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        there.settimeout(PATIENCE_S)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(there, ready), daemon=True)
        there.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"name":"observer"}\r\n'
            b"SUB %s.* 1\r\nPING\r\n" % self._subject.encode()
        )
        self._thread.start()
        assert ready.wait(PATIENCE_S), "the broker does not answer the observer"
        there.settimeout(None)

    def publish(self, subject: str, data: bytes) -> None:
        """Publish a message, if the broker is there."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(data), data))

    def wait_for(self, n: int) -> None:
        """Send ourselves a message, and wait until it came: what came to the broker before it has
        been seen."""
        deadline = time.monotonic() + PATIENCE_S
        self.publish(f"{self._subject}.{n}", payload(n, 10))
        while not self.seen[n]:
            assert time.monotonic() < deadline, "the observer lost its broker"
            time.sleep(0.005)

    def _read(self, there: socket.socket, ready: threading.Event) -> None:
        with contextlib.suppress(OSError, ValueError), there.makefile("rb") as lines:
            while line := lines.readline():
                words = line.split()
                if words[0] == b"MSG":
                    data = lines.read(int(words[-1]))
                    if not lines.readline().endswith(b"\n"):
                        return  # the broker went in the middle
                    n = int(words[1].split(b".")[-1])
                    self.seen[n] += 1
                    if data != payload(n, len(data)):
                        self.wrong.append(n)
                elif words[0] == b"PING":
                    with self._lock:
                        there.sendall(b"PONG\r\n")
                elif words[0] == b"PONG":
                    ready.set()

    def close(self) -> None:
        """Let go of the broker."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            assert self._thread is not None
            self._thread.join(PATIENCE_S)
            self._socket.close()
            self._socket = None
