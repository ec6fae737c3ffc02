"""The device behind nats-server's MQTT listener, and desktops on NATS: as if both were on NATS."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from board import Board, run
from device import compiled, main_of, micropython, printed
from mqtt_broker import Client, MqttServer, packet, string
from natsbridge import sync

DATA = random.Random("mqtt").randbytes(99_999)


@pytest.fixture
def desk(mqtt_server: MqttServer) -> Iterator[Any]:
    with sync.connect(mqtt_server.url, name="desk") as nc:
        yield nc


def test_payloads_of_every_way_cross_between_mqtt_and_nats(
    mqtt_server: MqttServer, desk: Any, file_url: str, tmp_path: Path
) -> None:
    """Text, dictionaries, 99,999 bytes in the message, links; an ACK; questions by reply_to."""
    (tmp_path / "photo").write_bytes(DATA)
    (tmp_path / "inbox").mkdir()
    sub = desk.subscribe("lab.up.>")
    desk.flush()
    main = main_of(Path(__file__).with_name("mqtt_device.py"), tmp_path)
    arguments = mqtt_server.mqtt, file_url, str(tmp_path)
    with micropython(main, *arguments, heap="96K", path=compiled()) as device:
        env = sync.smartreceive(sub.next(10), fileserver_url=file_url)
        assert env["sender_name"] == "pico"
        assert env["broker_url"] == mqtt_server.mqtt
        assert env["payloads"] == [
            ("hello", "hé", "text"),
            ("state", {"on": True}, "dictionary"),
            ("photo", DATA, "image"),
            ("log", DATA[:5000] * 40, "binary"),
        ]
        sync.smartsend(
            "lab.down.x",
            [
                ("again", "hé", "text"),
                ("state", {"on": False}, "dictionary"),
                ("photo", DATA, "image"),
                ("log", DATA * 6, "binary"),
            ],
            nats_connection=desk,
            fileserver_url=file_url,
            receiver_name="pico",
        )
        ack = sync.smartreceive(sub.next(10))
        assert (ack["payloads"], ack["msg_purpose"]) == ([], "ACK")
        for i in range(3):
            sync.smartsend(
                "lab.down.ask",
                [("n", {"n": i}, "dictionary")],
                nats_connection=desk,
                reply_to=f"lab.up.answer.{i}",
                correlation_id=f"question {i}",
            )
            msg = sub.next(10)
            answer = sync.smartreceive(msg)
            assert msg.subject == f"lab.up.answer.{i}"
            assert answer["correlation_id"] == f"question {i}"
            assert answer["payloads"] == [("n", {"n": 2 * i}, "dictionary")]
        out = device.rest(20)
    *said, photo, log = out.splitlines()
    assert said == ["direct direct direct link", "hé", "False"]
    assert Path(photo).read_bytes() == DATA
    assert Path(log).read_bytes() == DATA * 6


def test_files_of_any_size_pass_through_a_small_heap(
    mqtt_server: MqttServer, file_url: str, tmp_path: Path
) -> None:
    """What memory_device.py sends itself: 99,999 and 499,999 bytes in messages, more by link."""
    sizes = {"a": 99_999, "b": 499_999, "c": 1_000_000}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(random.Random(name).randbytes(size))
    main = main_of(Path(__file__).with_name("memory_device.py"), tmp_path)
    arguments = mqtt_server.mqtt, file_url, str(tmp_path), *sizes
    out = printed(main, *arguments, heap="72K", path=compiled())
    came = {line.split()[0]: Path(line.split()[3]) for line in out.splitlines()}
    assert list(came) == list(sizes)
    for name, path in came.items():
        assert path.read_bytes() == (tmp_path / name).read_bytes()


LISTEN = """
nc = natsbridge.connect(sys.argv[1], name="listener", timeout=5)
sub = nc.subscribe("two.>")
nc.flush()
print("ready")
for _ in range(4):
    msg = sub.next(10)
    env = natsbridge.smartreceive(msg)
    print(msg.subject, env["sender_name"], [(n, len(v), sum(v)) for n, v, k in env["payloads"]])
print(sub.next(0.1))
nc.close()
"""
SPEAK = """
nc = natsbridge.connect(sys.argv[1], name="speaker", qos=%d)
for size in (0, 1000, 2047, 99999):
    data = bytes(i & 255 for i in range(size))
    natsbridge.smartsend("two.s%%d" %% size, [("d", data, "binary")], nats_connection=nc)
nc.close()
"""


@pytest.mark.parametrize("qos", [0, 1])
def test_two_devices_talk_with_each_other(qos: int, mqtt_server: MqttServer) -> None:
    with Board(LISTEN, mqtt_server.mqtt, heap="1M") as listener:
        assert listener.line() == "ready"
        assert run(SPEAK % qos, mqtt_server.mqtt, heap="1M") == []
        lines = listener.rest()
    assert lines == [
        *(
            f"two.s{n} speaker [('d', {n}, {sum(i & 255 for i in range(n))})]"
            for n in (0, 1000, 2047, 99_999)
        ),
        "None",
    ]


ORDER = """
nc = natsbridge.connect(sys.argv[1])
sub = nc.subscribe("many.down")
nc.flush()
print("ready")
said = False
for i in range(60):
    msg = sub.next(10)
    env = natsbridge.smartreceive(msg)
    [(name, value, kind)] = env["payloads"]
    natsbridge.smartsend("many.up", [("n", {"n": i, "len": len(value)}, "dictionary")],
                         nats_connection=nc)
