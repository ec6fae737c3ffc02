"""The file server behind https, a login and tokens: who is told what, and what is never said."""

from __future__ import annotations

import base64
import hashlib
import json
import types
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from board import run as run_board
from board import write
from certificates import Certificates
from conftest import NatsServer
from harness import load_firmware, run_micropython
from proxy import TlsProxy
from scripted import ScriptedServer, answer
from test_device_plik import CREATED, PRELUDE, get, run, stored

Connection = load_firmware("http").Connection
home = load_firmware("urls").home


def plain(url: str, file_url: str) -> str:
    """Return where a file that was uploaded through the proxy is without it."""
    return file_url + urlsplit(url).path


@pytest.mark.parametrize("data", ["b'x' * 10000", "Endless(5000)", "b''"])
def test_an_upload_through_https(
    certificates: Certificates, secure_files: TlsProxy, file_url: str, data: str
) -> None:
    tls = {"ca": str(certificates.ca)}
    script = f"report(lambda: natsbridge.plik_upload(url, 'x', {data}, tls={tls}))"
    [result] = run(secure_files.url, script, heap="96K")
    assert result["url"].startswith(secure_files.url)
    status, content = get(plain(result["url"], file_url))
    assert (status, len(content)) == (200, result["size"])
    assert hashlib.sha256(content).hexdigest() == result["sha256"]


def test_a_certificate_that_can_not_be_verified_is_refused_and_nothing_uploaded(
    certificates: Certificates, secure_files: TlsProxy
) -> None:
    script = f"""
for tls in (None, True, {{}}, {{"ca": {str(certificates.other)!r}}},
            {{"ca": {str(certificates.ca)!r}, "hostname": "example.com"}}, {{"cafile": "x"}}):
    report(lambda: natsbridge.plik_upload(url, 'x', b'abc', tls=tls))
report(lambda: natsbridge.plik_oneshot_upload(url, 'x', b'abc'))
report(lambda: natsbridge.fetch_with_backoff(url))
"""
    rows = run(secure_files.url, script, heap="96K", timeout=60)
    codes = [row[0] for row in rows]
    assert codes[:3] + codes[5:] == ["INVALID_ARGUMENT"] * 6
    assert codes[3:5] == ["UPLOAD_FAILED"] * 2
    for i in (0, 2, 6, 7):
        assert "pass tls to plik_upload, or to connect() for smartsend" in rows[i][1]
    assert "not correctly signed by the trusted CA" in rows[3][1]
    assert "does not match" in rows[4][1]


def test_without_verification_only_if_told_so(secure_files: TlsProxy) -> None:
    script = "report(lambda: natsbridge.plik_upload(url, 'x', b'abc', tls={'verify': False}))"
    [result] = run(secure_files.url, script, heap="96K")
    assert result["size"] == 3


def test_links_through_https_go_by_the_tls_of_the_connection(
    certificates: Certificates, secure_files: TlsProxy, tmp_path: Path
) -> None:
    conf = write(tmp_path, "tls.conf", certificates.nats("timeout: 5"))
    script = """
url, files, ca = sys.argv[1:]
nc = natsbridge.connect(url, tls={"ca": ca}, name="me")
sub = nc.subscribe("a")
for name in ("", "me"):
    natsbridge.smartsend("a", [("x", b"y" * 3000, "binary")], nats_connection=nc,
                         fileserver_url=files, size_threshold=1000, receiver_name=name)
    env = natsbridge.smartreceive(sub.next(5), fileserver_url=files)
    print(len(env["payloads"][0][1]))
"""
    with NatsServer(tmp_path, "-c", conf) as server:
        assert run_board(script, server.url, secure_files.url, str(certificates.ca)) == [
            "3000",
            "3000",
        ]


