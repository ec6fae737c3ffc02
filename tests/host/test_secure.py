"""The file server behind https, a login and tokens, as the desktop sees it."""

from __future__ import annotations

import base64
import logging
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import natsbridge
from certificates import Certificates
from conftest import NatsServer, ScriptedHttp
from natsbridge import http, plik
from natsbridge.errors import NATSBridgeError
from natsbridge.urls import parse_server
from proxy import TlsProxy
from test_plik import CREATED, stored

pytestmark = pytest.mark.asyncio

LOGINS = [
    ("user:pass", "user:pass"),
    ("user", "user:"),
    ("a%40b:p%3Aw%2Fx%25", "a@b:p:w/x%"),
    ("größe:%C3%BC", "größe:ü"),
    ("u:p@q", "u:p@q"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plik, "BASE_DELAY", 5)


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


async def failure(*args: Any, **options: Any) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await natsbridge.plik_upload(*args, **options)
    return e.value


async def test_an_upload_through_https(
    certificates: Certificates, secure_files: TlsProxy, file_url: str
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    for tls in ({"ca": certificates.ca}, {"ca": str(certificates.ca)}, context, {"verify": False}):
        result = await natsbridge.plik_upload(secure_files.url, "x", b"y" * 300_000, tls=tls)
        assert result["url"].startswith(secure_files.url)
        url = file_url + urlsplit(result["url"]).path
        assert await natsbridge.fetch_with_backoff(url) == b"y" * 300_000
    url = secure_files.url.replace("localhost", "127.0.0.1")
    await natsbridge.plik_upload(
        url, "x", b"y", tls={"ca": certificates.ca, "hostname": "localhost"}
    )


async def test_a_certificate_that_cannot_be_verified_is_refused_at_once(
    certificates: Certificates, secure_files: TlsProxy
) -> None:
    for tls in (None, True, {"ca": certificates.other}):
        e = await failure(secure_files.url, "x", b"y", tls=tls)
        assert (e.code, e.details["attempts"]) == ("UPLOAD_FAILED", 1)
        assert "certificate verify failed" in e.message
    e = await failure(
        secure_files.url, "x", b"y", tls={"ca": certificates.ca, "hostname": "other.example"}
    )
    assert "other.example" in e.message
    e = await failure(secure_files.url, "x", b"y", tls="yes")
    assert e.code == "INVALID_ARGUMENT"
    with pytest.raises(NATSBridgeError) as raised:
        await natsbridge.fetch_with_backoff(secure_files.url + "/x")
    assert raised.value.code == "DOWNLOAD_FAILED"
    assert raised.value.details["attempts"] == 1


async def test_links_through_https_go_by_the_tls_of_the_connection(
    certificates: Certificates, secure_files: TlsProxy, tmp_path: Path
) -> None:
    conf = tmp_path / "tls.conf"
    conf.write_text(certificates.nats("timeout: 5"))
    with NatsServer(tmp_path, "-c", str(conf)) as server:
        tls = {"ca": str(certificates.ca), "hostname": "localhost"}
        async with await natsbridge.connect(server.url, tls=tls, name="me") as nc:
            sub = await nc.subscribe("a")
            for name in ("", "me"):
                await natsbridge.smartsend(
                    "a",
                    [("x", b"y" * 3000, "binary")],
                    nats_connection=nc,
                    fileserver_url=secure_files.url,
                    size_threshold=1000,
                    receiver_name=name,
                )
                msg = await sub.next(5)
                env = await natsbridge.smartreceive(msg, fileserver_url=secure_files.url)
                assert env["payloads"][0][1] == b"y" * 3000


@pytest.mark.parametrize(("login", "pair"), LOGINS)
async def test_a_login_goes_with_every_request_and_into_no_url(
    scripted: ScriptedHttp, caplog: pytest.LogCaptureFixture, login: str, pair: str
) -> None:
    scripted.answers = [
        ScriptedHttp.answer(200, CREATED),
        ScriptedHttp.answer(503),
        stored(b"abc"),
        ScriptedHttp.answer(200, b"{}"),
    ]
    url = scripted.url.replace("://", f"://{login}@")
    with caplog.at_level(logging.DEBUG):
        result = await natsbridge.plik_upload(url, "x", b"abc")
    assert [r[1].get("authorization") for r in scripted.requests] == [basic(pair)] * 4
    assert result["url"].startswith(scripted.url)
    assert login not in caplog.text


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_login_is_final_and_not_repeated_in_the_error(
    scripted: ScriptedHttp, status: int
) -> None:
    scripted.answers = [ScriptedHttp.answer(status, b"who are you?")]
    e = await failure(scripted.url.replace("://", "://user:secret@"), "x", b"abc")
    assert (e.code, e.details["status"], len(scripted.requests)) == ("UPLOAD_FAILED", status, 1)
    assert f"{status} who are you?: " in e.message
    assert "secret" not in str(e) + str(e.details)


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret%zz@h",
        "http://u:secret@h/%00",
        "ftp://u:secret@h",
        "http://secret@",
        "http://:@h",
        "http://u:sec\nret@h",
    ],
)
async def test_an_odd_login_is_an_argument_error_that_does_not_repeat_it(url: str) -> None:
    e = await failure(url, "x", b"")
    assert e.code == "INVALID_ARGUMENT"
    assert "secret" not in str(e) + str(e.details)


