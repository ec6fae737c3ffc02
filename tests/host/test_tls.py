"""tls and signed logins: nothing is said to a server that has not proved who it is."""

import asyncio
import gc
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from certificates import Certificates, NKey
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


def contents(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of the servers of these tests."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of somebody else."""
    return Certificates(tmp_path_factory.mktemp("tls"))


def serve(folder: Path, certificates: Certificates, *options: str, beside: str = "") -> NatsServer:
    """A server with these options in its tls block, and `beside` it."""
    config = folder / "tls.conf"
    config.write_text(certificates.nats(*options) + beside)
    return NatsServer(folder, "-c", str(config))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ours: Certificates) -> Iterator[NatsServer]:
    """A server with TLS."""
    with serve(tmp_path_factory.mktemp("nats"), ours) as server:
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
    async def test_a_file_bytes_or_a_context(self, server: NatsServer, ours: Certificates) -> None:
        await talk(server.url, tls={"ca": ours.ca})
        await talk(server.url.replace("nats://", "tls://"), tls={"ca": str(ours.ca)})
        pem = contents(ours.ca)
        await talk(server.url, tls={"ca": pem, "verify": True})
        await talk(server.url, tls={"ca": pem.decode()})
        await talk(server.url, tls={"ca": ssl.PEM_cert_to_DER_cert(pem.decode())})
        context = ssl.create_default_context(cafile=ours.ca)
        async with await natsbridge.connect(server.url, tls=context) as nc:
            assert nc.tls is context
            assert nc.connected
        assert not nc.connected

    async def test_the_synchronous_face(self, server: NatsServer, ours: Certificates) -> None:
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

    async def test_the_wrong_authority(self, server: NatsServer, other: Certificates) -> None:
        e = await failure(natsbridge.connect(server.url, tls={"ca": other.ca}))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "certificate" in e.message

    async def test_the_wrong_host_name(self, tmp_path: Path) -> None:
        ours = Certificates(tmp_path, "broker.example")
        with serve(tmp_path, ours) as server:
            e = await failure(natsbridge.connect(server.url, tls={"ca": ours.ca}))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "host name" in e.message
            await talk(server.url, tls={"ca": ours.ca, "hostname": "broker.example"})
            wrong = {"ca": ours.ca, "hostname": "other.example"}
            assert "host name" in (await failure(natsbridge.connect(server.url, tls=wrong))).message

    async def test_verification_can_be_turned_off(self, server: NatsServer) -> None:
        await talk(server.url, tls={"verify": False})

    async def test_handshake_first(self, tmp_path: Path, ours: Certificates) -> None:
        with serve(tmp_path, ours, "handshake_first: true") as server:
            await talk(server.url, tls={"ca": ours.ca, "handshake_first": True})
            e = await failure(natsbridge.connect(server.url, tls={"ca": ours.ca}, timeout=1))
            assert e.code == "NATS_CONNECTION_FAILED"

    async def test_handshake_first_at_a_plain_server(
        self, nats_url: str, ours: Certificates
    ) -> None:
        tls = {"ca": ours.ca, "handshake_first": True}
        start = time.monotonic()
        e = await failure(natsbridge.connect(nats_url, tls=tls, timeout=3))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "handshake_first" in e.message
        assert time.monotonic() - start < 2

    async def test_a_client_certificate(
        self, tmp_path: Path, ours: Certificates, other: Certificates
    ) -> None:
        cert, key = ours.client, ours.client_key
        with serve(tmp_path, ours, "verify: true") as server:
            await talk(server.url, tls={"ca": ours.ca, "cert": cert, "key": key})
            tls = {"ca": ours.ca, "cert": contents(cert), "key": contents(key)}
            await talk(server.url, tls=tls)
            both = tmp_path / "both.pem"
            both.write_bytes(contents(key) + contents(cert))
            await talk(server.url, tls={"ca": ours.ca, "cert": both})
            e = await failure(natsbridge.connect(server.url, tls={"ca": ours.ca}))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "certificate" in e.message
            tls = {"ca": ours.ca, "cert": other.client, "key": other.client_key}
            e = await failure(natsbridge.connect(server.url, tls=tls))
            assert e.code == "NATS_CONNECTION_FAILED"

    async def test_where_tls_is_optional_a_demand_gets_it(
        self, tmp_path: Path, ours: Certificates
    ) -> None:
        with serve(tmp_path, ours, beside="allow_non_tls: true") as server:
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

    async def test_it_holds_for_a_reconnect_too(self, tmp_path: Path, ours: Certificates) -> None:
        server = serve(tmp_path, ours)
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
        self, tmp_path: Path, ours: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = serve(tmp_path, ours)
        async with await natsbridge.connect(server.url, tls={"ca": ours.ca}, reconnect=False) as nc:
            server.stop()
            await failure(nc.next(2))
        assert not [record for record in caplog.records if record.name != "natsbridge"]

    async def test_nothing_stays_open_after_a_failed_handshake(
        self, server: NatsServer, other: Certificates, things: Callable[[], Any]
    ) -> None:
        await failure(natsbridge.connect(server.url, tls={"ca": other.ca}))
        await asyncio.sleep(0.1)
        gc.collect()  # or what others left behind is closed in between
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

    def test_a_key_of_another_certificate(self, ours: Certificates) -> None:
        with pytest.raises(NATSBridgeError, match="cert and key"):
            check_tls({"cert": ours.client, "key": ours.server_key})

    def test_defaults_verify(self, ours: Certificates) -> None:
        assert check_tls(None) is None
        for tls in (True, {}, {"verify": None}, {"ca": ours.ca}):
            options = check_tls(tls)
            assert options is not None
            assert options.context.check_hostname
            assert options.context.verify_mode == ssl.CERT_REQUIRED
        assert len(options.context.get_ca_certs()) == 1  # and the system's not


