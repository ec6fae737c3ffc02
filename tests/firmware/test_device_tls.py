"""TLS on the device: who is let in, who is refused, and that nothing is said before it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from board import GAPS, Board, run, write
from certificates import Certificates, NKey
from conftest import NatsServer
from harness import run_micropython
from scripted import INFO
from test_device_client import play, wait_for


@contextlib.contextmanager
def server(certificates: Certificates, folder: Path, *options: str, port: int = -1) -> Iterator:
    configuration = write(folder, "tls.conf", certificates.nats("timeout: 5", *options))
    with NatsServer(folder, "-c", configuration, port=port) as it:
        yield it


@pytest.fixture(scope="module")
def secure(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    with server(certificates, tmp_path_factory.mktemp("tls")) as it:
        yield it


ROUND = """
ca, cert, key, other = sys.argv[2:6]

def round(url, **options):
    nc = natsbridge.connect(url, timeout=3, **options)
    sub = nc.subscribe("a")
    nc.publish("a", b"small")
    nc.publish("a", bytes(100000))
    nc.flush()
    first = data(sub.next(3))
    second = sub.next(3)
    nc.publish("a", b"last")
    got = nc.url.split(":")[0], first, len(second), data(sub.next(3))
    nc.close()
    return got

url = sys.argv[1]
port = url.split(":")[-1]
with open(ca, "rb") as f:
    pem = f.read()
"""
GOOD = "('tls', 'small', 100000, 'last')"


def device(certificates: Certificates, url: str, script: str) -> list[str]:
    files = certificates.ca, certificates.client, certificates.client_key, certificates.other
    return run(ROUND + script, url, *map(str, files))


def test_a_server_with_a_certificate_of_the_ca_is_talked_with(
    certificates: Certificates, secure: NatsServer
) -> None:
    lines = device(
        certificates,
        secure.url,
        """
from binascii import a2b_base64
der = a2b_base64(pem.split(b"-----")[2])
for options in ({"ca": ca}, {"ca": pem}, {"ca": der}, {"ca": str(pem, "utf-8")}):
    print(round(url, tls=options))
print(round("tls://localhost:" + port, tls={"ca": b"# two\\n" + open(other, "rb").read() + pem}))
print(round("127.0.0.1:" + port, tls={"ca": ca, "hostname": "localhost"}))
print(round(url, tls={"verify": False}))
print(round(url.replace("nats:", "tls:"), tls={"verify": False}))
""",
    )
    assert lines == [GOOD] * 8


def test_a_server_that_can_not_be_verified_is_refused(
    certificates: Certificates, secure: NatsServer
) -> None:
    lines = device(
        certificates,
        secure.url,
        """
for options in ({"ca": other}, {"ca": ca, "hostname": "example.com"}):
    print(code(round, url, tls=options))
for options in (True, {}, {"ca": "nowhere.pem"}, {"ca": b"x"}, {"ca": ca, "cert": cert},
                {"cafile": ca}):
    print(code(round, "tls://127.0.0.1:" + port, tls=options))
print(code(round, "nats://127.0.0.1:" + port))
print(code(round, "wss://127.0.0.1:" + port))
""",
    )
    unsigned, misnamed, *options, demanded, scheme = lines
    for line in (unsigned, misnamed, demanded):
        assert line.startswith("NATS_CONNECTION_FAILED: no NATS server took"), line
    assert "not correctly signed by the trusted CA" in unsigned
    assert "does not match" in misnamed
    assert "Check ca, hostname and the clock" in misnamed
    assert 'pass tls={"ca": "ca.pem"}' in demanded
    for line, part in zip(
        options,
        (*(['pass tls={"ca": "ca.pem"}'] * 2), *(["can't be used"] * 3), "unknown key 'cafile'"),
        strict=True,
    ):
        assert line.startswith("INVALID_ARGUMENT")
        assert part in line
    assert "connects to nats:// and tls://" in scheme


def test_a_device_shows_its_own_certificate(certificates: Certificates, tmp_path: Path) -> None:
    with server(certificates, tmp_path, "verify: true") as it:
        lines = device(
            certificates,
            it.url,
            """
