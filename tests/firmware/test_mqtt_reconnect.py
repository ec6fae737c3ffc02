"""Publishing over MQTT while brokers do not acknowledge, break off, die and come back; keep-alive,
wills, and sessions."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from pathlib import Path
from typing import Any

from board import Board, run
from device import freeze
from mqtt_broker import (
    CONNACK,
    Client,
    MqttServer,
    at,
    granted,
    greet,
    linger,
    packet,
    play,
    publish,
)
from natsbridge import sync

# ---------------------------------------------------------------- what goes out

PUBLISH = """
nc = natsbridge.connect(sys.argv[1], base_delay=1, max_delay=20, timeout=2)
"""


def test_a_publish_that_is_not_acknowledged_is_published_again_with_dup() -> None:
    """In a new connection, when this one breaks or the PUBACK has another id."""
    seen: list[tuple[int, bytes]] = []

    def lost(client: Client) -> None:
        greet(client)
        seen.append(client.read())

    def wrong(client: Client) -> None:
        greet(client)
        seen.append(client.read())
        client.send(b"\x40\2\x12\x34")
        linger(client)

    def good(client: Client) -> None:
        greet(client)
        with contextlib.suppress(EOFError):
            while True:
                op, body = client.read()
                if op & 0xF0 == 0x30:
                    seen.append((op, body))
                    if len(seen) == 5:
                        return  # it is lost once more
                    n = int.from_bytes(body[:2], "big")
                    client.send(b"\x40\2" + body[2 + n : 4 + n])

    with play(lost, wrong, good) as broker:
        assert (
            run(
                PUBLISH + "nc.publish('a', b'x')\n"
                "nc.publish('b', b'y')\n"
                "natsbridge.smartsend('c', [('d', bytes(3000), 'binary')], nats_connection=nc)\n"
                "nc.close()",
                at(broker),
            )
            == []
        )
    first, second, third, other, envelope, again = seen
    assert [op for op, _ in seen] == [0x32, 0x3A, 0x3A, 0x32, 0x32, 0x3A]
    assert first[1] == second[1] == third[1] == b"\0\1a\0\1x"
    assert other[1] == b"\0\1b\0\2y"
    assert envelope[1] == again[1]
    assert len(envelope[1]) > 4000


def test_a_connection_that_breaks_at_any_byte_of_a_publish_loses_nothing() -> None:
    """The broker reads so many bytes and hangs up; the message comes whole in the end."""
    whole = publish(b"lab/x", b"0123456789", 1)
    arrived: list[bytes] = []

    def cut(n: int) -> Any:
        def talk(client: Client) -> None:
            greet(client)
            assert len(client.input.read(n)) == n

        return talk

    def good(client: Client) -> None:
        greet(client)
        _, body = client.read()
        arrived.append(body)
        client.send(b"\x40\2" + body[7:9])
        client.until(0xF0)

    talks = itertools.chain.from_iterable((cut(n), good) for n in range(len(whole)))
    with play(*talks, good) as broker:
        lines = run(
            f"""
for _ in range({len(whole)}):
    nc = natsbridge.connect(sys.argv[1], base_delay=1, max_delay=10)
    print(code(nc.publish, "lab.x", b"0123456789"))
    nc.close()
""",
            at(broker),
        )
    assert lines == ["None"] * len(whole)
    assert arrived == [b"\0\5lab/x\0\x010123456789"] * len(whole)


def test_without_a_puback_publish_ends_in_time() -> None:
    def talk(client: Client) -> None:
        greet(client)
        linger(client)

    with play(talk) as broker:
        lines = run(
            """
nc = natsbridge.connect(sys.argv[1], timeout=1)
print(took(nc.publish, "a", b"x"))
print(took(natsbridge.smartsend, "a", [("t", "x", "text")], nats_connection=nc, timeout=0.2))
print(code(nc.flush))
nc.close()
nc = natsbridge.connect(sys.argv[1], timeout=0.5, reconnect=False)
print(code(nc.publish, "a", b"x"))
print(code(nc.publish, "a", b"x"))
""",
            at(broker),
        )
    for line, most in zip(lines[:2], (2500, 900), strict=True):
        ms, _, text = line[1:].partition(", ")
        assert int(ms) < most
        assert text.startswith("'NATS_CONNECTION_FAILED: the connection to mqtt://")
        assert "broke in publish(): no PUBACK in time" in text
    assert lines[2].startswith("NATS_CONNECTION_FAILED")
    assert "no PUBACK in time" in lines[3]
    assert "the connection was lost" in lines[4]


def test_a_source_that_fails_in_the_middle_costs_the_connection_and_no_wrong_message() -> None:
    seen: list[bytes] = []

    def broken(client: Client) -> None:
        greet(client)
        with contextlib.suppress(EOFError):
            client.read()
        seen.append(b"cut")

    def good(client: Client) -> None:
        greet(client)
        _, body = client.read()
        seen.append(body)
        client.send(b"\x40\2" + body[3:5])
        linger(client)

    with play(broken, good) as broker:
        lines = run(
            PUBLISH
            + """
