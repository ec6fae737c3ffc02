"""connect("mqtt://..."): logins, TLS, permissions, limits, and what MQTT can't do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from board import run
from certificates import Certificates
from mqtt_broker import MqttServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttServer]:
    with MqttServer(tmp_path_factory.mktemp("mqtt")) as it:
        yield it


LOGIN = """
def attempt(url, **options):
    nc = natsbridge.connect(url, reconnect=False, timeout=3, **options)
    sub = nc.subscribe("a")
    nc.publish("a", b"x")
    got = nc.url, data(sub.next(2))
    nc.close()
    return got
"""


def test_users_passwords_and_tokens(tmp_path: Path) -> None:
    users = "authorization { users: [ { user: u, password: secret } ] }"
    with MqttServer(tmp_path, users) as it:
        host = it.mqtt[7:]
        good, url, *bad = run(
            LOGIN + "url = sys.argv[1]\n"
            "print(code(attempt, 'mqtt://' + url, user='u', password='secret'))\n"
            "print(code(attempt, 'mqtt://u:secret@' + url))\n"
            "print(code(attempt, 'mqtt://u:wrong@' + url))\n"
            "print(code(attempt, 'mqtt://' + url))\n",
            host,
        )
    assert good == url == f"('mqtt://{host}', 'x')"
    for line in bad:
        assert line.startswith("NATS_CONNECTION_FAILED: no NATS server took the connection")
        assert f"{host} this user may not connect" in line
        assert "secret" not in line


def test_a_token_is_the_password(tmp_path: Path) -> None:
    with MqttServer(tmp_path, "authorization { token: t0 }") as it:
        lines = run(
            LOGIN + "print(code(attempt, sys.argv[1], token='t0'))\n"
            "print(code(attempt, sys.argv[1].replace('//', '//t0@')))\n"
            "print(code(attempt, sys.argv[1], token='t1')[:22])\n",
            it.mqtt,
        )
    assert lines == [f"('{it.mqtt}', 'x')"] * 2 + ["NATS_CONNECTION_FAILED"]


def test_tls(certificates: Certificates, tmp_path: Path) -> None:
    with MqttServer(tmp_path, listener=certificates.nats()) as it:
        port = str(it.ports[1])
        lines = run(
            LOGIN + "port, ca, other = sys.argv[1:]\n"
            "for url in ('mqtts://localhost:', 'mqtt://127.0.0.1:'):\n"
            "    print(code(attempt, url + port, tls={'ca': ca}))\n"
            "print(code(attempt, 'mqtts://localhost:' + port, tls={'verify': False}))\n"
            "print(code(attempt, 'mqtts://localhost:' + port, tls={'ca': other}))\n"
            "print(code(attempt, 'mqtts://localhost:' + port))\n"
            "print(code(attempt, 'mqtt://localhost:' + port)[:22])\n",
            *(port, str(certificates.ca), str(certificates.other)),
        )
    good = f"('mqtts://localhost:{port}', 'x')"
    assert lines[:3] == [good, good.replace("localhost", "127.0.0.1"), good]
    assert "not correctly signed by the trusted CA" in lines[3]
    assert 'pass tls={"ca": "ca.pem"}' in lines[4]
    assert lines[5] == "NATS_CONNECTION_FAILED"


def test_a_subscription_that_the_user_may_not_have_is_an_error(tmp_path: Path) -> None:
    users = (
        'authorization { users: [ { user: u, password: p, permissions: { subscribe: "yes.>" } } ] }'
    )
    with MqttServer(tmp_path, users) as it:
        lines = run(
            """
nc = natsbridge.connect(sys.argv[1], user="u", password="p")
bad = nc.subscribe("no.a")
good = nc.subscribe("yes.>")
print(code(bad.next, 3))
nc.publish("yes.x", b"x")
print(data(good.next(3)))
nc.close()
""",
            it.mqtt,
        )
    assert lines == [
        "NATS_CONNECTION_FAILED: the server refused: the subscription to no.a",
        "x",
    ]


def test_a_message_that_the_server_does_not_take_is_not_begun(tmp_path: Path) -> None:
    """Its limit is less by the 25 bytes that it adds."""
    with MqttServer(tmp_path, "max_payload: 20000") as it:
        good, bad = run(
            """
nc = natsbridge.connect(sys.argv[1], max_payload=20000)
for qos in (0, 1):
    nc._options["qos"] = qos
    nc.publish("a", bytes(nc.max_payload))
nc.flush()
print(nc.max_payload)
print(code(nc.publish, "a", bytes(nc.max_payload + 1)))
nc.close()
""",
            it.mqtt,
        )
    assert good == "19975"
    assert bad.startswith("PAYLOAD_TOO_LARGE: the message has 19976 bytes")


def test_what_mqtt_can_not_do_is_refused(server: MqttServer) -> None:
    lines = run(
        """
url = sys.argv[1]
connect = natsbridge.connect
nc = connect(url)
print(code(nc.subscribe, "x.a", queue="q")[:16])
sub = nc.subscribe("x.a")
for call in (
    lambda: nc.request("x.b", b"?", timeout=1),
    lambda: nc.publish("x.b", b"1", reply="x.c"),
    lambda: nc.publish("x.b", b"1", headers={"a": "b"}),
    lambda: natsbridge.smartsend("x.b", [], nats_connection=nc, durable=True, timeout=3),
    lambda: nc.inbox("stream", "name"),
    lambda: nc.subscribe("x.b", queue="q"),
    lambda: nc.subscribe("x.a"),
    lambda: nc.publish("/chat/user/v1/message", b"1"),
    lambda: nc.subscribe("/chat/user/v1/message"),
    lambda: nc.publish("a+b.c", b"1"),
    lambda: nc.publish("a.#", b"1"),
    lambda: nc.publish("a.*", b"1"),
    lambda: nc.publish("a.>", b"1"),
    lambda: nc.publish("a b", b"1"),
    lambda: nc.publish("a..b", b"1"),
    lambda: nc.publish("", b"1"),
    lambda: nc.publish("/", b"1"),
    lambda: nc.publish("x" * 65536, b"1"),
    lambda: natsbridge.smartsend("a/b", [], nats_connection=nc),
    lambda: connect([url, "nats://127.0.0.1:1"]),
    lambda: connect(url, pending_size=1000),
    lambda: connect(url, jwt="j", sign=id),
    lambda: connect(url, qos=2),
    lambda: connect(url, qos=-1),
    lambda: connect(url, session=True),
    lambda: connect(url, will=b"gone"),
    lambda: connect(url, will=("a.*", [])),
    lambda: connect(url, will=("a", 5)),
    lambda: connect(url, will=("a", [("s", sys.stdin.buffer, "binary")])),
    lambda: connect("nats://127.0.0.1:1", will=("a", [])),
    lambda: connect("mqtt://"),
    lambda: connect("http://127.0.0.1"),
):
    print(code(call)[:16])
print(code(connect, url, will=("a", [("t", "x" * 65000, "text")]))[:17])
natsbridge.smartsend("x.a", [], nats_connection=nc, reply_to="x.c")  # that is in the envelope
print(sub.next(3).reply == "", nc.connected)
nc.close()
""",
        server.mqtt,
        heap="1M",
    )
    assert lines[:-2] == ["INVALID_ARGUMENT"] * 33
    assert lines[-2:] == ["PAYLOAD_TOO_LARGE", "True True"]
