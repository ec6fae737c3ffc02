"""Nothing that is secret is in anything that anybody can read: logs, errors, representations,
messages, and what the command prints."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import socket
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

import natsbridge
from board import Board
from canary import Answer, Files
from certificates import Certificates
from command import Runner
from conftest import NatsServer
from figures import Figures
from natsbridge import http, sync, urls
from natsbridge.cli.settings import Settings
from natsbridge.errors import NATSBridgeError
from natsbridge.log import Formatter
from natsbridge.tls import check_tls
from scale import runs

DEVICE = (Path(__file__).parent / "secrets_device.py").read_text()
#: What nobody may read. The server gives the token of an upload.
SECRETS = {
    "password": "s3cr3t-password",
    "token": "s3cr3t-token",
    "jwt": "ey.s3cr3t-jwt.x",
    "files_login": "s3cr3t-login",
    "plik_token": "s3cr3t-plik-token",
    "upload_token": "s3cr3t-upload-token",
}


def hidden_forms(certificates: Certificates) -> dict[str, str]:
    """Each secret as it could stand somewhere."""
    forms = dict(SECRETS)
    for user in ("device", ""):
        pair = f"{user}:{SECRETS['files_login']}".encode()
        forms[f"basic {user}"] = base64.b64encode(pair).decode().rstrip("=")
    for name, secret in SECRETS.items():
        forms[f"{name} in base64"] = base64.b64encode(secret.encode()).decode().rstrip("=")
        forms[f"{name} in a URL"] = quote(secret, safe="").replace("-", "%2D")
    lines = certificates.client_key.read_text().splitlines()
    return forms | {f"key {i}": line for i, line in enumerate(lines[1:-1]) if len(line) > 40}


class World(NamedTuple):
    """A broker that takes the password, one that takes nobody, one that says nothing, and a file
    server that creates uploads and then fails."""

    broker: NatsServer
    denies: NatsServer
    silent: str
    files: Files
    certificates: Certificates

    def check(self, text: str) -> int:
        """No secret is in it: how much there was to look at."""
        found = [name for name, secret in hidden_forms(self.certificates).items() if secret in text]
        lines = [line for line in text.splitlines() if "s3cr3t" in line]
        assert found == [], lines[:5]
        return len(text)


PERMITTED = """
authorization { timeout: 5, users = [ { user: device, password: "PASSWORD", permissions: {
  publish: { deny: "not.permitted" }, subscribe: { deny: "not.permitted" } } } ] }
