"""tls and signed logins: nothing is said to a server that has not proved who it is."""

import asyncio
import base64
import binascii
import json
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import natsbridge
from conftest import NatsServer
from natsbridge import sync
from natsbridge.errors import NATSBridgeError
from natsbridge.tls import check_tls

Tls = dict[str, Any]
FakeNats = Callable[..., Awaitable[str]]


async def failure(work: Awaitable[Any]) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await work
    return e.value


def contents(path: str) -> bytes:
    return Path(path).read_bytes()


class Authority:
    """A certificate authority, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.authority = trustme.CA()
        self.ca = str(self.folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)

    def issue(self, host: str) -> tuple[str, str]:
        """The paths of a certificate and of its key."""
        issued = self.authority.issue_cert(host)
        paths = self.folder / f"{host}.pem", self.folder / f"{host}.key"
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return str(paths[0]), str(paths[1])


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signs the servers of these tests."""
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one."""
    return Authority(tmp_path_factory.mktemp("tls"), "other")


def serve(folder: Path, authority: Authority, host: str, *options: str) -> NatsServer:
    """A server with a certificate for `host`, and these lines in its tls block."""
    cert, key = authority.issue(host)
    config = folder / "tls.conf"
    lines = [f'cert_file: "{cert}"', f'key_file: "{key}"', *options]
    outside = [o for o in lines if o.startswith("allow_non_tls")]
    inside = "\n".join(o for o in lines if o not in outside)
    config.write_text("\n".join([f"tls {{\n{inside}\n}}", *outside]))
    return NatsServer(folder, "-c", str(config))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ours: Authority) -> Iterator[NatsServer]:
    """A server with TLS, for 127.0.0.1."""
    with serve(tmp_path_factory.mktemp("nats"), ours, "127.0.0.1") as server:
        yield server


async def talk(url: str, **options: Any) -> None:
    """Connect and exchange a message."""
    async with await natsbridge.connect(url, **options) as nc:
        sub = await nc.subscribe("tls.talk")
        await nc.publish("tls.talk", b"x" * 100_000)
        msg = await sub.next(2)
        assert msg is not None
        assert len(msg) == 100_000


@pytest.mark.asyncio
class TestTls:
    async def test_a_file_bytes_or_a_context(self, server: NatsServer, ours: Authority) -> None:
        await talk(server.url, tls={"ca": ours.ca})
        await talk(server.url.replace("nats://", "tls://"), tls={"ca": Path(ours.ca)})
        pem = contents(ours.ca)
        await talk(server.url, tls={"ca": pem, "verify": True})
        await talk(server.url, tls={"ca": pem.decode()})
        await talk(server.url, tls={"ca": ssl.PEM_cert_to_DER_cert(pem.decode())})
        context = ssl.create_default_context(cafile=ours.ca)
        async with await natsbridge.connect(server.url, tls=context) as nc:
            assert nc.tls is context
            assert nc.connected
        assert not nc.connected

    async def test_the_synchronous_face(self, server: NatsServer, ours: Authority) -> None:
        options = {"ca": ours.ca}
        with sync.connect(server.url, tls=options) as nc:
            assert nc.tls is options
            nc.publish("a", b"")
            nc.flush()

    @pytest.mark.parametrize("tls", [None, True, {}])
    async def test_an_unknown_authority(self, server: NatsServer, tls: Any) -> None:
        e = await failure(natsbridge.connect(server.url, tls=tls))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "certificate" in e.message
        assert "tls['ca']" in e.message

    async def test_the_wrong_authority(self, server: NatsServer, other: Authority) -> None:
        e = await failure(natsbridge.connect(server.url, tls={"ca": other.ca}))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "certificate" in e.message

    async def test_the_wrong_host_name(self, tmp_path: Path, ours: Authority) -> None:
        with serve(tmp_path, ours, "broker.example") as server:
            e = await failure(natsbridge.connect(server.url, tls={"ca": ours.ca}))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "host name" in e.message
            await talk(server.url, tls={"ca": ours.ca, "hostname": "broker.example"})
            wrong = {"ca": ours.ca, "hostname": "other.example"}
            assert "host name" in (await failure(natsbridge.connect(server.url, tls=wrong))).message

    async def test_verification_can_be_turned_off(self, server: NatsServer) -> None:
        await talk(server.url, tls={"verify": False})

    async def test_handshake_first(self, tmp_path: Path, ours: Authority) -> None:
        with serve(tmp_path, ours, "127.0.0.1", "handshake_first: true") as server:
            await talk(server.url, tls={"ca": ours.ca, "handshake_first": True})
            e = await failure(natsbridge.connect(server.url, tls={"ca": ours.ca}, timeout=1))
            assert e.code == "NATS_CONNECTION_FAILED"

    async def test_handshake_first_at_a_plain_server(self, nats_url: str, ours: Authority) -> None:
        tls = {"ca": ours.ca, "handshake_first": True}
        start = time.monotonic()
        e = await failure(natsbridge.connect(nats_url, tls=tls, timeout=3))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "handshake_first" in e.message
        assert time.monotonic() - start < 2

    async def test_a_client_certificate(
        self, tmp_path: Path, ours: Authority, other: Authority
    ) -> None:
        wants = f'ca_file: "{ours.ca}"', "verify: true"
        cert, key = ours.issue("device.example")
        with serve(tmp_path, ours, "127.0.0.1", *wants) as server:
            await talk(server.url, tls={"ca": ours.ca, "cert": cert, "key": key})
            tls = {"ca": ours.ca, "cert": contents(cert), "key": contents(key)}
            await talk(server.url, tls=tls)
            both = tmp_path / "both.pem"
            both.write_bytes(contents(key) + contents(cert))
            await talk(server.url, tls={"ca": ours.ca, "cert": both})
            e = await failure(natsbridge.connect(server.url, tls={"ca": ours.ca}))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "certificate" in e.message
            cert, key = other.issue("device.example")
            tls = {"ca": ours.ca, "cert": cert, "key": key}
            e = await failure(natsbridge.connect(server.url, tls=tls))
            assert e.code == "NATS_CONNECTION_FAILED"

    async def test_where_tls_is_optional_a_demand_gets_it(
        self, tmp_path: Path, ours: Authority
    ) -> None:
        with serve(tmp_path, ours, "127.0.0.1", "allow_non_tls: true") as server:
            await talk(server.url)
            await talk(server.url, tls={"ca": ours.ca})
            e = await failure(natsbridge.connect(server.url, tls=True))
            assert "certificate" in e.message

    @pytest.mark.parametrize("tls", [True, {}, {"verify": False}])
    async def test_a_server_without_tls_is_told_nothing(
        self, fake_nats: FakeNats, tls: Any
    ) -> None:
        heard = bytearray()

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"max_payload":1048576}\r\n')
            heard.extend(await reader.read())

        e = await failure(natsbridge.connect(await fake_nats(plain), token="secret", tls=tls))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "no TLS" in e.message
        assert not heard

    async def test_it_holds_for_a_reconnect_too(self, tmp_path: Path, ours: Authority) -> None:
        server = serve(tmp_path, ours, "127.0.0.1")
        options: Any = {"tls": {"ca": ours.ca}, "base_delay": 20, "max_delay": 100}
        nc = await natsbridge.connect(server.url, timeout=1, **options)
        try:
            server.stop()
            await asyncio.sleep(0.1)
            with NatsServer(tmp_path, port=server.port):  # somebody without TLS
                e = await failure(nc.publish("a", b"secret"))
                assert e.code == "NATS_CONNECTION_FAILED"
                assert not nc.connected
            with NatsServer(tmp_path, "-c", str(tmp_path / "tls.conf"), port=server.port):
                await nc.publish("a", b"secret")
                await nc.flush()
        finally:
            await nc.close()

    async def test_nothing_is_logged_at_its_end(
        self, tmp_path: Path, ours: Authority, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = serve(tmp_path, ours, "127.0.0.1")
        async with await natsbridge.connect(server.url, tls={"ca": ours.ca}, reconnect=False) as nc:
            server.stop()
            await failure(nc.next(2))
        assert not [record for record in caplog.records if record.name != "natsbridge"]

    async def test_nothing_stays_open_after_a_failed_handshake(
        self, server: NatsServer, other: Authority, things: Callable[[], Any]
    ) -> None:
        await failure(natsbridge.connect(server.url, tls={"ca": other.ca}))
        await asyncio.sleep(0.1)
        before, tasks = things(), len(asyncio.all_tasks())
        for _ in range(3):
            await failure(natsbridge.connect(server.url, tls={"ca": other.ca}))
        await asyncio.sleep(0.1)
        assert things() == before
        assert len(asyncio.all_tasks()) == tasks


class TestOptions:
    @pytest.mark.parametrize(
        "tls",
        [
            False,
            5,
            "ca.pem",
            {"cafile": "x"},
            {"ca": 5},
            {"ca": ""},
            {"ca": b""},
            {"ca": "/no/such/file"},
            {"ca": b"no certificate"},
            {"ca": "\0"},
            {"ca": b"\xff"},
            {"cert": b"no certificate"},
            {"key": b"a key alone"},
            {"verify": 0},
            {"verify": "false"},
            {"hostname": b"x"},
            {"handshake_first": 1},
        ],
    )
    def test_what_is_refused(self, tls: Any) -> None:
        with pytest.raises(NATSBridgeError) as e:
            check_tls(tls)
        assert e.value.code == "INVALID_ARGUMENT"
        assert "tls" in e.value.message

    def test_a_key_of_another_certificate(self, ours: Authority) -> None:
        (cert, _), (_, key) = ours.issue("one.example"), ours.issue("two.example")
        with pytest.raises(NATSBridgeError, match="cert and key"):
            check_tls({"cert": cert, "key": key})

    def test_defaults_verify(self, ours: Authority) -> None:
        assert check_tls(None) is None
        for tls in (True, {}, {"verify": None}, {"ca": ours.ca}):
            options = check_tls(tls)
            assert options is not None
            assert options.context.check_hostname
            assert options.context.verify_mode == ssl.CERT_REQUIRED
        assert len(options.context.get_ca_certs()) == 1  # and the system's not


def nkey(key: Ed25519PrivateKey) -> str:
    """The public key as NATS writes a user's."""
    raw = bytes([20 << 3]) + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b32encode(raw + struct.pack("<H", binascii.crc_hqx(raw, 0))).decode().rstrip("=")


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    """A user's key."""
    return Ed25519PrivateKey.generate()