nc.flush()
nc.close()
"""


def test_acknowledgements_wait_behind_large_messages_and_none_is_lost(
    mqtt_server: MqttServer, desk: Any
) -> None:
    """The desktop sends as fast as it can; each is answered, with a PUBACK still to come."""
    sizes = [(7919 * i) % 6000 for i in range(60)]
    with Board(ORDER, mqtt_server.mqtt, heap="256K") as board:
        assert board.line() == "ready"
        sub = desk.subscribe("many.up")
        for size in sizes:
            sync.smartsend("many.down", [("d", bytes(size), "binary")], nats_connection=desk)
        got = [sync.smartreceive(sub.next(10))["payloads"][0][1] for _ in sizes]
        assert board.rest() == []
    assert got == [{"n": i, "len": size} for i, size in enumerate(sizes)]


def test_subscriptions_end_as_over_nats(mqtt_server: MqttServer, desk: Any) -> None:
    script = """
nc = natsbridge.connect(sys.argv[1])
sub = nc.subscribe("end.a")
limited = nc.subscribe("end.b")
limited.unsubscribe(2)
nc.flush()
print("ready")
print([data(sub.next(5)) for _ in range(2)])
print([data(limited.next(1)) for _ in range(3)])
sub.unsubscribe()
print(code(sub.next, 1))
again = nc.subscribe("end.a")
drained = nc.subscribe("end.c")
nc.flush()
print("again")
print(data(again.next(5)))
sys.stdin.readline()
drained.drain()
print([data(m) for m in drained])
nc.drain()
print(nc.next(1))
nc.close()
print(code(nc.publish, "end.a", "x"))
"""
    with Board(script, mqtt_server.mqtt) as board:
        assert board.line() == "ready"
        for i in range(3):
            desk.publish("end.b", b"b%d" % i)
        for i in range(2):
            desk.publish("end.a", b"a%d" % i)
        desk.flush()
        lines = [board.line() for _ in range(4)]
        desk.publish("end.a", b"more")
        for i in range(3):
            desk.publish("end.c", b"c%d" % i)
        desk.flush()
        lines.append(board.line())
        board.say()
        lines += board.rest()
    assert lines == [
        "['a0', 'a1']",
        "['b0', 'b1', None]",
        "INVALID_ARGUMENT: the subscription to end.a has ended; subscribe again",
        "again",
        "more",
        "['c0', 'c1', 'c2']",
        "None",
        "NATS_CONNECTION_FAILED: the connection is closed; call connect() again",
    ]


@pytest.mark.parametrize("qos", [0, 1])
def test_each_of_two_subscriptions_that_overlap_gets_its_message(
    qos: int, mqtt_server: MqttServer, desk: Any
) -> None:
    script = f"""
nc = natsbridge.connect(sys.argv[1], qos={qos})
subs = [nc.subscribe(s) for s in ("both.>", "both.x", "*.x")]
nc.flush()
print("ready")
sys.stdin.readline()
nc.flush()
for sub in subs:
    print([data(sub.next(0)) for _ in range(4)])
nc.close()
"""
    with Board(script, mqtt_server.mqtt) as board:
        assert board.line() == "ready"
        for i in range(2):
            desk.publish("both.x", b"%d" % i)
        desk.publish("both.y", b"y")
        desk.flush()
        board.say()
        assert board.rest() == [
            "['0', '1', 'y', None]",
            "['0', '1', None, None]",
            "['0', '1', None, None]",
        ]


def test_a_message_larger_than_2_kb_stays_on_the_socket_until_it_is_read(
    mqtt_server: MqttServer, desk: Any
) -> None:
    script = """
nc = natsbridge.connect(sys.argv[1], qos=0)
sub = nc.subscribe("large")
nc.flush()
print("ready")
msg = sub.next(5)
print(len(msg), msg.left, nc._stream.reader.end <= 512)
nc.publish("large.seen", b"yes")  # publishing reads nothing
print(sum(msg.data) == 255 * 500000)
first = sub.next(5)
second = sub.next(5)
print(len(second.data), code(lambda: first.data))
nc.close()
"""
    with Board(script, mqtt_server.mqtt, heap="2M") as board:
        assert board.line() == "ready"
        for _ in range(3):
            desk.publish("large", b"\xff" * 500_000)
        desk.flush()
        whole, read, lost = board.rest()
    assert whole == "500000 500002 True"
    assert read == "True"
    assert lost.startswith("500000 INVALID_ARGUMENT: the message on large is no longer there")


def raw(server: MqttServer, name: str, topic: bytes) -> Client:
    """A client in Python that listens."""
    client = Client.connect(server, name)
    client.send(packet(0x82, b"\0\1" + string(topic) + b"\1"))
    client.until(0x90)
    return client


def test_what_qos_means_on_the_wire(mqtt_server: MqttServer) -> None:
    client = raw(mqtt_server, "wire", b"qos/#")
    try:
        for qos in (0, 1):
            run(
                f"nc = natsbridge.connect(sys.argv[1], qos={qos})\n"
                "nc.publish('qos.x', b'a')\nnc.flush()\nnc.close()",
                mqtt_server.mqtt,
            )
            op, body = client.read()
            assert op == 0x30 | qos << 1
            if qos:
                client.send(b"\x40\2" + body[-3:-1])
    finally:
        client.close()
