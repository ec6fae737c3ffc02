"""Subjects and topics: what nats-server makes of each, and what the firmware does."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from harness import load_firmware
from mqtt_broker import Client, MqttServer, packet, publish, string

errors = load_firmware("errors")
mqtt = load_firmware("mqtt")
nack = load_firmware("nack")

#: Both ways.
NAMES = {
    "a": "a",
    "lab.camera": "lab/camera",
    "a.b.c.d": "a/b/c/d",
    "/.lab": "/lab",
    "/./.lab": "//lab",
    "/.chat.user.v1.message": "/chat/user/v1/message",
    "lab./": "lab/",
    "lab././": "lab//",
    "lab./.x": "lab//x",
    "/./": "/",
    "/././": "//",
    "v1//2": "v1.2",
    "v1//2.x": "v1.2/x",
    "a////b": "a..b",
    "//": ".",
    "//.//": "./.",
    "a.//.b": "a/./b",
    "/.//": "/.",
    "é.ß": "é/ß",
    "a*b.c>d": "a*b/c>d",
    "x.$y": "x/$y",
}
#: Subjects that no topic leads to, and what they come as: None for nothing.
UNREACHABLE = {
    "/chat/user/v1/message": "chatuserv1message",
    "a/b": "ab",
    "a/": "a",
    "a.b/c": "a/bc",
    "a./b": "a/b",
    "///": ".",
    "b+c": "b+c",
    "b#": "b#",
    "a.+": "a/+",
    "a.#": "a/#",
    "/": "",
}
#: What is subscribed to, what is published, and what of that comes.
FILTERS = {
    "lab.*": ("lab/+", ["lab", "lab.a", "lab.a.b", "lab./", "x.a"], ["lab.a", "lab./"]),
    "lab.>": (
        "lab/+/#",
        ["lab", "lab.a", "lab.a.b", "lab./", "x.a"],
        ["lab.a", "lab.a.b", "lab./"],
    ),
    "*.x": ("+/x", ["x", "a.x", "/.x", "a.b.x"], ["a.x", "/.x"]),
    "*": ("+", ["a", "a.b"], ["a"]),
    ">": ("+/#", ["a", "a.b", "/.a"], ["a", "a.b", "/.a"]),
    "/.>": ("/+/#", ["/.a", "/.a.b", "a"], ["/.a", "/.a.b"]),
    "*.b.>": ("+/b/+/#", ["a.b", "a.b.c", "a.x.c"], ["a.b.c"]),
    "v1//2.*": ("v1.2/+", ["v1//2.a", "v1.2.a"], ["v1//2.a"]),
}


@pytest.fixture
def nats(mqtt_server: MqttServer) -> Iterator[Nats]:
    it = Nats(mqtt_server)
    yield it
    it.socket.close()


class Nats:
    """A connection in NATS, which sends subjects as they stand."""

    def __init__(self, server: MqttServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.input = self.socket.makefile("rb")
        self.input.readline()
        self.ask('CONNECT {"verbose":false,"pedantic":false}')

    def ask(self, line: str) -> list[str]:
        """Send a line, and wait until the server has taken it: the subjects that came."""
        self.socket.sendall(f"{line}\r\nPING\r\n".encode())
        subjects = []
        while (line := self.input.readline().decode()) != "PONG\r\n":
            subjects.append(line.split()[1])
            self.input.readline()
        return subjects


@pytest.mark.parametrize("subject", NAMES)
def test_a_subject_is_the_topic_that_the_server_makes_of_it_and_back(
    subject: str, mqtt_server: MqttServer, nats: Nats
) -> None:
    topic = NAMES[subject]
    assert mqtt.to_topic(subject).decode() == topic
    assert mqtt.to_subject(topic) == subject
    client = Client.connect(mqtt_server, "a")
    try:
        client.send(packet(0x82, b"\0\1" + string(b"#") + b"\0"))
        client.until(0x90)
        nats.ask(f"PUB {subject} 1\r\nx")
        assert client.until(0x30) == string(topic.encode()) + b"x"
        nats.ask("SUB > 1")
        client.send(publish(topic.encode(), b"x", 7))
        client.until(0x40)
        came = [s for s in nats.ask("UNSUB 1") if not s.startswith(("$", "_INBOX"))]
        assert came == [subject]
    finally:
        client.close()


@pytest.mark.parametrize("subject", UNREACHABLE)
def test_a_subject_that_no_topic_leads_to_is_refused(
    subject: str, mqtt_server: MqttServer, nats: Nats
) -> None:
    with pytest.raises(errors.NATSBridgeError) as caught:
        mqtt.to_topic(subject)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "has no topic in MQTT" in caught.value.message
    client = Client.connect(mqtt_server, "a")
    try:
        client.send(packet(0x82, b"\0\1" + string(b"#") + b"\0"))
        client.until(0x90)
        nats.ask(f"PUB {subject} 1\r\nx")
        topic = client.until(0x30)[2:-1].decode()
        assert topic == UNREACHABLE[subject]
        if not {"+", "#"} & set(topic):  # with those nothing can be published
            assert subject == "/" or mqtt.to_subject(topic) != subject
    finally:
        client.close()


@pytest.mark.parametrize("pattern", FILTERS)
@pytest.mark.parametrize("qos", [0, 1])
def test_a_subscription_receives_the_same_as_over_nats(
    pattern: str, qos: int, mqtt_server: MqttServer, nats: Nats
) -> None:
    topic, published, expected = FILTERS[pattern]
    assert mqtt.to_topic(pattern).decode() == topic
    client = Client.connect(mqtt_server, "f")
    try:
        client.send(packet(0x82, b"\0\1" + string(topic.encode()) + bytes([qos])))
        assert client.until(0x90) == bytes([0, 1, qos])
        nats.ask(f"SUB {pattern} 1")
        came = []
        for subject in published:
            came += nats.ask(f"PUB {subject} 1\r\nx")
        client.send(b"\xc0\0")
        seen = []
        while (got := client.read())[0] != 0xD0:
            seen.append(mqtt.to_subject(got[1][2:-1].decode()))
        assert [s for s in came if not s.startswith("$")] == expected
        assert seen == expected
        for subject in published:
            assert mqtt.matches(pattern, subject) == (subject in expected)
            assert mqtt.matches(pattern, subject) == nack.matches(pattern, subject)
    finally:
        client.close()