with open(key, "rb") as f:
    secret = f.read()
print(round(url, tls={"ca": ca, "cert": cert, "key": key}))
print(round(url, tls={"ca": ca, "cert": cert, "key": secret}))
print(code(round, url, tls={"ca": ca}))
""",
        )
    assert lines[:2] == [GOOD] * 2
    assert lines[2].startswith("NATS_CONNECTION_FAILED")


def test_servers_that_expect_tls_at_once(certificates: Certificates, tmp_path: Path) -> None:
    with server(certificates, tmp_path, "handshake_first: true") as it:
        lines = device(
            certificates,
            it.url,
            """
print(round(url, tls={"ca": ca, "handshake_first": True}))
print(took(round, url, tls={"ca": ca})[0] < 6000)
print(code(round, url, tls={"ca": other, "handshake_first": True})[:22])
""",
        )
    assert lines == [GOOD, "True", "NATS_CONNECTION_FAILED"]


@pytest.mark.parametrize(
    "info", [INFO, INFO[:-3] + b',"tls_required":true}\r\nINFO {}\r\n'], ids=["stripped", "early"]
)
def test_nothing_is_said_to_whoever_took_tls_out_of_the_greeting(
    certificates: Certificates, info: bytes
) -> None:
    """Nor is what stands between INFO and TLS taken for what the server says."""
    heard = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(info)
        heard.append(connection.recv(1000))

    script = """
print(code(natsbridge.connect, url, user="u", password="secret", tls={"ca": ca}))
print(code(natsbridge.connect, url.replace("nats", "tls"), token="secret", tls={"ca": ca}))
"""
    with play(talk) as broker:
        lines = device(certificates, broker.url, script)
    for line in lines:
        assert line.startswith("NATS_CONNECTION_FAILED")
        assert "TLS" in line
    assert heard == [b"", b""]


def test_the_handshake_is_part_of_the_time_allowed(certificates: Certificates) -> None:
    """A peer that says nothing, and one that dribbles; on_idle is called all the while."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(INFO[:-3] + b',"tls_required":true}\r\n')
        with contextlib.suppress(OSError):
            while connection.recv(1000):
                pass

    script = (
        GAPS
        + """
ms, gap = gaps(natsbridge.connect, url, tls={"ca": ca}, timeout=1, on_idle=idle)
print(900 < ms < 1500 + late and gap <= 120 or (ms, gap, late))
"""
    )
    with play(talk) as broker:
        assert device(certificates, broker.url, script) == ["True"]


def test_a_cut_in_the_handshake_is_an_error_and_no_descriptor_stays_open(
    certificates: Certificates,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)

    def cut(connection: socket.socket) -> None:
        connection.sendall(INFO[:-3] + b',"tls_required":true}\r\n')
        connection.recv(100)

    def garbage(connection: socket.socket) -> None:
        connection.sendall(INFO[:-3] + b',"tls_required":true}\r\n')
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        wait_for(connection, b"never")

    def after(connection: socket.socket) -> None:
        connection.sendall(INFO[:-3] + b',"tls_required":true}\r\n')
        with context.wrap_socket(connection, server_side=True) as peer:
            greet_inside(peer)
            wait_for(peer, b"SUB a")
            peer.sendall(b"MSG a 1 5\r\nab")

    def greet_inside(peer: ssl.SSLSocket) -> None:
        wait_for(peer, b"PING\r\n")
        peer.sendall(b"PONG\r\n")

    script = """
def descriptors():
    return len(list(os.ilistdir("/proc/self/fd")))
before = descriptors()
for _ in range(2):
    print(code(natsbridge.connect, url, tls={"ca": ca}, timeout=2))
nc = natsbridge.connect(url, tls={"ca": ca}, reconnect=False)
print(code(nc.subscribe("a").next, 2))
print(descriptors() - before)
"""
    with play(cut, garbage, after) as broker:
        *lines, left = device(certificates, broker.url, script)
    assert "TLS" in lines[0]
    assert "TLS failed" in lines[1]
    for line in lines:
        assert line.startswith("NATS_CONNECTION_FAILED")
    assert left == "0"


