"""client.py and dial.py against brokers that misbehave: each error in time, and on it goes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import NatsServer
from device import ROUGH
from harness import run_micropython
from scripted import INFO, ScriptedBroker, ScriptedServer

Talk = Callable[[socket.socket], None]

HEAD = """
import os, sys, time
import natsbridge

url = sys.argv[1]

def descriptors():
    return len(list(os.ilistdir("/proc/self/fd")))

def code(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except natsbridge.NATSBridgeError as e:
        return e.code + ": " + e.message

def data(msg):
    return msg and bytes(msg.data)

BEFORE = descriptors()
"""


def run(script: str, *arguments: str) -> list[str]:
    """The lines that the device prints."""
    return run_micropython(HEAD + script, *arguments, heap="192K").splitlines()


def play(*talks: Talk) -> contextlib.closing[ScriptedBroker]:
    """A broker that plays one of `talks` on each connection, the last one on all others."""
    left = list(talks)
    return contextlib.closing(
        ScriptedBroker(lambda c: (left.pop(0) if len(left) > 1 else left[0])(c))
    )


def wait_for(connection: socket.socket, word: bytes) -> None:
    """Read until `word` came, and the rest of its line."""
    seen = b""
    while word not in seen or not seen.endswith(b"\n"):
        more = connection.recv(65536)
        if not more:
            raise OSError("the device has gone")
        seen += more


def greet(connection: socket.socket) -> None:
    """Shake hands as a broker does."""
    connection.sendall(INFO)
    wait_for(connection, b"PING\r\n")
    connection.sendall(b"PONG\r\n")


def saying(data: bytes, then_hang_up: bool = False) -> Talk:
    """Greet, wait for the subscription, say that; and wait until the device ends it."""

    def talk(connection: socket.socket) -> None:
        greet(connection)
        wait_for(connection, b"SUB faults")
        connection.sendall(data)
        while not then_hang_up and connection.recv(65536):
            pass

    return talk


LISTEN = """
nc = natsbridge.connect(url, reconnect=False, timeout=2)
sub = nc.subscribe("faults")
print(code(lambda: data(sub.next(3))))
print(code(lambda: data(sub.next(0.1))))
nc.close()
print(descriptors() - BEFORE)
"""


@pytest.mark.parametrize(
    "line",
    [
        b"HMSG faults 1 20 10\r\nNATS/1.0\r\n\r\nabcdefgh\r\n",
        b"HMSG faults 1 12 99999999999\r\n",
        b"HMSG faults 1 -12 3\r\nabc\r\n",
        b"HMSG faults 1 15 15\r\nNATS/1.0 abc\r\n\r\n\r\n",
        b"HMSG faults 1 3\r\nabc\r\n",
        b"MSG faults 1 3 3 3\r\nabc\r\n",
        b"MSG faults\r\n",
        b"MSG faults x 3\r\nabc\r\n",
        b"MSG faults 1 1e3\r\nabc\r\n",
        b"INFO [1]\r\n",
        b"INFO {\r\n",
        b'INFO {"max_payload":"x"}\r\n',
        b"x" * 70_000,
    ],
    ids=repr,
)
def test_what_is_not_the_protocol_ends_the_connection(line: bytes) -> None:
    with play(saying(line)) as broker:
        first, second, left = run(LISTEN, broker.url)
    assert first.startswith("NATS_CONNECTION_FAILED: the connection was lost (")
    assert second.startswith("NATS_CONNECTION_FAILED: the connection was lost (")
    assert left == "0"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HMSG faults 1 2 5\r\nxyabc\r\n", "b'abc'"),
        (b"HMSG faults 1 12 15\r\nNATS/1.0\r\n\r\nabc\r\n", "b'abc'"),
        (b"hmsg faults 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", "b''"),
        (b"MSG other 99 3\r\nxyz\r\nMSG faults 1 3\r\nabc\r\n", "b'abc'"),
        (b"MSG other 99 3000\r\n" + b"x" * 3000 + b"\r\nMSG faults 1 0\r\n\r\n", "b''"),
        (b"-ERR 'Permissions Violation'\r\nMSG faults 1 3\r\nabc\r\n", "b'abc'"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_the_protocol_allows_is_taken(line: bytes, expected: str) -> None:
    with play(saying(line)) as broker:
        first, second, left = run(LISTEN, broker.url)
    assert first == expected
    assert second == "None"
    assert left == "0"


def test_headers_are_never_read_as_the_protocol() -> None:
    """Also where there is nothing but headers, and too many to be taken whole."""
    headers = b"NATS/1.0\r\na: " + b"x" * 3000 + b"\r\nMSG faults 1 6\r\nforged\r\n\r\n"
    line = b"HMSG faults 1 %d %d\r\n%s\r\n" % (len(headers), len(headers), headers)
    script = """
nc = natsbridge.connect(url)
sub = nc.subscribe("faults")
print(len(sub.next(3)), data(sub.next(3)), data(sub.next(3)), data(sub.next(3)))
"""
    good = b"MSG faults 1 4\r\ngood\r\n"
    with play(saying(line + good + line + good)) as broker:
        assert run(script, broker.url) == ["0 b'good' b'' b'good'"]


def test_what_the_broker_says_before_it_hangs_up_is_in_the_error() -> None:
    with play(saying(b"-ERR 'Stale Connection'\r\n", True)) as broker:
        first, _, _ = run(LISTEN, broker.url)
    assert first.startswith("NATS_CONNECTION_FAILED")
    assert "Stale Connection" in first


def test_a_message_that_was_cut_is_not_delivered_and_the_next_connection_goes_on() -> None:
    """With reconnect=True; the subscription is made again."""
    cut = saying(b"MSG faults 1 5\r\nab", True)
    large = saying(b"MSG faults 1 5000\r\n" + b"x" * 3000, True)
    script = """
nc = natsbridge.connect(url)
sub = nc.subscribe("faults")
BEFORE = descriptors()
msg = sub.next(5)
print(len(msg), code(lambda: msg.data))
print(code(lambda: msg.data))
print(data(sub.next(5)), descriptors() - BEFORE)
"""
    with play(cut, large, saying(b"MSG faults 1 4\r\ngood\r\n")) as broker:
        first, second, third = run(script, broker.url)
    assert first.startswith("5000 NATS_CONNECTION_FAILED")
    assert second.startswith("INVALID_ARGUMENT: the message on faults is no longer there")
    assert third == "b'good' 0"


def test_a_ping_is_answered_while_waiting_and_while_a_link_is_fetched() -> None:
    pongs = []
    fetching = threading.Event()
    ponged = threading.Event()

    def talk(connection: socket.socket) -> None:
        greet(connection)
        wait_for(connection, b"SUB faults")
        connection.sendall(b"PING\r\n")
        wait_for(connection, b"PONG\r\n")
        pongs.append("waiting")
        link = b'"transport":"link","size":6,"data":"%s/file/a/b/c"' % files.url.encode()
        wire = b'{"payloads":[{"dataname":"a","payload_type":"text",%s}]}' % link
        connection.sendall(b"MSG faults 1 %d\r\n%s\r\n" % (len(wire), wire))
        assert fetching.wait(10)
        connection.sendall(b"PING\r\n")
        wait_for(connection, b"PONG\r\n")
        pongs.append("fetching")
        ponged.set()
        connection.recv(100)

    def slow(peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        fetching.set()
        ponged.wait(10)
        peer.send(b"def")

    script = """
nc = natsbridge.connect(url)
sub = nc.subscribe("faults")
print(natsbridge.smartreceive(sub.next(5), fileserver_url=sys.argv[2])["payloads"])
"""
    with ScriptedServer([slow]) as files, play(talk) as broker:
        assert run(script, broker.url, files.url) == ["[('a', 'abcdef', 'text')]"]
    assert pongs == ["waiting", "fetching"]


def test_a_broker_that_takes_or_sends_no_more_is_an_error_in_time() -> None:
    """timeout bounds smartsend, flush and smartreceive; the next call connects again."""

    def deaf(connection: socket.socket) -> None:
        greet(connection)
        time.sleep(0.8)  # longer than the device's patience

    def stalling(connection: socket.socket) -> None:
        greet(connection)
        wait_for(connection, b"SUB faults")
        connection.sendall(b'MSG faults 1 5000\r\n{"payloads":[')
        time.sleep(0.8)

    script = """
class Zeros:
    def seek(self, offset, whence=0):
        return 20000000 if whence == 2 else 0
    def readinto(self, buf):
        return len(buf)

def timed(function, *arguments, **options):
    t = time.ticks_ms()
    got = code(function, *arguments, **options)
    print(400 < time.ticks_diff(time.ticks_ms(), t) < 3000, got)

nc = natsbridge.connect(url)
nc.max_payload = 1 << 30
timed(natsbridge.smartsend, "x", [("z", Zeros(), "binary")], size_threshold=1 << 30,
      nats_connection=nc, timeout=0.5)
timed(nc.flush, 0.5)
sub = nc.subscribe("faults")
timed(natsbridge.smartreceive, sub.next(5), timeout=0.5)
print(data(sub.next(5)))
"""
    with play(deaf, deaf, stalling, saying(b"MSG faults 1 4\r\ngood\r\n")) as broker:
        lines = run(script, broker.url)
    for line in lines[:3]:
        assert line.startswith("True NATS_CONNECTION_FAILED"), line
    assert lines[3] == "b'good'"


ACCOUNTS = """
authorization {
  users = [
    {user: u, password: "p%", permissions: {publish: "free.>", subscribe: "free.>"}}
  ]
}
"""


def test_credentials_and_permissions_of_a_real_server(tmp_path: Path) -> None:
    configuration = tmp_path / "accounts.conf"
    configuration.write_text(ACCOUNTS)
    script = """
host = url.split("//")[1]
for who in ({"user": "u", "password": "p%"}, {"user": "u", "password": "x"}, {"token": "t"}, {}):
    nc = code(natsbridge.connect, url, timeout=2, **who)
    print(nc if isinstance(nc, str) else "in")
nc = natsbridge.connect("nats://u:p%@" + host)
print(nc.url == "nats://" + host)
sub = nc.subscribe("free.x")
nc.publish("secret.x", b"1")
print(code(nc.flush))
nc.publish("free.x", b"2")
print(code(nc.flush), data(sub.next(2)))
"""
    with NatsServer(tmp_path, "-c", str(configuration)) as server:
        lines = run(script, server.url)
    assert lines[0] == "in"
    for line in lines[1:4]:
        assert line.startswith("NATS_CONNECTION_FAILED: no NATS server took the connection")
        # In a CONNECT that is written in pieces, the rest meets a closed socket: a reset, before
        # which the port gives nothing of what came.
        assert "Authorization Violation" in line or ROUGH in os.environ
        assert "user, password or token" in line
    assert lines[4] == "True"
    assert lines[5].startswith("NATS_CONNECTION_FAILED: the server refused: Permissions Violation")
    assert lines[6] == "None b'2'"


def test_another_server_takes_over_where_one_is_not_there(tmp_path: Path) -> None:
    gone = NatsServer(tmp_path)
    gone.stop()
    script = """
nc = natsbridge.connect(sys.argv[1:])
print(nc.url)
"""
    with NatsServer(tmp_path) as server:
        assert run(script, gone.url, server.url) == [server.url]


def test_a_late_answer_reaches_nobody(nats_url: str) -> None:
    """Neither a request that gave up nor an ended subscription leaves messages behind."""
    script = """
nc = natsbridge.connect(url)
late = nc.subscribe("late.asked")
print(nc.request("late.asked", b"?", 0.1))
asked = late.next(2)
nc.publish(asked.reply, b"too late")
nc.publish("late.asked", bytes(3000))
nc.flush()
late.unsubscribe()
print(nc.next(0.2))
"""
    assert run(script, nats_url) == ["None", "None"]


def test_times_of_many_days_are_no_longer_than_a_board_can_tell(nats_url: str) -> None:
    """Half of what ticks_ms() counts to: 2**29 on a board, 2**62 here."""
    script = """
from natsbridge.stream import until
days = 10**9
nc = natsbridge.connect(url, ping_interval=days, base_delay=days, max_delay=1e12, timeout=days)
ms = [nc._limit] + [nc._options[key] for key in ("base_delay", "max_delay", "delay")]
print(max(ms) < 1 << 29, [type(n) for n in ms] == [int] * 4)
left = time.ticks_diff(until(260000), time.ticks_ms())
print(until(days), 259990000 < left < 1 << 29)
"""
    assert run(script, nats_url) == ["True True", "None True"]


def test_a_subject_that_is_empty_is_refused_as_any_other_bad_one(nats_server: NatsServer) -> None:
    """Before and after something was published."""
    lines = run(
        """
nc = natsbridge.connect(url)
for _ in range(2):
    for bad in ("", " ", "a..b", "a.*", 5):
        print(code(nc.publish, bad, b"x"))
    nc.publish("good", b"x")
nc.flush()
""",
        nats_server.url,
    )
    assert [line[:16] for line in lines] == ["INVALID_ARGUMENT"] * 10