def test_the_host_name_that_a_connection_expects_of_its_broker_is_not_the_file_servers() -> None:
    nc = types.SimpleNamespace(serve=None, tls={"ca": "x", "hostname": "broker"})
    assert Connection(home("https://files"), nc, None).tls == {"ca": "x", "hostname": None}
    assert nc.tls["hostname"] == "broker"
    nc.tls = True
    assert Connection(home("https://files"), nc, None).tls is None


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ("login", "pair"),
    [
        ("user:pass", "user:pass"),
        ("user", "user:"),
        ("a%40b:p%3Aw%2Fx%25", "a@b:p:w/x%"),
        ("größe:%C3%BC", "größe:ü"),
        ("u:p@q", "u:p@q"),
    ],
)
def test_a_login_goes_with_every_request_and_into_no_url(login: str, pair: str) -> None:
    busy = answer(b"busy", 503)
    with ScriptedServer([CREATED, busy], [stored(3)], [answer(b"{}")]) as server:
        url = server.url.replace("://", f"://{login}@")
        script = """
natsbridge.log.enabled = True
report(lambda: natsbridge.plik_upload(sys.argv[2], 'x', b'abc'))
"""
        out = run_micropython(PRELUDE + script, server.url, url)
        assert {r.headers.get("authorization") for r in server.requests} == {basic(pair)}
        assert len(server.requests) == 4
    result = json.loads(out.splitlines()[-1])
    assert result["url"] == f"{server.url}/file/up/f1/x"
    assert login not in out


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_final_and_not_repeated_in_the_error(status: int) -> None:
    refused = answer(b"who are you?", status, 'WWW-Authenticate: Basic realm="x"')
    with ScriptedServer([refused], [answer(b"")]) as server:
        url = server.url.replace("://", "://user:secret@")
        [[code, message, details]] = run(
            url, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))"
        )
        assert server.connections == 1
    assert (code, details["status"]) == ("UPLOAD_FAILED", status)
    assert f"{status} who are you?" in message
    assert "write http://user:password@host" in message
    assert "secret" not in message + str(details)


@pytest.mark.parametrize(
    "url", ["http://u:secret%zz@h", "http://u:secret@h/%00", "ftp://u:secret@h", "http://secret@"]
)
def test_an_odd_login_is_an_argument_error_that_does_not_repeat_it(url: str) -> None:
    [[code, message, details]] = run(url, "report(lambda: natsbridge.plik_upload(url, 'x', b''))")
    assert code == "INVALID_ARGUMENT"
    assert "is refused" in message
    assert "secret" not in message + str(details)


RECEIVE = """
from natsbridge.download import Claims
from natsbridge.sink import Sink
from natsbridge.urls import links
def fetch(base, path, *allowed):
    item = {"dataname": "x", "data": path, "payload_type": "binary", "size": 3, "metadata": {}}
    home, prefixes = links([item], base, allowed)
    sink = Sink(None, None, None)
    claims = Claims(None, {"correlation_id": ""}, sink, home, prefixes, None)
    claims.check(item["where"], path)
    claims.fetch(item, None, (2, 1, 1), None, bytearray(1024))
    return str(item["target"].data, "utf-8")
"""


def test_a_download_has_the_login_at_the_file_server_and_nowhere_else() -> None:
    with ScriptedServer([answer(b"abc")]) as other:
        moved = answer(b"", 302, f"Location: {other.url}/y")
        with ScriptedServer([answer(b"def")], [moved]) as server:
            script = f"""
url = url.replace("://", "://user:pass@")
report(lambda: fetch(url, "{server.url}/x"))
report(lambda: fetch(url, "{server.url}/x", "{other.url}"))
"""
            assert run(server, RECEIVE + script) == ["def", "abc"]
            assert [r.headers.get("authorization") for r in server.requests] == [
                basic("user:pass")
            ] * 2
        assert "authorization" not in other.requests[0].headers


def test_the_login_of_a_messages_url_is_refused() -> None:
    script = """
report(lambda: fetch(url, url.replace("://", "://user:secret@") + "/x"))
report(lambda: natsbridge.fetch_with_backoff(url.replace("://", "://user:secret@") + "/x"))
"""
    with ScriptedServer([answer(b"abc")]) as server:
        rows = run(server, RECEIVE + script)
        assert set(server.lines) <= {"GET /config HTTP/1.1"}
    assert [row[0] for row in rows] == ["URL_NOT_ALLOWED", "INVALID_ARGUMENT"]
    assert "secret" not in str(rows)


def test_headers_go_with_both_requests() -> None:
    with ScriptedServer([CREATED, stored(3)]) as server:
        script = """
headers = {"X-PlikToken": "t", "X-Site": "a: b"}
report(lambda: natsbridge.plik_upload(url, 'x', b'abc', headers=headers))
"""
        run(server, script)
        assert [(r.headers["x-pliktoken"], r.headers["x-site"]) for r in server.requests] == [
            ("t", "a: b")
        ] * 2


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "secret\r\nY: z"},
        {"X": "secret\n"},
        {"X": "secret\0"},
        {"X": "sécret"},
        {"X\r\nY": "secret"},
        {"X:": "secret"},
        {" X": "secret"},
        {"": "secret"},
        {5: "secret"},
    ],
)
def test_a_header_cannot_smuggle_in_another(headers: dict) -> None:
    script = f"report(lambda: natsbridge.plik_upload(url, 'x', b'abc', headers={headers!r}))"
    with ScriptedServer([CREATED]) as server:
        [[code, message, _]] = run(server, script)
        assert server.connections == 0
    assert code == "INVALID_ARGUMENT"
    assert "header" in message
    assert "secret" not in message