def test_a_secure_connection_comes_back(certificates: Certificates, tmp_path: Path) -> None:
    script = """
nc = natsbridge.connect(sys.argv[1], tls={"ca": sys.argv[2]}, base_delay=50)
sub = nc.subscribe("a")
print("ready")
sys.stdin.readline()
sub.next(1)
nc.publish("a", b"again")
print(nc.url[:3], data(sub.next(10)))
"""
    with server(certificates, tmp_path) as first:
        board = Board(script, first.url, str(certificates.ca))
        with board:
            assert board.line() == "ready"
            port = first.port
            first.stop()
            with server(certificates, tmp_path, port=port):
                board.say()
                assert board.rest() == ["tls again"]


SIGNING = """
import socket
public, jwt, where = sys.argv[2:5]
where = socket.getaddrinfo("127.0.0.1", int(where))[0][-1]

def sign(nonce):
    s = socket.socket()
    s.connect(where)
    s.write(nonce + b"\\n")
    return s.read(64)

url = sys.argv[1]
"""


@contextlib.contextmanager
def signer(key: NKey) -> Iterator[str]:
    """Signs what the device asks it to: the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(key.sign(connection.makefile("rb").readline().rstrip(b"\n")))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield str(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_an_nkey_signs_the_servers_nonce(tmp_path: Path) -> None:
    key = NKey("user")
    configuration = write(
        tmp_path, "nkey.conf", f"authorization {{ users = [ {{ nkey: {key.public} }} ] }}"
    )
    script = """
for use in (sign, lambda nonce: bytes(64)):
    nc = code(natsbridge.connect, url, nkey=public, sign=use)
    print(nc if isinstance(nc, str) else nc.flush())
print(code(natsbridge.connect, url, nkey=public))
"""
    with NatsServer(tmp_path, "-c", configuration) as it, signer(key) as port:
        lines = run(SIGNING + script, it.url, key.public, "", port)
    assert lines[0] == "None"
    assert "Authorization Violation" in lines[1]
    assert lines[2].startswith("INVALID_ARGUMENT: jwt and nkey need sign")


def test_a_jwt_with_its_nkey(tmp_path: Path) -> None:
    operator, account, user = NKey("operator"), NKey("account"), NKey("user")
    account_jwt = operator.jwt(
        account.public,
        "lab",
        {
            "type": "account",
            "limits": dict.fromkeys(("subs", "conn", "data", "payload", "leaf"), -1),
        },
    )
    user_jwt = account.jwt(
        user.public, "device", {"type": "user", "subs": -1, "data": -1, "payload": -1}
    )
    configuration = write(
        tmp_path,
        "jwt.conf",
        f"operator: {operator.jwt(operator.public, 'house', {'type': 'operator'})}\n"
        f"resolver: MEMORY\nresolver_preload: {{ {account.public}: {account_jwt} }}\n",
    )
    script = """
with open(jwt) as f:
    jwt = f.read()
nc = natsbridge.connect(url, jwt=jwt, sign=sign)
sub = nc.subscribe("a")
nc.publish("a", b"in")
print(data(sub.next(2)))
"""
    with NatsServer(tmp_path, "-c", configuration) as it, signer(user) as port:
        # From a file: the unix port takes no argument of more than 255 characters.
        path = write(tmp_path, "user.jwt", user_jwt)
        assert run(SIGNING + script, it.url, user.public, path, port) == ["in"]


def test_tls_without_options_is_still_tls(nats_url: str) -> None:
    """A board has no CAs: it refuses, and does not go on in plain text."""
    script = """
import sys
import natsbridge
try:
    natsbridge.connect(sys.argv[1], tls={})
except natsbridge.NATSBridgeError as e:
    print(e.code)
"""
    assert run_micropython(script, nats_url, heap="128K") == "INVALID_ARGUMENT\n"