"""


@pytest.fixture
def world(tmp_path: Path, certificates: Certificates) -> Iterator[World]:
    """The servers."""

    def rule(method: str, target: str) -> Answer:
        if method == "POST" and target == "/upload":
            created = {"id": "u1", "uploadToken": SECRETS["upload_token"]}
            return 200, [], json.dumps(created).encode()
        return (400 if method == "POST" else 403), ["Location: http://127.0.0.1:1/"], b"no"

    for name, user in (("broker", SECRETS["password"]), ("denies", "another")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c").write_text(PERMITTED.replace("PASSWORD", user))
    silent = socket.create_server(("127.0.0.1", 0))
    with (
        silent,
        Files() as files,
        NatsServer(tmp_path / "broker", "-c", str(tmp_path / "broker" / "c")) as broker,
        NatsServer(tmp_path / "denies", "-c", str(tmp_path / "denies" / "c")) as denies,
    ):
        files.rule = rule
        port = silent.getsockname()[1]
        yield World(broker, denies, f"nats://127.0.0.1:{port}", files, certificates)


def test_a_device_says_none(world: World, tmp_path: Path, figures: Figures) -> None:
    facts = {
        **SECRETS,
        "key": str(world.certificates.client_key),
        "broker": world.broker.url,
        "denies": world.denies.url,
        "silent": world.silent,
        "files": world.files.url,
    }
    (tmp_path / "facts").write_text(json.dumps(facts))
    text = ""
    with Board(DEVICE, str(tmp_path / "facts"), heap="512K") as board:
        while not text.endswith("CUT\n"):
            text += board.line(30) + "\n"
        world.broker.kill()
        board.say()
        while not text.endswith("END\n"):
            text += board.line(30) + "\n"
        assert board.rest() == []
    assert text.count("ERROR") > 100
    assert text.count("[Correlation: ") > 10  # the log is on
    world.check(text)
    figures.note(
        14,
        "secrets-device",
        f"device: no secret in {len(text) // 1000} KB of log and {text.count('ERROR')} errors",
    )


class Reader:
    """Keeps all that can be read on the desktop."""

    def __init__(self) -> None:
        self.text = ""
        self.failures = 0

    def show(self, *things: Any) -> None:
        for thing in things:
            self.text += f"{thing!r} {thing}\n"

    def error(self, e: NATSBridgeError) -> None:
        self.failures += 1
        self.show(e, e.args, e.message, e.details)
        self.text += "".join(traceback.format_exception(e)) + json.dumps(e.to_dict("x")) + "\n"
        cause = e.__cause__
        while cause is not None:
            self.show(cause)
            cause = cause.__cause__

    async def fails(self, work: Awaitable[Any]) -> Any:
        """Await what should fail, and read how."""
        try:
            got = await work
        except NATSBridgeError as e:
            self.error(e)
            return None
        self.show(got)
        return got


def logins() -> dict[str, dict[str, Any]]:
    def sign(nonce: bytes) -> bytes:
        return bytes(64)

    def refuses(nonce: bytes) -> bytes:
        raise OSError("no chip")

    return {
        "password": {"user": "device", "password": SECRETS["password"]},
        "token": {"token": SECRETS["token"]},
        "jwt": {"jwt": SECRETS["jwt"], "sign": sign},
        "chip": {"jwt": SECRETS["jwt"], "sign": refuses},
        "nkey": {"nkey": "U" + "A" * 55, "sign": sign},
    }


async def connecting(reader: Reader, world: World) -> None:
    """All the ways in which connecting fails."""
    connect = natsbridge.connect
    for login in logins().values():
        await reader.fails(connect(world.denies.url, **login))
        await reader.fails(connect("nats://127.0.0.1:1", **login))
        await reader.fails(connect(world.silent, timeout=0.2, **login))
        await reader.fails(connect(world.denies.url, tls=True, **login))
        await reader.fails(connect("http://127.0.0.1:1", **login))
        await reader.fails(connect(world.broker.url, ping_interval=-1, **login))
    for start in ("nats://", "tls://", "", "http://", "ws://"):
        for end in ("127.0.0.1:1", "127.0.0.1:x", "[::1", "", "127.0.0.1:1/x", "127.0.0.1:1?x"):
            for login in ("device:" + SECRETS["password"], SECRETS["token"]):
                await reader.fails(connect(f"{start}{login}@{end}", timeout=0.3))
    key = world.certificates.client_key
    pem = key.read_bytes()
    for tls in (
        *({"ca": key}, {"ca": pem}, {"cert": key}, {"cert": pem, "key": pem}),
        *({"key": pem}, {"ca": world.certificates.ca, "cert": pem, "key": "/no/file"}),
    ):
        await reader.fails(connect(world.denies.url, tls=tls, timeout=1))
    long = SECRETS["password"] * 200
    await reader.fails(connect(world.denies.url, user="x", password=long))
    await reader.fails(connect(world.denies.url, user="x", password=5))  # type: ignore[arg-type]


async def transfers(reader: Reader, world: World) -> None:
    """All the ways in which files are refused."""
    login = SECRETS["files_login"]
    files = world.files.url.replace("://", f"://device:{login}@")
    headers = {"X-PlikToken": SECRETS["plik_token"]}
    for url in (
        *(files, f"http://device:{login}@127.0.0.1:1", f"https://device:{login}@127.0.0.1:1"),
        *(f"http://device:{login}@127.0.0.1:x", f"ftp://device:{login}@127.0.0.1"),
        *(f"http://device:{login}%zz@127.0.0.1", f"http://device:{login}@"),
    ):
        await reader.fails(natsbridge.plik_upload(url, "x", b"abc", headers=headers))
        await reader.fails(natsbridge.plik_oneshot_upload(url, "x", b"abc"))
        await reader.fails(natsbridge.fetch_with_backoff(url + "/x", 2, 1, 1))
    for odd in ({"X-PlikToken": SECRETS["plik_token"] + "\n"}, {"X Y": SECRETS["plik_token"]}):
        await reader.fails(natsbridge.plik_upload(files, "x", b"abc", headers=odd))
    server = urls.parse_server(files, "x")
    reader.show(
        server,
        server.base,
        check_tls(
            {"cert": str(world.certificates.client), "key": str(world.certificates.client_key)}
        ),
    )
    async with http.Session(server, headers) as session:
        reader.show(session)


async def talking(reader: Reader, world: World) -> None:
    """All the ways in which a connection that stands fails."""
    files = world.files.url.replace("://", f"://device:{SECRETS['files_login']}@")
    nc = await natsbridge.connect(
        world.broker.url, name="me", base_delay=1, max_delay=1, timeout=1, **logins()["password"]
    )
    sub = await nc.subscribe("secrets")
    reader.show(nc, sub, nc.url)
    for fallback in (True, False):
        await reader.fails(
            natsbridge.smartsend(
                "secrets.x",
                [("a", b"abc", "binary")],
                nats_connection=nc,
                fileserver_url=files,
                size_threshold=0,
                fallback_direct=fallback,
            )
        )
    for url in (world.files.url + "/file/u/f/x", "http://127.0.0.1:1/x", "file:///x", files + "/x"):
        payload = {"dataname": "x", "payload_type": "binary", "transport": "link", "data": url}
        message = {"payloads": [{**payload, "size": 3}], "reply_to": "back"}
        await nc.publish("secrets", json.dumps(message), "back")
        msg = await sub.next(5)
        reader.show(msg)
        await reader.fails(
            natsbridge.smartreceive(
                msg, fileserver_url=files, max_retries=2, base_delay=1, nack=True
            )
        )
    await nc.publish("not.permitted", b"x")
    await reader.fails(nc.flush())
    await reader.fails(nc.subscribe("not.permitted"))
    world.broker.kill()
    await asyncio.sleep(0.2)
    await reader.fails(nc.flush(0.5))
    await reader.fails(nc.request("secrets", b"x", 0.2))
    reader.show(nc, sub)
    await nc.close()
    await reader.fails(nc.flush())


#: What was read so far on the desktop.
read: Counter[str] = Counter()
WORK: dict[str, Callable[[Reader, World], Awaitable[None]]] = {
    "connecting": connecting,
    "transfers": transfers,
    "talking": talking,
}


@pytest.mark.parametrize("what", WORK)
def test_a_desktop_says_none(
    world: World,
    what: str,
    figures: Figures,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every logger of this process is on, nats-py's, aiohttp's and asyncio's too."""
    monkeypatch.setattr("natsbridge.plik.BASE_DELAY", 1)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(Formatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    reader = Reader()
    try:
        asyncio.run(WORK[what](reader, world), debug=True)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    printed = capfd.readouterr()
    size = world.check(reader.text + log.getvalue() + printed.out + printed.err)
    assert reader.failures > 5
    assert log.getvalue()
    read.update(size=size, failures=reader.failures)
    figures.note(
        14,
        "secrets-host",
        f"desktop: no secret in {read['size'] // 1000} KB of log and {read['failures']} errors",
    )


@pytest.mark.parametrize("command", ["send", "receive", "watch", "doctor"])
@pytest.mark.parametrize("where", ["environment", "options", "toml"][: runs(1, 3)])
def test_the_command_prints_none(world: World, bare: Runner, command: str, where: str) -> None:
    login = SECRETS["files_login"]
    files = world.files.url.replace("://", f"://device:{login}@")
    rest = {
        "send": ["send", "x.y", "hello", "--file", "f", "--fileserver", files],
        "receive": ["receive", "x.y", "--count=1", "--timeout=0.1"],
        "watch": ["watch", "x.y", "--count=1", "--timeout=0.1"],
        "doctor": ["doctor"],
    }[command]
    (bare.cwd / "f").write_bytes(bytes(600_000))
    text = ""
    for url in (world.broker.url, world.denies.url, "nats://127.0.0.1:1", "nats://127.0.0.1:x"):
        for login in (
            {"password": SECRETS["password"], "user": "device"},
            {"token": SECRETS["token"]},
        ):
            given = {**login, "server": url, "fileserver": files}
            (bare.cwd / "natsbridge.toml").unlink(missing_ok=True)
            words = list(rest)
            environ = {}
            if where == "options":
                words += [word for key, value in given.items() for word in (f"--{key}", value)]
            elif where == "environment":
                names = {"server": "NATS_URL", "fileserver": "FILESERVER_URL"}
                environ = {names.get(k, f"NATS_{k.upper()}"): v for k, v in given.items()}
            else:
                lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
                (bare.cwd / "natsbridge.toml").write_text("\n".join(lines))
            for more in ([], ["-v"], ["--json"]):
                ended = bare.inside(*words, *more, environ=environ)
                assert "Traceback" not in ended.err
                text += ended.out + ended.err
    assert len(text) > 1000
    world.check(text)


def test_a_login_in_a_broken_configuration_is_not_repeated(bare: Runner, world: World) -> None:
    for text in (
        f'password = "{SECRETS["password"]}',
        f'password = ["{SECRETS["password"]}"]',
        f'passwort = "{SECRETS["password"]}"',
        f'[send]\npassword = {{ x = "{SECRETS["password"]}" }}',
        f'server = "nats://u:{SECRETS["password"]}@h:x"',
    ):
        (bare.cwd / "natsbridge.toml").write_text(text)
        ended = bare.inside("send", "x.y", "hello")
        assert ended.code != 0
        world.check(ended.out + ended.err)


def test_representations_of_what_holds_secrets_do_not() -> None:
    login = SECRETS["files_login"]
    server = urls.parse_server(f"http://device:{login}@files.example", "x")
    settings = Settings(
        *((f"nats://u:{SECRETS['password']}@h",), server.full, "", "", SECRETS["password"]),
        *(SECRETS["token"], ""),
    )
    for text in (repr(server), str(server), repr(settings)):
        assert "s3cr3t" not in text
    assert sync.Connection.__repr__ is object.__repr__
