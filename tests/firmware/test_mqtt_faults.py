"""MQTT brokers that refuse, lie and stall: each a documented error in time, and nothing is
acknowledged that was not taken."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest

from board import Board, run
from mqtt_broker import (
    CONNACK,
    Client,
    at,
    granted,
    greet,
    linger,
    packet,
    play,
    publish,
)

OPEN = """
def descriptors():
    return len(list(os.ilistdir("/proc/self/fd")))

BEFORE = descriptors()
url = sys.argv[1]
"""

# ---------------------------------------------------------------- the handshake

REFUSALS = {
    1: "it speaks another version of MQTT than 3.1.1",
    2: "it takes no client of this id: an id has no white space, '.', '*' and '>'",
    3: "the server is not available",
    4: "the user or password is wrong",
    5: "this user may not connect",
    6: "it refused: 6",
    255: "it refused: 255",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_broker_that_refuses_is_quoted(code: int) -> None:
    def talk(client: Client) -> None:
        client.until(0x10)
        client.send(packet(0x20, bytes([0, code])))

    with play(talk) as broker:
        line, left = run(
            OPEN + "print(code(natsbridge.connect, url, timeout=2))\nprint(descriptors() - BEFORE)",
            at(broker),
        )
    assert line.startswith("NATS_CONNECTION_FAILED: no NATS server took the connection")
    assert REFUSALS[code] in line
    assert left == "0"


def saying(data: bytes, end: bool = True) -> Any:
    """Answer CONNECT so; and hang up, or say nothing more."""

    def talk(client: Client) -> None:
        client.until(0x10)
        client.send(data)
        if not end:
            linger(client)

    return talk


ANSWERS = {
    "nothing": b"",
    **{f"{n} bytes of CONNACK": CONNACK[:n] for n in (1, 2, 3)},
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "NATS": b'INFO {"server_id":"x"}\r\n',
    "a long CONNACK": b"\x20\3\0\0\0",
    "a short CONNACK": b"\x20\1\0",
    "an empty CONNACK": b"\x20\0",
    "a length of 5 bytes": b"\x20\xff\xff\xff\xff\x01",
    "a length of 256 MB": b"\x20\xff\xff\xff\x7f" + bytes(100),
    "PINGRESP": b"\xd0\0",
    "PUBLISH": publish(b"a", b"x"),
    "PUBLISH of 256 MB": b"\x30\xff\xff\xff\x7f\0\1a" + bytes(5000),
    "zeros": bytes(4),
    "a topic longer than its packet": b"\x30\5\0\xffabc",
}


@pytest.mark.parametrize("end", [True, False], ids=["hang up", "stall"])
def test_what_is_no_connack_is_an_error_in_time(end: bool) -> None:
    """All of them in one run, and then a good one."""
    talks = [saying(data, end) for data in ANSWERS.values()]

    def good(client: Client) -> None:
        greet(client)
        linger(client)

    with play(*talks, good) as broker:
        *lines, last, left = run(
            OPEN + f"for _ in range({len(talks)}):\n"
            "    print(took(natsbridge.connect, url, timeout=0.2))\n"
            "nc = natsbridge.connect(url)\nprint(nc.connected)\nnc.close()\n"
            "print(descriptors() - BEFORE)",
            at(broker),
        )
    for name, line in zip(ANSWERS, lines, strict=True):
        ms, _, text = line[1:].partition(", ")
        assert text[1:].startswith("NATS_CONNECTION_FAILED"), name
        assert int(ms) < 3000, name
    assert (last, left) == ("True", "0")


def test_poll_never_waits_for_a_handshake() -> None:
    """Nor does next(0), while the connection is away."""
    stalls = threading.Event()

    def first(client: Client) -> None:
        greet(client)
        granted(client)

    def stalled(client: Client) -> None:
        client.until(0x10)
        stalls.wait(10)
        client.send(CONNACK)
        granted(client)
        client.send(publish(b"a", b"after"))
        linger(client)

    with (
        play(first, stalled) as broker,
        Board(
            """
nc = natsbridge.connect(sys.argv[1], base_delay=10)
sub = nc.subscribe("a")
longest = n = 0
said = False
msg = None
while not msg:
    ms, more = took(nc.poll)
    longest = max(longest, ms)
    ms, msg = took(sub.next, 0)
    longest = max(longest, ms)
    n += 1
    time.sleep_ms(1)
    if n == 300:
        print("asking")
