"""TLS: whom both sides trust with credentials, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natsbridge
from bad_certificates import NAMES, BadCertificates, Pair
from board import Board
from canary import Canary, Files
from conftest import NatsServer, free_ports
from figures import Figures
from meddler import Meddler
from natsbridge.client import Connection, Msg
from natsbridge.errors import NATSBridgeError
from proxy import TlsProxy
from scale import runs

DEVICE = (Path(__file__).parent / "trust_device.py").read_text()
SECRET = "s3cret-of-the-broker"
LOGIN = f'authorization {{ user: "device", password: "{SECRET}", timeout: 5 }}\n'
SIDES = ("device", "desktop")
#: How TLS is asked for, beside a CA.
SCHEMES = ("nats", "tls")[: runs(1, 2)]


class Outcome(NamedTuple):
    """How a call ended: a code, "" where it did its work, and its text."""

    code: str
    text: str


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> BadCertificates:
    """Good and bad ones."""
    return BadCertificates(tmp_path_factory.mktemp("certificates"))


class Logged:
    """A nats-server that wants a login, with TLS or without, and writes down what it is told."""

    def __init__(self, folder: Path, pair: Pair | None, *lines: str, port: int = -1) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        self._log.touch()
        files = f'cert_file: "{pair[0]}", key_file: "{pair[1]}", timeout: 5' if pair else ""
        config = folder / "nats.conf"
        config.write_text(LOGIN + (f"tls {{ {files} }}\n" if pair else "") + "\n".join(lines))
        options = ("-c", str(config), "-DV", "-l", str(self._log))
        self.server = NatsServer(folder, *options, port=port)
        self.port = self.server.port
        self.url = f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def told(self) -> bool:
        """Whether anybody has said who he is."""
        return bool(re.search(r" cid:.*\[CONNECT \{", self.log))

    def __enter__(self) -> Logged:
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.stop()


class Device:
    """The device's side: one that goes through all."""

    def __init__(self) -> None:
        self._board = Board(DEVICE)
        assert self._board.line() == "ready"
        self.signed = 0

    def do(self, *what: Any) -> Outcome:
        self.begin(*what)
        return self.end()

    def begin(self, *what: Any) -> None:
        self._board.say(json.dumps(what))

    def end(self) -> Outcome:
        code, text, self.signed = json.loads(self._board.line(30))
        return Outcome(code, text)

    def connect(self, signs: bool = False, **options: Any) -> Outcome:
        return self.do("connect", options, signs)

    def upload(self, url: str, ca: Path) -> Outcome:
        return self.do("upload", url, {"ca": str(ca)})

    def receive(self, url: str, message: str, ca: Path, broker: str) -> Outcome:
        assert not self.connect(servers=broker).code
        return self.do("receive", url, message, {"ca": str(ca)})

    def close(self) -> None:
        self._board.__exit__()


def ended(work: Awaitable[Any]) -> Outcome:
    """Await what is to be done."""

    async def whole() -> Any:
        return await work

    try:
        return Outcome("", str(asyncio.run(whole())))
    except NATSBridgeError as e:
        return Outcome(e.code, e.message)


class Desktop:
    """The desktop's."""

    def __init__(self) -> None:
        self.signed = 0

    def _sign(self, nonce: bytes) -> bytes:
        self.signed += 1
        return bytes(64)

    def connect(self, signs: bool = False, **options: Any) -> Outcome:
        if signs:
            options["sign"] = self._sign

        async def work() -> str:
            async with await natsbridge.connect(**options) as nc:
                return nc.url

        return ended(work())

    def upload(self, url: str, ca: Path) -> Outcome:
        return ended(natsbridge.plik_upload(url, "x", b"abc", tls={"ca": str(ca)}))

    def receive(self, url: str, message: str, ca: Path, broker: str) -> Outcome:
        me = Connection(None, "me", "", tls={"ca": str(ca)})
        msg = Msg("s", "", message.encode())
        return ended(natsbridge.smartreceive(msg, fileserver_url=url, nats_connection=me))

    def close(self) -> None:
        pass