class Short:
    at = 0

    def seek(self, offset, whence=0):
        self.at = 9000 if whence == 2 else offset if whence == 0 else self.at
        return self.at

    def readinto(self, buf):
        if self.at >= 4000:
            raise OSError(5)
        self.at += len(buf)
        return len(buf)

print(code(natsbridge.smartsend, "a", [("s", Short(), "binary")], nats_connection=nc)[:16])
nc.publish("b", b"y")
nc.close()
""",
            at(broker),
        )
    assert lines == ["INVALID_ARGUMENT"]
    assert len(seen) == 2
    assert seen[1][:3] + seen[1][5:] == b"\0\1by"


# ---------------------------------------------------------------- keep-alive


def test_the_broker_hears_from_a_device_that_only_listens() -> None:
    """However much it sends: a PINGREQ in each ping_interval; in poll() and in next()."""
    pings: list[float] = []

    def talk(client: Client) -> None:
        body = client.until(0x10)
        assert body[8:10] == b"\0\1"  # twice 0.3 s, rounded up
        client.send(CONNACK)
        granted(client)
        started = time.monotonic()

        def flood() -> None:
            with contextlib.suppress(OSError):
                while time.monotonic() - started < 1.6:
                    client.send(publish(b"a", b"x"))
                    time.sleep(0.01)
                client.send(publish(b"a", b"end"))

        thread = threading.Thread(target=flood)
        thread.start()
        with contextlib.suppress(EOFError, OSError):
            while True:
                client.until(0xC0)
                pings.append(time.monotonic() - started)
                client.send(b"\xd0\0")
        thread.join()

    with play(talk) as broker:
        lines = run(
            """
nc = natsbridge.connect(sys.argv[1], ping_interval=0.3)
sub = nc.subscribe("a")
t = time.ticks_ms()
while data(sub.next(2)) != "end":
    if time.ticks_diff(time.ticks_ms(), t) > 800:
        nc.poll()
print(nc.connected)
nc.close()
""",
            at(broker),
        )
    assert lines == ["True"]
    assert len(pings) >= 3
    gaps = [b - a for a, b in itertools.pairwise([0.0, *pings])]
    assert max(gaps) < 1.2


def test_a_server_that_has_died_without_a_word_is_noticed(tmp_path: Path) -> None:
    """nats-server is stopped, and its connections stay open."""
    with (
        MqttServer(tmp_path) as server,
        Board(
            """
nc = natsbridge.connect(sys.argv[1], ping_interval=0.3, timeout=1, reconnect=False)
sub = nc.subscribe("a")
nc.flush()
print("ready")
print(took(sub.next, 10))
print(nc.connected)
""",
            server.mqtt,
        ) as board,
    ):
        assert board.line() == "ready"
        freeze(server.process)
        try:
            ms, _, text = board.line()[1:].partition(", ")
            assert int(ms) < 5000
            assert "the server does not answer PING" in text
            assert board.rest() == ["False"]
        finally:
            server.process.send_signal(signal.SIGCONT)


WAIT = """
nc = natsbridge.connect(sys.argv[1], will=("will.x", [("why", "gone", "text"), ("n", {"a": 1},
                        "dictionary")]), name="pico")