print(data(msg), longest < 100)
nc.close()
""",
            at(broker),
        ) as board,
    ):
        assert board.line() == "asking"
        stalls.set()
        assert board.rest() == ["after True"]


# ---------------------------------------------------------------- what comes

LIES = {
    "QoS 2": packet(0x34, b"\0\1a\0\1x"),
    "QoS 3": packet(0x36, b"\0\1a\0\1x"),
    "PUBREC": packet(0x50, b"\0\1"),
    "PUBREL": packet(0x62, b"\0\1"),
    "PUBACK of nothing": packet(0x40, b"\0\1"),
    "PUBACK of 3 bytes": packet(0x40, b"\0\1\0"),
    "PINGRESP unasked": b"\xd0\0",
    "CONNACK again": CONNACK,
    "SUBACK of 4 bytes": packet(0x90, b"\x80\1\1\1"),
    "an empty SUBACK": packet(0x90, b""),
    "DISCONNECT": packet(0xE0, b""),
    "packet 0": packet(0, b""),
    "packet 15": packet(0xF0, b""),
    "a topic longer than its packet": b"\x30\5\0\xffabc",
    "no room for a packet id": b"\x32\4\0\2ab",
    "an empty PUBLISH": b"\x30\0",
    "a topic of 65,535 bytes": publish(b"a" * 65_535, b"x"),
    "a length of 5 bytes": b"\x30\xff\xff\xff\xff\x01",
    "256 MB of PUBACK": b"\x40\xff\xff\xff\x7f",
    "half a PUBLISH": publish(b"a", b"x" * 1000)[:500],
    "half a large PUBLISH": publish(b"b", b"x" * 5000)[:500],
    "its end": b"",
}


@pytest.mark.parametrize("name", LIES)
def test_what_is_not_the_protocol_ends_the_connection(name: str) -> None:
    def talk(client: Client) -> None:
        greet(client)
        granted(client)
        client.send(publish(b"a", b"good") + LIES[name])
        if name.startswith(("half", "its end")):
            return
        linger(client)

    with play(talk) as broker:
        lines = run(
            OPEN + "nc = natsbridge.connect(url, reconnect=False, timeout=2)\n"
            "sub = nc.subscribe('a')\nprint(data(sub.next(2)))\n"
            "print(code(lambda: data(sub.next(2))))\n"
            "print(nc.connected)\nnc.close()\nprint(descriptors() - BEFORE)",
            at(broker),
        )
    assert lines[0] == "good"
    assert lines[1].startswith("NATS_CONNECTION_FAILED: the connection was lost (")
    assert lines[2:] == ["False", "0"]


def test_a_message_that_never_ends_is_waited_for_no_longer_than_allowed() -> None:
    """256 MB are announced, and three bytes come."""

    def talk(client: Client) -> None:
        greet(client)
        granted(client)
        client.send(b"\x30\xff\xff\xff\x7f\0\1aabc")
        linger(client)

    with play(talk) as broker:
        lines = run(
            """
nc = natsbridge.connect(sys.argv[1], reconnect=False)
sub = nc.subscribe("a")
msg = sub.next(2)
print(len(msg), code(lambda: msg.data)[:17])
print(took(natsbridge.smartreceive, msg, timeout=0.3))
print(code(sub.next, 1)[:22])
nc.close()
""",
            at(broker),
        )
    assert lines[0] == f"{2**28 - 1 - 3} PAYLOAD_TOO_LARGE"
    ms, _, text = lines[1][1:].partition(", ")
    assert int(ms) < 3000
    assert text.startswith(("'INVALID_ENVELOPE", "'NATS_CONNECTION_FAILED"))
    assert lines[2] == "NATS_CONNECTION_FAILED" or "lost" in text


def test_messages_for_no_subscription_are_passed_over() -> None:
    acks = []

    def talk(client: Client) -> None:
        greet(client)
        granted(client)
        for size in (0, 5, 2048, 2049, 70_000):
            client.send(publish(b"other", bytes(size), 7))
            client.send(publish(b"other", bytes(size)))
        client.send(publish(b"\xff\xfe", b"not UTF-8", 9))
        client.send(publish(b"a", b"mine", 8))
        with contextlib.suppress(EOFError):
            while True:
                acks.append(client.until(0x40))

    with play(talk) as broker:
        lines = run(
            "nc = natsbridge.connect(sys.argv[1])\nsub = nc.subscribe('a')\n"
            "print(data(sub.next(2)))\nnc.close()",
            at(broker),
        )
    assert lines == ["mine"]
    assert acks == [b"\0\x08"]


def test_a_message_is_acknowledged_when_its_body_was_taken_and_not_before() -> None:
    """Small: when it has come. Large: when it is read; not where nobody begins to; and where
    somebody gave up in its middle, when it is passed over, so that it does not come for ever."""
    acks: list[int] = []

    def talk(client: Client) -> None:
        greet(client)
        granted(client)
        for pid, size in enumerate((10, 5000, 5000, 5000, 10), 1):
            client.send(publish(b"a", bytes(size), pid))
        while True:
            acks.append(client.until(0x40)[1])

    with (
        play(talk) as broker,
        Board(
            """
nc = natsbridge.connect(sys.argv[1])
sub = nc.subscribe("a")
print(len(sub.next(3).data))
msg = sub.next(3)
msg.readinto(bytearray(100), 100)
sys.stdin.readline()
while msg.readinto(bytearray(1000), 1000):
    pass
sub.next(3)  # and nobody reads it
msg = sub.next(3)
msg.readinto(bytearray(100), 100)
print(len(sub.next(3).data))
nc.close()
""",
            at(broker),
        ) as board,
    ):
        assert board.line() == "10"
        time.sleep(0.3)
        before = list(acks)
        board.say()
        assert board.rest() == ["10"]
    assert before in ([], [1])  # the rest of what a socket does not take is written later
    assert acks == [1, 2, 4, 5]


def test_what_the_queue_has_no_room_for_is_not_acknowledged() -> None:
    acks: list[int] = []

    def talk(client: Client) -> None:
        greet(client)
        granted(client)
        granted(client)
        for pid in range(1, 9):
            client.send(publish(b"a", bytes(2000), pid))
        client.send(publish(b"b", b"end", 99))
        with contextlib.suppress(EOFError):
            while True:
                acks.append(client.until(0x40)[1])

    with play(talk) as broker:
        lines = run(
            """
nc = natsbridge.connect(sys.argv[1])
a = nc.subscribe("a")
b = nc.subscribe("b")
print(data(b.next(3)))
n = -1
msg = True
while not isinstance(msg, str):
    n += 1
    msg = code(a.next, 0)
print(msg[:29])
print(n)
nc.close()
""",
            at(broker),
        )
    kept = int(lines[2])
    assert lines[0] == "end"
    assert lines[1] == f"PAYLOAD_TOO_LARGE: {8 - kept} messages"
    assert 1 <= kept < 8
    assert set(acks) <= {*range(1, kept + 1), 99}