def link(url: str) -> str:
    payload = {
        **{"dataname": "x", "payload_type": "binary", "transport": "link", "encoding": "none"},
        **{"size": 3, "data": url},
    }
    return json.dumps({"payloads": [payload]})


Side = Device | Desktop


@pytest.fixture(scope="module", params=SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """Each of the two."""
    one: Side = Device() if request.param == "device" else Desktop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("natsbridge.broker.CLEANUP_S", 0.01)  # it is all of what a refusal takes
        yield one
    one.close()


# -- certificates


@pytest.fixture(scope="module")
def brokers(
    certificates: BadCertificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Logged]]:
    """A broker for each certificate, from when it is asked for."""
    folder = tmp_path_factory.mktemp("brokers")
    with contextlib.ExitStack() as stack:
        started: dict[str, Logged] = {}

        def broker(name: str) -> Logged:
            if name not in started:
                pair = certificates.bad.get(name, certificates.good)
                started[name] = stack.enter_context(Logged(folder / name, pair))
            return started[name]

        yield broker


def login(certificates: BadCertificates) -> dict[str, Any]:
    return {"user": "device", "password": SECRET, "tls": {"ca": str(certificates.ca)}}


def test_a_good_certificate_is_taken(
    brokers: Callable[[str], Logged], certificates: BadCertificates, side: Side, file_url: str
) -> None:
    broker = brokers("good")
    assert side.connect(servers=broker.url, **login(certificates)).code == ""
    assert broker.told
    with TlsProxy(file_url, certificates.good) as proxy:  # type: ignore[arg-type]
        assert side.upload(proxy.url, certificates.ca).code == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_broker_is_refused_whose_certificate_is(
    brokers: Callable[[str], Logged], certificates: BadCertificates, side: Side, name: str
) -> None:
    broker = brokers(name)
    got = side.connect(servers=broker.url, **login(certificates))
    assert got.code == "NATS_CONNECTION_FAILED"
    assert "certificate" in got.text.lower(), got.text
    assert not broker.told


@pytest.mark.parametrize("name", NAMES)
def test_a_file_server_is_refused_whose_certificate_is(
    certificates: BadCertificates, side: Side, name: str, nats_url: str
) -> None:
    with Canary() as behind, TlsProxy(behind.url, certificates.bad[name]) as proxy:  # type: ignore[arg-type]
        url = proxy.url.replace("://", f"://device:{SECRET}@")
        got = side.receive(url, link(f"{proxy.url}/x"), certificates.ca, nats_url)
        assert got.code == "DOWNLOAD_FAILED"
        assert "certificate" in got.text.lower(), got.text
        assert SECRET not in got.text
        assert behind.heard == []
        assert proxy.connections == 1  # another attempt gets the same certificate


# -- a broker that is said to have no TLS

CREDENTIALS: dict[str, dict[str, Any]] = {
    "a-password": {"user": "device", "password": SECRET},
    "a-token": {"token": SECRET},
    "an-nkey": {"nkey": "U" + "A" * 55, "signs": True},
    "a-jwt": {"jwt": f"ey.{SECRET}.x", "signs": True},
    "a-login-in-the-url": {},
}
STRIPPED: dict[str, dict[str, Any]] = {
    "taken-out": {},
    "false": {"tls_required": False, "tls_available": False},
    "empty": {"tls_required": "", "tls_available": None, "tls_verify": True},
}


@pytest.fixture(scope="module")
def secure(brokers: Callable[[str], Logged]) -> Logged:
    """A broker with TLS."""
    return brokers("good")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", STRIPPED)