async def test_a_login_and_headers_go_to_the_origin_of_the_file_server_alone(
    scripted: ScriptedHttp,
) -> None:
    scripted.answers = [ScriptedHttp.answer(200)]
    server = parse_server(scripted.url.replace("://", "://u:p@") + "/plik/", "x")
    assert (str(server.base), server.full) == (
        scripted.url + "/plik",
        scripted.url.replace("://", "://u:p@") + "/plik",
    )
    other = scripted.url.replace("127.0.0.1", "localhost")
    async with http.Session(server, {"X": "y"}) as session:
        for url in (scripted.url + "/a", other + "/a"):
            async with session.get(url) as answer:
                await answer.read()
    told = [(r[1].get("authorization"), r[1].get("x")) for r in scripted.requests]
    assert told == [(basic("u:p"), "y"), (None, None)]


async def test_a_download_has_the_login_and_a_redirect_elsewhere_has_not(
    scripted: ScriptedHttp, nats_url: str
) -> None:
    other = scripted.url.replace("127.0.0.1", "localhost")
    scripted.answers = [
        ScriptedHttp.answer(200, CREATED),
        stored(b"y" * 3000),
        ScriptedHttp.answer(302, b"", f"Location: {other}/moved"),
        ScriptedHttp.answer(200, b"y" * 3000),
        ScriptedHttp.answer(200),
    ]
    files = scripted.url.replace("://", "://u:p@")
    async with await natsbridge.connect(nats_url, name="me") as nc:
        sub = await nc.subscribe("secure")
        env, text = await natsbridge.smartsend(
            "secure",
            [("x", b"y" * 3000, "binary")],
            nats_connection=nc,
            fileserver_url=files,
            size_threshold=1000,
            receiver_name="me",
        )
        assert "u:p@" not in text + str(env)
        msg = await sub.next(5)
        got = await natsbridge.smartreceive(msg, fileserver_url=files, allowed_urls=[other])
    assert got["payloads"][0][1] == b"y" * 3000
    own = basic("u:p")
    assert [r[1].get("authorization") for r in scripted.requests] == [own, own, own, None, own]
    assert scripted.requests[4][0].startswith("DELETE /file/")


async def test_an_upload_handler_gets_the_url_with_its_login(nats_url: str) -> None:
    seen = []

    def handler(url: str, name: str, data: bytes) -> dict[str, Any]:
        seen.append(url)
        return {"status": 200, "uploadid": "u", "fileid": "f", "url": "http://h/f"}

    async with await natsbridge.connect(nats_url) as nc:
        await natsbridge.smartsend(
            "secure",
            [("x", b"y", "binary")],
            nats_connection=nc,
            fileserver_url="http://u:p@h/",
            fileserver_upload_handler=handler,
            size_threshold=0,
        )
    assert seen == ["http://u:p@h"]


async def test_headers_go_with_both_requests(scripted: ScriptedHttp) -> None:
    scripted.answers = [ScriptedHttp.answer(200, CREATED), stored(b"abc")]
    await natsbridge.plik_upload(scripted.url, "x", b"abc", headers={"X-PlikToken": "t"})
    assert [r[1]["x-pliktoken"] for r in scripted.requests] == ["t", "t"]


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nY: z"}, {"X": 5}, {"X\n": "a"}, {"X:": "a"}, {"": "a"}, ["X"]]
)
async def test_a_header_cannot_smuggle_in_another(headers: Any) -> None:
    e = await failure("http://127.0.0.1:1", "x", b"abc", headers=headers)
    assert e.code == "INVALID_ARGUMENT"
