"""No URL, whoever names it, has a receiver connect off its allow-list; and what it does connect to
is what was checked."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natsbridge
from board import Board
from canary import FOUND, Answer, Canary, Files
from figures import Figures
from harness import load_firmware
from hostile_urls import RELATIVE, configured, hostile, odd
from natsbridge import urls
from natsbridge.client import Connection, Msg
from natsbridge.errors import NATSBridgeError
from scale import runs

HOSTILE = tuple(hostile(1, 2))
ODD = tuple(odd(1))
REDIRECTS = (301, 302, 303, 307, 308)
DEVICE = (Path(__file__).parent / "ssrf_device.py").read_text()
parse = load_firmware("urls").parse


class Outcome(NamedTuple):
    """How a call ended: a code ("" where it did its work), its text, and (host, port) of the
    servers that were looked for."""

    code: str
    text: str
    asked: list[tuple[str, int]]


class World(NamedTuple):
    """A file server, of which /plik is the receiver's, and the canary beside it."""

    files: Files
    canary: Canary

    @property
    def url(self) -> str:
        return self.files.url + "/plik"

    def reset(self, rule: Callable[[str, str], Answer] = lambda method, target: FOUND) -> None:
        self.files.requests.clear()
        self.canary.heard.clear()
        self.files.rule = rule

    def redirect(self, status: int, to: str) -> None:
        """Have every file lead on to somewhere else."""
        self.reset(
            lambda method, target: (
                (status, [f"Location: {to}"], b"") if target.endswith("/from") else FOUND
            )
        )

    def check(self, got: Outcome) -> None:
        """Nobody was looked for, connected to or asked but the file server, under its prefix."""
        assert self.canary.heard == []
        assert got.text.isprintable()
        assert set(got.asked) <= {("127.0.0.1", self.files.port)}
        for _, target, host in self.files.requests:
            assert (target + "/").startswith("/plik/") or target.startswith("/plik?"), target
            assert host == f"127.0.0.1:{self.files.port}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The servers."""
    with Files() as files, Canary() as canary:
        yield World(files, canary)


Receiver = Callable[..., Outcome]


def envelope(url: str, **metadata: Any) -> str:
    """A message with one link."""
    payload = {
        **{"dataname": "x", "payload_type": "binary", "transport": "link", "encoding": "none"},
        **{"size": 3, "data": url, "metadata": metadata},
    }
    return json.dumps({"correlation_id": "c", "receiver_name": "me", "payloads": [payload]})


@pytest.fixture(scope="module")
def device(world: World, nats_url: str) -> Iterator[Receiver]:
    """One device, which goes through all of it."""

    def do(url: str = "", *, fetch: bool = False, upload: bool = False, **metadata: Any) -> Outcome:
        message = "" if fetch or upload else envelope(url, **metadata)
        board.say(json.dumps([world.url, url if fetch else "", message]))
        code, text, asked = json.loads(board.line(30))
        return Outcome(code, text, [(host, port) for host, port in asked])

    with Board(DEVICE, nats_url, str(world.canary.port)) as board:
        assert board.line() == "ready"
        yield do