@pytest.mark.parametrize("what", CREDENTIALS)
def test_no_credentials_where_tls_required_is_stripped(
    certificates: BadCertificates, secure: Logged, side: Side, what: str, how: str, scheme: str
) -> None:
    def strip(info: dict[str, Any]) -> None:
        for key in ("tls_required", "tls_available", "tls_verify"):
            info.pop(key, None)
        info.update(STRIPPED[how], nonce="bm9uY2U", auth_required=True)

    before = side.signed
    with Meddler(secure.port, strip) as between:
        url = between.url.replace("nats", scheme)
        if what == "a-login-in-the-url":
            url = url.replace("://", f"://device:{SECRET}@")
        options = {**CREDENTIALS[what], "tls": {"ca": str(certificates.ca)}}
        got = side.connect(servers=url, timeout=5, **options)
        assert got.code == "NATS_CONNECTION_FAILED"
        assert "TLS" in got.text
        assert SECRET not in got.text
        assert between.connections == 1
        assert between.heard == b""
    assert side.signed == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_broker_that_comes_back_without_tls_gets_no_credentials(
    certificates: BadCertificates, side: Side, scheme: str, tmp_path: Path
) -> None:
    options = {**login(certificates), "base_delay": 20, "max_delay": 100, "timeout": 1.5}
    reconnected = _device_comes_back if isinstance(side, Device) else _desktop_comes_back
    with Logged(tmp_path / "first", certificates.good) as first:
        servers = first.url.replace("nats", scheme)
        with contextlib.ExitStack() as stack:

            def replace() -> Logged:
                first.server.stop()
                return stack.enter_context(Logged(tmp_path / "second", None, port=first.port))

            second, got = reconnected(side, replace, {"servers": servers, **options})
            assert got.code == "NATS_CONNECTION_FAILED"
            assert "Client connection created" in second.log
            assert not second.told


def _device_comes_back(
    side: Any, replace: Callable[[], Logged], options: dict[str, Any]
) -> tuple[Logged, Outcome]:
    assert not side.connect(**options).code
    return replace(), side.do("publish")


def _desktop_comes_back(
    side: Any, replace: Callable[[], Logged], options: dict[str, Any]
) -> tuple[Logged, Outcome]:
    second: list[Logged] = []

    async def work() -> None:
        async with await natsbridge.connect(**options) as nc:
            second.append(await asyncio.to_thread(replace))
            await nc.publish("trust", b"x")
            await nc.flush()

    got = ended(work())
    return second[0], got


# -- servers that a broker names


class Named(NamedTuple):
    """What came of those who lost a broker which had named two others: one without TLS, and one
    with a certificate of another CA; and what these were told."""

    outcomes: dict[str, Outcome]
    plain: Logged
    other: Logged


@pytest.fixture(scope="module")
def named(
    certificates: BadCertificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Named]:
    """A cluster whose good node ends while devices and desktops are connected to it."""
    folder = tmp_path_factory.mktemp("cluster")
    routes = free_ports(3)
    every = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    pairs = {"good": certificates.good, "plain": None, "other": certificates.other}
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                Logged(
                    folder / name,
                    pair,
                    f'server_name: "{name}"',
                    f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [ {every} ] }}',
                )
            )
            for (name, pair), port in zip(pairs.items(), routes, strict=True)
        ]
        good, plain, other = nodes
        options = {**login(certificates), "base_delay": 20, "max_delay": 100, "timeout": 1.5}
        devices = {}
        for scheme in ("nats", "tls"):
            device = devices[f"device-{scheme}"] = Device()
            stack.callback(device.close)
            url = good.url.replace("nats", scheme)
            assert not device.connect(servers=url, **options).code
            assert not device.do("found", 2).code
        outcomes = asyncio.run(_lose(good, options, certificates))
        for device in devices.values():
            device.begin("publish")
        outcomes |= {name: device.end() for name, device in devices.items()}
        yield Named(outcomes, plain, other)


async def _lose(
    good: Logged, options: dict[str, Any], certificates: BadCertificates
) -> dict[str, Outcome]:
    """Connect desktops, end the server, and publish."""
    learned = {k: v for k, v in options.items() if k != "tls"}
    desktops = {}
    for name, url, how in (
        ("host-nats", good.url, options),
        ("host-tls", good.url.replace("nats", "tls"), options),
        ("host-that-was-told-nothing-of-tls", good.url, learned),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificates.ca))
            desktops[name] = await natsbridge.connect(servers=url, **how)
    end = time.monotonic() + 10
    while any(len(nc.client._server_pool) < 3 for nc in desktops.values()):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    await asyncio.to_thread(good.server.stop)

    async def publish(nc: Connection) -> Outcome:
        try:
            await nc.publish("trust", b"x")
            await nc.flush()
            return Outcome("", nc.url)
        except NATSBridgeError as e:
            return Outcome(e.code, e.message)
        finally:
            await nc.close()

    found = await asyncio.gather(*map(publish, desktops.values()))
    return dict(zip(desktops, found, strict=True))