@pytest.fixture
def nkey_server(tmp_path: Path, key: Ed25519PrivateKey) -> Iterator[NatsServer]:
    """A server that takes this user alone."""
    config = tmp_path / "nkey.conf"
    config.write_text(f"authorization {{ users = [ {{ nkey: {nkey(key)} }} ] }}")
    with NatsServer(tmp_path, "-c", str(config)) as server:
        yield server


@pytest.mark.asyncio
class TestSigned:
    async def test_an_nkey(self, nkey_server: NatsServer, key: Ed25519PrivateKey) -> None:
        nonces = []

        def sign(nonce: bytes) -> bytes:
            nonces.append(nonce)
            return key.sign(nonce)

        await talk(nkey_server.url, nkey=nkey(key), sign=sign)
        assert isinstance(nonces[0], bytes)
        with sync.connect(nkey_server.url, nkey=nkey(key), sign=key.sign) as nc:
            nc.flush()

    async def test_another_key(self, nkey_server: NatsServer, key: Ed25519PrivateKey) -> None:
        wrong = Ed25519PrivateKey.generate()
        for options in (
            {},
            {"nkey": nkey(wrong), "sign": wrong.sign},
            {"nkey": nkey(key), "sign": wrong.sign},
        ):
            e = await failure(natsbridge.connect(nkey_server.url, **options))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "credentials" in e.message

    async def test_a_signer_that_fails(
        self, nkey_server: NatsServer, key: Ed25519PrivateKey
    ) -> None:
        def fails(nonce: bytes) -> bytes:
            raise OSError("the chip is gone")

        for sign, word in ((fails, "chip"), (lambda n: b"short", "64"), (lambda n: "x", "64")):
            e = await failure(natsbridge.connect(nkey_server.url, nkey=nkey(key), sign=sign))  # type: ignore[arg-type]
            assert e.code == "NATS_CONNECTION_FAILED"
            assert word in e.message

    async def test_it_signs_again_when_it_reconnects(
        self, tmp_path: Path, nkey_server: NatsServer, key: Ed25519PrivateKey
    ) -> None:
        asked = []

        def sign(nonce: bytes) -> bytes:
            asked.append(nonce)
            if len(asked) == 2:
                raise ValueError("once")
            return key.sign(nonce)

        options: Any = {"nkey": nkey(key), "sign": sign, "base_delay": 20}
        async with await natsbridge.connect(nkey_server.url, **options) as nc:
            nkey_server.stop()
            await asyncio.sleep(0.1)
            config = str(tmp_path / "nkey.conf")
            with NatsServer(tmp_path, "-c", config, port=nkey_server.port):
                await nc.publish("a", b"")
                await nc.flush()
        assert len(set(asked)) == 3

    async def test_a_jwt(self, fake_nats: FakeNats, key: Ed25519PrivateKey) -> None:
        said: list[dict[str, Any]] = []

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"max_payload":1048576,"auth_required":true,"nonce":"abc"}\r\n')
            said.append(json.loads((await reader.readline()).split(b" ", 1)[1]))
            while await reader.readline():
                writer.write(b"PONG\r\n")

        url = await fake_nats(server)
        async with await natsbridge.connect(url, jwt="head.body.sig", sign=key.sign):
            pass
        assert said[0]["jwt"] == "head.body.sig"
        key.public_key().verify(base64.b64decode(said[0]["sig"]), b"abc")

    @pytest.mark.parametrize(
        "options",
        [
            {"sign": len},
            {"jwt": "x"},
            {"nkey": "x"},
            {"nkey": "x", "sign": "seed"},
            {"nkey": 5, "sign": len},
            {"jwt": b"x", "sign": len},
            {"jwt": "a\nb", "sign": len},
        ],
    )
    async def test_what_is_refused(self, options: Any) -> None:
        e = await failure(natsbridge.connect("nats://127.0.0.1:9", **options))
        assert e.code == "INVALID_ARGUMENT"