_asked: list[tuple[str, int]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _asked is None or event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host, port = arguments[1][:2] if event == "socket.connect" else arguments[:2]
    _asked.append((str(host), port))


@pytest.fixture(scope="module")
def desktop(world: World) -> Iterator[Receiver]:
    """The desktop, of which every name that is looked up and every connection is noted; every name
    resolves to 127.0.0.1, at the canary's port."""
    resolve = socket.getaddrinfo

    def resolve_inside(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host != "127.0.0.1":
            host, port = "127.0.0.1", world.canary.port
        return resolve(host, port, *rest, **options)

    async def work(url: str, fetch: bool, upload: bool, metadata: dict[str, Any]) -> None:
        if upload:
            await natsbridge.plik_upload(world.url, "x", b"abc")
        elif fetch:
            await natsbridge.fetch_with_backoff(url, 1)
        else:
            msg = Msg("s", "", envelope(url, **metadata).encode())
            me = Connection(None, "me", "")
            await natsbridge.smartreceive(
                msg, fileserver_url=world.url, max_retries=1, nats_connection=me
            )

    def do(url: str = "", *, fetch: bool = False, upload: bool = False, **metadata: Any) -> Outcome:
        global _asked
        asked: list[tuple[str, int]] = []
        _asked = asked
        try:
            asyncio.run(work(url, fetch, upload, metadata))
            return Outcome("", "", asked)
        except NATSBridgeError as e:
            return Outcome(e.code, e.message, asked)
        finally:
            _asked = None

    sys.addaudithook(_note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve_inside)
        yield do


@pytest.fixture(scope="module", params=["device", "desktop"])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    """Each of the two sides."""
    result: Receiver = request.getfixturevalue(request.param)
    return result


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_url_in_a_message_is_refused(world: World, receiver: Receiver, name: str) -> None:
    world.reset()
    got = receiver(hostile(world.files.port, world.canary.port)[name])
    assert got.code == ("INVALID_ENVELOPE" if "longer" in name else "URL_NOT_ALLOWED")
    world.check(got)
    assert {target for _, target, _ in world.files.requests} <= {"/plik/config"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_redirect_to_a_hostile_url_is_not_followed(
    world: World, receiver: Receiver, name: str, rng: random.Random
) -> None:
    to = hostile(world.files.port, world.canary.port)[name]
    for status in rng.sample(REDIRECTS, runs(1, len(REDIRECTS))):
        world.redirect(status, to)
        # Some can be read as a path of the own server.
        world.check(receiver(world.url + "/from"))


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("name", RELATIVE)
def test_a_relative_redirect_stays_under_the_prefix(
    world: World, receiver: Receiver, name: str, status: int
) -> None:
    to = RELATIVE[name].format(own=world.files.port, bad=world.canary.port)
    world.redirect(status, to)
    world.check(receiver(world.url + "/a/from"))


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("to", ["{bad}/plik/x", "//{badhost}/plik/x", "http://inside.example/x"])
def test_no_redirect_leads_a_fetch_to_another_origin(
    world: World, receiver: Receiver, status: int, to: str
) -> None:
    bad = world.canary.url
    world.redirect(status, to.format(bad=bad, badhost=bad.removeprefix("http://")))
    got = receiver(world.url + "/from", fetch=True)
    assert got.code in ("URL_NOT_ALLOWED", "DOWNLOAD_FAILED")
    world.check(got)


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("at", ["/plik/upload", "/plik/file/u1"])
def test_no_redirect_leads_an_upload_away(
    world: World, receiver: Receiver, status: int, at: str
) -> None:
    created = json.dumps({"id": "u1", "uploadToken": "t"}).encode()

    def rule(method: str, target: str) -> Answer:
        if method == "POST" and target == at:
            return status, [f"Location: {world.canary.url}/x"], b""
        return 200, [], created

    world.reset(rule)
    got = receiver(upload=True)
    assert got.code == "UPLOAD_FAILED"
    world.check(got)


@pytest.mark.parametrize("status", REDIRECTS)
def test_no_redirect_leads_a_deletion_away(world: World, receiver: Receiver, status: int) -> None:
    world.reset(
        lambda method, target: (
            (status, [f"Location: {world.canary.url}/x"], b"") if method == "DELETE" else FOUND
        )
    )
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    world_url = world.files.url
    got = receiver(f"{world_url}/plik/x", sha256=digest, removable=True)
    assert got.code == ""
    world.check(got)


def test_a_handler_of_the_callers_gets_no_hostile_url(world: World) -> None:
    got: list[str] = []

    async def receive(url: str) -> None:
        def handler(url: str, *rest: Any) -> bytes:
            got.append(url)
            return b"abc"

        msg = Msg("s", "", envelope(url).encode())
        with pytest.raises(NATSBridgeError):
            await natsbridge.smartreceive(
                msg, fileserver_url=world.url, fileserver_download_handler=handler
            )

    world.reset()
    for url in hostile(world.files.port, world.canary.port).values():
        asyncio.run(receive(url))
    assert got == []


# -- what the file server itself may allow


CONFIGURED = tuple(configured(1, 2))


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configuration_does_not_widen_the_list_by(
    world: World, receiver: Receiver, name: str
) -> None:
    config = configured(world.files.port, world.canary.port)[name]
    body = json.dumps(config).encode()
    world.reset(lambda method, target: (200, [], body) if "config" in target else FOUND)
    got = receiver(world.canary.url + "/plik/x")
    assert got.code == "URL_NOT_ALLOWED"
    world.check(got)


ANSWERS: dict[str, Callable[[str], Answer]] = {
    "a-redirect": lambda url: (302, [f"Location: {url}/config"], b""),
    "a-redirect-with-content": lambda url: (302, [f"Location: {url}"], named(url)),
    "an-error-with-content": lambda url: (404, [], named(url)),
    "a-refusal-with-content": lambda url: (401, [], named(url)),
    "no-json": lambda url: (200, [], b"<html>" + url.encode()),
    "half-a-json": lambda url: (200, [], named(url)[:-1]),
    "a-list": lambda url: (200, [], b"[" + named(url) + b"]"),
    "nesting": lambda url: (200, [], b"[" * 4000),
    "too-much": lambda url: (200, [], b'{"x":"' + b"y" * 200_000 + b'",' + named(url)[1:]),
    "nothing": lambda url: (204, [], b""),
}


def named(url: str) -> bytes:
    return json.dumps({"downloadDomain": url}).encode()


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_no_configuration_widens_nothing(
    world: World, receiver: Receiver, name: str
) -> None:
    answer = ANSWERS[name](world.canary.url)
    world.reset(lambda method, target: answer if "config" in target else FOUND)
    got = receiver(world.canary.url + "/plik/x")
    assert got.code == "URL_NOT_ALLOWED"
    world.check(got)
    assert len(world.files.requests) == 1


@pytest.mark.parametrize("path", ["", "/plik", "/plik/"])
@pytest.mark.parametrize("alias", [False, True])
def test_the_own_file_server_may_name_where_its_files_are(
    world: World, receiver: Receiver, path: str, alias: bool
) -> None:
    with Files() as elsewhere:
        domain = elsewhere.url + path
        config = {"downloadDomainAlias": [domain]} if alias else {"downloadDomain": domain}
        body = json.dumps(config).encode()
        world.reset(lambda method, target: (200, [], body) if "config" in target else FOUND)
        got = receiver(elsewhere.url + "/plik/x")
        assert got.code == ""
        assert [line[:2] for line in elsewhere.requests] == [("GET", "/plik/x")]
        assert [line[:2] for line in world.files.requests] == [("GET", "/plik/config")]
    assert world.canary.heard == []


def test_only_the_own_file_server_is_asked_what_is_allowed(
    world: World, receiver: Receiver
) -> None:
    """Nor does the one that a message names have a say, though it would allow itself."""
    with Files() as evil:
        body = named(evil.url)
        evil.rule = lambda method, target: (200, [], body)
        world.reset()
        got = receiver(evil.url + "/file/u/f/x")
        assert got.code == "URL_NOT_ALLOWED"
        assert evil.requests == []


# -- what was checked is what is connected to


def on_the_wire(world: World, receiver: Receiver, url: str) -> None:
    """Receive an allowed URL: it is asked for exactly as both sides' parsers have it, but for an
    empty query, which the desktop leaves out."""
    world.reset()
    got = receiver(url)
    assert got.code == "", got
    parsed = urls.parse_url(url)
    origin, path, host, port = parse(url)
    assert (parsed.origin, parsed.host, parsed.port) == (origin, host, port)
    assert parsed.path + (parsed.query or "?"[: path.endswith("?")]) == path
    [(_, target, name)] = world.files.requests
    assert target == path or target + "?" == path == parsed.path + "?"
    assert name == origin.removeprefix("http://")
    assert set(got.asked) == {(host, port)}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_url_is_asked_for_exactly_as_it_was_checked(
    world: World, receiver: Receiver, name: str
) -> None:
    on_the_wire(world, receiver, odd(world.files.port)[name])


#: Of which random URLs are made.
PIECES = (
    *("a", "Z", "9", "/", "//", ".", "..", "/../", "/./", "%2e", "%2E%2e", "%2f", "%5C", "%41"),
    *(
        "%25",
        "%252e",
        "%00",
        "%e4",
        "%",
        "?",
        "&",
        "=",
        "+",
        ":",
        ";",
        ",",
        "@",
        "!",
        "'",
        "(",
        "*",
    ),
    *(
        "$",
        "~",
        "-",
        "_",
        "[",
        "]",
        "#",
        "\\",
        "\t",
        " ",
        "{",
        "|",
        "^",
        '"',
        "ü",
        "文",
        "😀",
        "plik",
    ),
)


def test_two_parsers_agree_on_random_urls_and_the_wire_agrees_with_both(
    world: World, device: Receiver, desktop: Receiver, rng: random.Random, figures: Figures
) -> None:
    base = urls.parse_base(world.url, "x")
    wanted = runs(60, 2000)
    allowed = tried = 0
    while allowed < wanted:
        tried += 1
        start = world.url + "/" if rng.random() < 0.9 else world.files.url
        url = start + "".join(rng.choices(PIECES, k=rng.randrange(12)))
        verdicts = []
        for parser in (urls.parse_url, parse):
            try:
                parser(url)
                verdicts.append(True)
            except ValueError:
                verdicts.append(False)
        if verdicts != [True, True] or not urls.allows(base, urls.parse_url(url)):
            continue
        allowed += 1
        for receiver in (device, desktop):
            on_the_wire(world, receiver, url)
    assert tried > allowed
    figures.note(
        11,
        "wire",
        f"{allowed} random allowed URLs ({tried} tried): host, port and request on the wire as"
        " checked, both sides",
    )


@pytest.mark.parametrize("side", ["device", "desktop"])
def test_nobody_came_off_the_list(
    world: World, side: str, request: pytest.FixtureRequest, figures: Figures
) -> None:
    """All at once, in a row: as messages, and as redirects of every kind."""
    receiver: Receiver = request.getfixturevalue(side)
    found = hostile(world.files.port, world.canary.port)
    names = [name for name in found if runs(0, 1) or name.startswith("authority")]
    tried = came = 0
    for name in names:
        for status in (0, *REDIRECTS):
            if status:
                world.redirect(status, found[name])
            else:
                world.reset()
            asked = receiver(world.url + "/from" if status else found[name]).asked
            tried += 1
            came += len(world.canary.heard)
            came += sum(server != ("127.0.0.1", world.files.port) for server in asked)
    figures.note(
        11,
        side,
        f"{side}: {len(names)} hostile URLs, each as a link and in 5 redirects: {came} of {tried}"
        " led off the list",
        met=not came,
    )
    assert not came