print("ready")
sys.stdin.readline()
nc.close()
sys.stdin.readline()
"""


def test_the_will_is_an_event_that_comes_when_the_device_is_lost_and_only_then(
    tmp_path: Path,
) -> None:
    with MqttServer(tmp_path) as server, sync.connect(server.url) as desk:
        sub = desk.subscribe("will.>")
        desk.flush()
        with Board(WAIT, server.mqtt) as board:
            assert board.line() == "ready"
            board.say()
            assert sub.next(0.3) is None
        assert sub.next(0.3) is None
        with Board(WAIT, server.mqtt) as board:
            assert board.line() == "ready"
            board.process.kill()
            env = sync.smartreceive(sub.next(5))
    assert (env["msg_purpose"], env["sender_name"], env["send_to"]) == ("event", "pico", "will.x")
    assert env["payloads"] == [("why", "gone", "text"), ("n", {"a": 1}, "dictionary")]
    assert env["correlation_id"]
    assert env["msg_id"]


def test_the_server_lets_go_of_a_device_that_has_died(tmp_path: Path) -> None:
    """Frozen, and its connection open: its will is published."""
    with MqttServer(tmp_path) as server, sync.connect(server.url) as desk:
        sub = desk.subscribe("w")
        desk.flush()
        with Board(
            """
nc = natsbridge.connect(sys.argv[1], ping_interval=0.4, will=("w", [("t", "gone", "text")]))
print("ready")
t = time.ticks_ms()
while time.ticks_diff(time.ticks_ms(), t) < 1700:
    nc.next(0.1)
print(nc.connected)
sys.stdin.readline()
""",
            server.mqtt,
        ) as board:
            assert board.line() == "ready"
            assert board.line() == "True"
            assert sub.next(0) is None
            freeze(board.process)
            assert sync.smartreceive(sub.next(6))["msg_purpose"] == "event"


# ---------------------------------------------------------------- servers that go and come back


def test_a_server_that_is_killed_and_comes_back_gets_and_sends_everything(tmp_path: Path) -> None:
    """Five times, while the device publishes: every message arrives; subscriptions are renewed."""
    with (
        MqttServer(tmp_path) as server,
        Board(
            """
nc = natsbridge.connect(sys.argv[1], base_delay=10, max_delay=100, timeout=10)
sub = nc.subscribe("down")
nc.flush()
print("ready")
n = 0
while not said():
    nc.publish("up", b"%d" % n)
    n += 1
    time.sleep_ms(5)
print(n)
print(data(sub.next(5)))
nc.close()
""",
            server.mqtt,
        ) as board,
    ):
        assert board.line() == "ready"
        listener = Client.connect(server, "listener")
        listener.send(packet(0x82, b"\0\1\0\2up\1"))
        listener.until(0x90)
        got: list[int] = []

        def listen(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                body = listener.until(0x30)
                listener.send(b"\x40\2" + body[4:6])
                got.append(int(body[6:]))

        for _ in range(5):
            listen(0.2)
            server.process.kill()
            server.process.wait(10)
            listener.close()
            time.sleep(0.1)
            server.start()
            listener = Client.connect(server, "listener")
            listener.send(packet(0x82, b"\0\1\0\2up\1"))
            listener.until(0x90)
        listen(0.3)
        with sync.connect(server.url) as desk:
            board.say()
            n = int(board.line())
            desk.publish("down", b"still there")
            desk.flush()
            assert board.rest() == ["still there"]
        with contextlib.suppress(OSError):
            listener.socket.settimeout(0.3)
            while True:
                got.append(int(listener.until(0x30)[6:]))
        listener.close()
    # What the device published while the listener was not there can't come to it. The rest does,
    # in order, but for what was published twice.
    assert got[-1] == n - 1
    assert sorted(set(got)) == list(dict.fromkeys(sorted(got)))
    assert len(got) > 50


def test_a_session_keeps_what_other_devices_send_while_this_one_sleeps(tmp_path: Path) -> None:
    """At QoS 1, also across a restart of the server; what was taken does not come again."""
    sleeper = """
nc = natsbridge.connect(sys.argv[1], id="sleeper", session=True)
sub = nc.subscribe("to.sleeper")
nc.publish("awake", b"1")
while True:
    msg = sub.next(0.3)
    if not msg:
        break
    print(len(msg), natsbridge.smartreceive(msg)["payloads"][0][1])
nc.close()
"""
    sender = """
nc = natsbridge.connect(sys.argv[1])
for i in range(3):
    natsbridge.smartsend("to.sleeper", [("n", {"n": i}, "dictionary"),
                                        ("d", bytes(1000 * i), "binary")], nats_connection=nc)
nc.close()
"""
    with MqttServer(tmp_path) as server:
        assert run(sleeper, server.mqtt) == []
        assert run(sender, server.mqtt) == []
        server.stop()
        server.start()
        lines = run(sleeper, server.mqtt)
        assert [line.partition(" ")[2] for line in lines] == [f"{{'n': {i}}}" for i in range(3)]
        assert run(sleeper, server.mqtt) == []