@pytest.fixture(scope="module")
def key() -> NKey:
    """A user's key."""
    return NKey("user")


@pytest.fixture
def nkey_server(tmp_path: Path, key: NKey) -> Iterator[NatsServer]:
    """A server that takes this user alone."""
    config = tmp_path / "nkey.conf"
    config.write_text(f"authorization {{ users = [ {{ nkey: {key.public} }} ] }}")
    with NatsServer(tmp_path, "-c", str(config)) as server:
        yield server


@pytest.mark.asyncio
class TestSigned:
    async def test_an_nkey(self, nkey_server: NatsServer, key: NKey) -> None:
        nonces = []

        def sign(nonce: bytes) -> bytes:
            nonces.append(nonce)
            return key.sign(nonce)

        await talk(nkey_server.url, nkey=key.public, sign=sign)
        assert isinstance(nonces[0], bytes)
        with sync.connect(nkey_server.url, nkey=key.public, sign=key.sign) as nc:
            nc.flush()

    async def test_another_key(self, nkey_server: NatsServer, key: NKey) -> None:
        wrong = NKey("user")
        for options in (
            {},
            {"nkey": wrong.public, "sign": wrong.sign},
            {"nkey": key.public, "sign": wrong.sign},
        ):
            e = await failure(natsbridge.connect(nkey_server.url, **options))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "credentials" in e.message

    async def test_a_signer_that_fails(self, nkey_server: NatsServer, key: NKey) -> None:
        def fails(nonce: bytes) -> bytes:
            raise OSError("the chip is gone")

        for sign, word in ((fails, "chip"), (lambda n: b"short", "64"), (lambda n: "x", "64")):
            e = await failure(natsbridge.connect(nkey_server.url, nkey=key.public, sign=sign))  # type: ignore[arg-type]
            assert e.code == "NATS_CONNECTION_FAILED"
            assert word in e.message

    async def test_it_signs_again_when_it_reconnects(
        self, tmp_path: Path, nkey_server: NatsServer, key: NKey
    ) -> None:
        asked = []

        def sign(nonce: bytes) -> bytes:
            asked.append(nonce)
            if len(asked) == 2:
                raise ValueError("once")
            return key.sign(nonce)

        options: Any = {"nkey": key.public, "sign": sign, "base_delay": 20}
        async with await natsbridge.connect(nkey_server.url, **options) as nc:
            nkey_server.stop()
            await asyncio.sleep(0.1)
            config = str(tmp_path / "nkey.conf")
            with NatsServer(tmp_path, "-c", config, port=nkey_server.port):
                await nc.publish("a", b"")
                await nc.flush()
        assert len(set(asked)) == 3

    async def test_a_jwt(self, tmp_path: Path, key: NKey) -> None:
        operator, account = NKey("operator"), NKey("account")
        limits = dict.fromkeys(("subs", "conn", "data", "payload", "leaf"), -1)
        account_jwt = operator.jwt(account.public, "lab", {"type": "account", "limits": limits})
        user = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        config = tmp_path / "jwt.conf"
        config.write_text(
            f"operator: {operator.jwt(operator.public, 'house', {'type': 'operator'})}\n"
            f"resolver: MEMORY\nresolver_preload: {{ {account.public}: {account_jwt} }}\n"
        )
        jwt = account.jwt(key.public, "desk", user)
        with NatsServer(tmp_path, "-c", str(config)) as server:
            await talk(server.url, jwt=jwt, sign=key.sign)
            await talk(server.url, jwt=jwt, nkey=key.public, sign=key.sign)
            e = await failure(natsbridge.connect(server.url, jwt=jwt, sign=NKey("user").sign))
            assert "credentials" in e.message

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
