"""What the firmware receives over MQTT: whole, cut at every byte, in every two pieces, byte by
byte, and with more behind it. (Its reader, driven by a byte stream on CPython.)"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import test_every_cut
from harness import load_firmware
from mqtt_broker import packet, publish
from test_every_cut import CLOCK, Wire, quick  # noqa: F401
from test_parsers import as_on_micropython  # noqa: F401

mqtt = load_firmware("mqtt")
subscription = load_firmware("subscription")

LARGE = bytes(range(256)) * 20
PACKETS = {
    "PUBLISH": publish(b"a/b", b"hello"),
    "PUBLISH, empty": publish(b"a/b", b""),
    "PUBLISH at QoS 1": publish(b"a/b", b"hello", 7),
    "PUBLISH at QoS 1, empty": publish(b"a/b", b"", 0x1234),
    "PUBLISH, retained and again": packet(0x3B, b"\0\3a/b\0\7hello"),
    "PUBLISH of 2,048 bytes": publish(b"a/b", LARGE[:2048], 7),
    "PUBLISH of 2,049 bytes": publish(b"a/b", LARGE[:2049], 7),
    "PUBLISH of 5,120 bytes": publish(b"a/b", LARGE, 9) + b"\xd0\0",
    "PUBLISH on a topic of 1,000 bytes": publish(b"w/" + b"x" * 998, b"hello", 7),
    "two of the same": publish(b"a/b", b"one", 1) + publish(b"a/b", b"two", 2),
    "one that looks like a packet": publish(b"a/b", publish(b"a/b", b"x")),
    "one for nobody": publish(b"nobody", b"x", 3) + publish(b"a/b", b"y", 4),
    "a large one for nobody": publish(b"nobody", LARGE, 3) + publish(b"a/b", b"y", 4),
    "PUBACK": packet(0x40, b"\0\5"),
    "PINGRESP": b"\xd0\0",
    "SUBACK": packet(0x90, b"\x80\1\1"),
    "SUBACK that refuses": packet(0x90, b"\x80\1\x80"),
    "UNSUBACK": packet(0xB0, b"\x80\1"),
}
#: What comes of some: messages, and what is posted.
EXPECTED = {
    "PUBLISH": ([("a.b", b"hello")], b""),
    "PUBLISH at QoS 1": ([("a.b", b"hello")], b"\x40\2\0\7"),
    "PUBLISH at QoS 1, empty": ([("a.b", b"")], b"\x40\2\x12\x34"),
    "PUBLISH, retained and again": ([("a.b", b"hello")], b"\x40\2\0\7"),
    "PUBLISH of 5,120 bytes": ([("a.b", LARGE)], b"\x40\2\0\x09"),
    "PUBLISH on a topic of 1,000 bytes": ([("w." + "x" * 998, b"hello")], b"\x40\2\0\7"),
    "two of the same": ([("a.b", b"one"), ("a.b", b"two")], b"\x40\2\0\1\x40\2\0\2"),
    "one that looks like a packet": ([("a.b", publish(b"a/b", b"x"))], b""),
    "one for nobody": ([("a.b", b"y")], b"\x40\2\0\4"),
    "a large one for nobody": ([("a.b", b"y")], b"\x40\2\0\4"),
}


@pytest.fixture(scope="module", autouse=True)
def clock(quick: None) -> Iterator[None]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mqtt, "time", CLOCK)
        yield


class Taken(test_every_cut.Taken):
    """The same of a connection over MQTT."""

    def connection(self, data: bytes) -> Any:
        nc = mqtt.Connection("name", "id")
        nc._options = {"qos": 1, "reconnect": False, "mqtt": True}
        nc._subs[1] = subscription.Subscription(nc, 1, "a.b", "")
        nc._subs[2] = subscription.Subscription(nc, 2, "w.*", "")
        nc._pings = nc._pid = 5
        nc._acked = 4 if data[:1] == b"\x40" else 5
        return nc

    def wire(self, data: bytes, sizes: Iterator[int]) -> Wire:
        wire = Wire(data, sizes)
        wire.reader = mqtt.Packets(wire, 512)
        return wire

    def parts(self, msg: Any) -> tuple[Any, ...]:
        return msg.subject, bytes(msg.data)

    def known(self) -> tuple[Any, ...]:
        refused = [sub._error for sub in self.nc._subs.values()]
        return self.nc._pings, self.nc._acked, refused


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_is_taken_whole_or_not_at_all(name: str) -> None:
    data = PACKETS[name]
    whole = Taken(data)
    assert whole.cut_off
    if name in EXPECTED:
        assert (whole.messages, whole.state[0]) == EXPECTED[name]
    ways: list[Iterator[int]] = [
        *(itertools.repeat(1), itertools.cycle([1, 0])),
        itertools.cycle([0, 511, 0, 0, 513]),
    ]
    if len(data) < 60:
        for one, two in itertools.combinations(range(1, len(data)), 2):
            ways.append(iter([one, 0, two - one, 0, len(data) - two]))
    for way in ways:
        again = Taken(data, way)
        assert (again.messages, again.state, again.cut_off) == (whole.messages, whole.state, True)
    every = 1 if len(data) < 1500 else 97
    for cut in range(0, len(data), every):
        part = Taken(data[:cut])
        assert part.messages == whole.messages[: len(part.messages)]
        assert part.cut_off
        assert whole.state[0].startswith(part.state[0])
        if not part.messages:
            assert part.state[0] == b""


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("more", [b"\0", b"\xd0\1\0", b"\x34\5\0\1a\0\1", b"\xf0" * 5000])
def test_what_follows_a_packet_is_not_taken_for_a_part_of_it(name: str, more: bytes) -> None:
    whole = Taken(PACKETS[name])
    got = Taken(PACKETS[name] + more)
    assert (got.messages, got.state) == (whole.messages, whole.state)
    assert got.cut_off == (more == b"\0")


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=200), st.integers(1, 9))
def test_any_bytes_end_in_messages_or_an_error_and_never_hang(data: bytes, step: int) -> None:
    one = Taken(data)
    other = Taken(data, itertools.repeat(step))
    assert one.messages == other.messages
    assert one.state == other.state
