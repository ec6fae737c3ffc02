"""nats-server with its MQTT listener, packets as bytes, and a broker that plays what it is told."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import NatsServer, free_ports
from scripted import PATIENCE_S, ScriptedBroker

CONNACK = b"\x20\x02\0\0"


class MqttServer(NatsServer):
    """A nats-server that speaks MQTT at `mqtt`; its ports stay the same when it is started again.

    options: lines of its configuration. listener: of its `mqtt` block.
    """

    def __init__(self, folder: Path, *options: str, listener: str = "") -> None:
        self.folder = folder
        self.ports = free_ports(2)
        self.mqtt = f"mqtt://127.0.0.1:{self.ports[1]}"
        lines = (
            *("server_name: one", f'jetstream {{ store_dir: "{folder}" }}', *options),
            f'mqtt {{ host: "127.0.0.1", port: {self.ports[1]}, {listener} }}',
        )
        (folder / "mqtt.conf").write_text("\n".join(lines))
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        config = str(self.folder / "mqtt.conf")
        super().__init__(self.folder, "-c", config, port=self.ports[0])


@pytest.fixture(scope="module")
def mqtt_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttServer]:
    """A nats-server that speaks MQTT."""
    with MqttServer(tmp_path_factory.mktemp("mqtt")) as server:
        yield server


def string(data: bytes) -> bytes:
    """With its length before it."""
    return len(data).to_bytes(2, "big") + data


def packet(op: int, body: bytes) -> bytes:
    """A packet."""
    n = len(body)
    head = bytes([op])
    while n > 127:
        head += bytes([n & 127 | 128])
        n >>= 7
    return head + bytes([n]) + body


def publish(topic: bytes, data: bytes, pid: int = 0) -> bytes:
    """A PUBLISH, at QoS 1 if it has a packet id."""
    head = string(topic) + (pid.to_bytes(2, "big") if pid else b"")
    return packet(0x32 if pid else 0x30, head + data)


class Client:
    """A connection in MQTT, packet by packet: the client's end, or the server's."""

    def __init__(self, it: socket.socket) -> None:
        self.socket = it
        it.settimeout(PATIENCE_S)
        self.input = it.makefile("rb")

    @classmethod
    def connect(cls, server: MqttServer, name: str) -> Client:
        """A client of this id."""
        client = cls(socket.create_connection(("127.0.0.1", server.ports[1])))
        client.send(packet(0x10, b"\0\4MQTT\4\2\0\x3c" + string(name.encode())))
        assert client.read() == (0x20, b"\0\0")
        return client

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """The next packet: its first byte, and what comes after its length."""
        op = self._bytes(1)[0]
        n = shift = 0
        more = 128
        while more & 128:
            more = self._bytes(1)[0]
            n |= (more & 127) << shift
            shift += 7
        return op, self._bytes(n)

    def _bytes(self, n: int) -> bytes:
        data = self.input.read(n)
        if len(data) < n:
            raise EOFError
        return data

    def until(self, op: int) -> bytes:
        """Read up to a packet of this kind; PINGREQs are answered."""
        while True:
            got, body = self.read()
            if got & 0xF0 == 0xC0 and op != 0xC0:
                self.send(b"\xd0\0")
            if got & 0xF0 == op:
                return body

    def close(self) -> None:
        """Close it."""
        self.input.close()
        self.socket.close()


Talk = Callable[[Client], None]


def play(*talks: Talk) -> contextlib.closing[ScriptedBroker]:
    """A broker that plays one of `talks` on each connection, the last one on all others; `url` has
    to be made an mqtt:// one by `at`."""
    left = list(talks)

    def talk(connection: socket.socket) -> None:
        client = Client(connection)
        try:
            (left.pop(0) if len(left) > 1 else left[0])(client)
        except EOFError:
            pass  # the device has gone
        finally:
            client.close()

    return contextlib.closing(ScriptedBroker(talk))


def at(broker: ScriptedBroker) -> str:
    """Where it listens, as an mqtt:// URL."""
    return broker.url.replace("nats:", "mqtt:")


def greet(client: Client) -> None:
    """Shake hands as a broker does."""
    client.until(0x10)
    client.send(CONNACK)


def granted(client: Client, code: int = 1) -> None:
    """Answer a subscription."""
    body = client.until(0x80)
    client.send(packet(0x90, body[:2] + bytes([code])))


def linger(client: Client) -> None:
    """Wait until the device hangs up; its PINGREQs are answered."""
    with contextlib.suppress(OSError, EOFError):
        client.until(0xF0)