@pytest.mark.faults
@pytest.mark.parametrize(
    "who",
    ["device-nats", "device-tls", "host-nats", "host-tls", "host-that-was-told-nothing-of-tls"],
)
def test_servers_that_a_broker_names_are_trusted_no_more_than_it_is(named: Named, who: str) -> None:
    assert named.outcomes[who].code == "NATS_CONNECTION_FAILED", named.outcomes[who]
    for server in (named.plain, named.other):
        assert server.log.count("Client connection created") >= len(named.outcomes)
        assert not server.told


def test_servers_named_before_tls_are_not_believed(
    certificates: BadCertificates, secure: Logged, brokers: Callable[[str], Logged], side: Side
) -> None:
    """Whoever stands between could name one for which he has a certificate of a CA of ours."""
    with Meddler(secure.port, lambda info: None) as elsewhere:
        change = {"connect_urls": [f"localhost:{elsewhere.port}", "127.0.0.1:1"]}
        with Meddler(secure.port, lambda info: info.update(change)) as between:
            options = {**login(certificates), "base_delay": 20, "max_delay": 100, "timeout": 1.5}
            options["servers"] = between.url
            if isinstance(side, Device):
                assert not side.connect(**options).code
                between.cut()
                assert not side.do("publish").code
            else:

                async def work() -> None:
                    async with await natsbridge.connect(**options) as nc:
                        await nc.flush()
                        for _ in range(5):  # which server is next is left to chance
                            between.cut()
                            await asyncio.sleep(0.1)
                            await nc.publish("trust", b"x")
                            await nc.flush()

                assert not ended(work()).code
            assert between.connections > 1
            assert elsewhere.connections == 0


# -- the file server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["the-same-port", "the-usual-port", "another-server"])
def test_no_redirect_leads_from_https_to_http(
    certificates: BadCertificates, side: Side, status: int, where: str, nats_url: str
) -> None:
    with Files() as files, Canary() as canary, TlsProxy(files.url, certificates.good) as proxy:  # type: ignore[arg-type]
        to = {
            "the-same-port": proxy.url.replace("https", "http"),
            "the-usual-port": "http://localhost",
            "another-server": canary.url,
        }[where]
        files.rule = lambda method, target: (status, [f"Location: {to}/x"], b"")
        got = side.receive(proxy.url, link(f"{proxy.url}/x"), certificates.ca, nats_url)
        assert got.code == "URL_NOT_ALLOWED"
        assert canary.heard == []
        assert [r[1] for r in files.requests if "config" not in r[1]] == ["/x"]


def test_a_link_to_the_https_server_without_tls_is_refused(
    certificates: BadCertificates, side: Side, nats_url: str
) -> None:
    with Files() as files, TlsProxy(files.url, certificates.good) as proxy:  # type: ignore[arg-type]
        url = proxy.url.replace("https", "http")
        got = side.receive(proxy.url, link(f"{url}/x"), certificates.ca, nats_url)
        assert got.code == "URL_NOT_ALLOWED"
        assert {r[1] for r in files.requests} <= {"/config"}


def test_the_figure(
    brokers: Callable[[str], Logged], certificates: BadCertificates, side: Side, figures: Figures
) -> None:
    taken = []
    for name in NAMES:
        got = side.connect(servers=brokers(name).url, **login(certificates))
        taken += [name] if not got.code or brokers(name).told else []
    name = "device" if isinstance(side, Device) else "desktop"
    figures.note(
        14,
        f"tls-{name}",
        f"{name}: {len(NAMES) - len(taken)} of {len(NAMES)} kinds of bad certificates refused, and"
        " nothing said to them",
        met=not taken,
    )
    assert not taken
