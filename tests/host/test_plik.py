"""plik and multipart: uploads, against the project's file server and against faults."""

import asyncio
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

import natsbridge
from conftest import ScriptedHttp
from natsbridge import http, multipart, plik
from natsbridge.errors import NATSBridgeError

pytestmark = pytest.mark.asyncio

CREATED = b'{"id":"U1","uploadToken":"T1","downloadDomain":""}'


def stored(data: bytes, **changes: Any) -> bytes:
    md5 = hashlib.md5(data).hexdigest()
    answer = {"id": "F1", "fileName": "a", "fileSize": len(data), "fileMd5": md5, **changes}
    return ScriptedHttp.answer(200, json.dumps(answer).encode())


async def get(url: str) -> tuple[int, bytes]:
    async with http.Session() as session, session.get(url) as answer:
        return answer.status, await answer.read()


async def upload_failure(*args: Any, **options: Any) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await natsbridge.plik_upload(*args, **options)
    return e.value


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plik, "BASE_DELAY", 5)


class TestRealServer:
    @pytest.mark.parametrize("data", [b"", b"abc", os.urandom(3 << 20)], ids=len)
    async def test_what_is_uploaded_can_be_fetched_again_and_again(
        self, file_url: str, data: bytes
    ) -> None:
        result = await natsbridge.plik_upload(file_url, "a b/ü.bin", data)
        assert list(result) == [
            "status",
            "uploadid",
            "fileid",
            "url",
            "size",
            "sha256",
            "uploadtoken",
        ]
        assert result["status"] == 200
        assert result["size"] == len(data)
        assert result["sha256"] == hashlib.sha256(data).hexdigest()
        assert result["url"] == (
            f"{file_url}/file/{result['uploadid']}/{result['fileid']}/a_b__.bin"
        )
        for _ in range(2):
            assert await get(result["url"]) == (200, data)
            assert await natsbridge.fetch_with_backoff(result["url"]) == data

    async def test_one_shot_is_gone_after_one_download(self, file_url: str) -> None:
        result = await natsbridge.plik_oneshot_upload(file_url, "a", b"abc")
        assert list(result) == ["status", "uploadid", "fileid", "url"]
        assert await natsbridge.fetch_with_backoff(result["url"]) == b"abc"
        with pytest.raises(NATSBridgeError) as e:
            await natsbridge.fetch_with_backoff(result["url"])
        assert e.value.code == "DOWNLOAD_FAILED"
        assert e.value.details["status"] == 404

    async def test_removable_and_token(self, file_url: str) -> None:
        removable = await natsbridge.plik_upload(file_url, "a", b"abc", removable=True)
        kept = await natsbridge.plik_upload(file_url, "a", b"abc")
        async with http.Session() as session:
            assert await plik.remove(session, removable["url"])
            assert not await plik.remove(session, kept["url"])
            assert (await get(kept["url"]))[0] == 200
            assert await plik.remove(session, kept["url"], kept["uploadtoken"])
        assert (await get(removable["url"]))[0] == 404
        assert (await get(kept["url"]))[0] == 404

    async def test_an_unseekable_stream_is_sent_in_chunks(self, file_url: str) -> None:
        read, write = os.pipe()
        os.write(write, b"x" * 5000)
        os.close(write)
        with open(read, "rb", buffering=0) as stream:  # noqa: PTH123, ASYNC230 a descriptor
            result = await natsbridge.plik_upload(file_url, "a", stream)
        assert result["size"] == 5000
        assert (await get(result["url"]))[1] == b"x" * 5000

    async def test_a_ttl_over_the_maximum_becomes_the_maximum(self, file_url: str) -> None:
        result = await natsbridge.plik_upload(file_url, "a", b"abc", ttl=10**9)
        assert (await get(result["url"]))[0] == 200

    async def test_progress_counts_bytes(self, file_url: str) -> None:
        seen: list[tuple[str, int, int | None]] = []
        await natsbridge.plik_upload(
            file_url, "a", io.BytesIO(b"x" * 200_000), on_progress=lambda *p: seen.append(p)
        )
        assert seen[-1] == ("a", 200_000, 200_000)
        assert [p[1] for p in seen] == sorted({p[1] for p in seen})

    async def test_progress_can_stop_an_upload(self, file_url: str) -> None:
        def stop(*progress: Any) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            await natsbridge.plik_upload(file_url, "a", b"x" * 200_000, on_progress=stop)

    async def test_a_source_that_is_cut_is_the_callers_fault(self, file_url: str) -> None:
        class Cut(io.BytesIO):
            def readinto(self, buffer: Any) -> int:
                return 0

        e = await upload_failure(file_url, "a", Cut(b"abc"))
        assert e.code == "INVALID_ARGUMENT"
        assert "ended after 0 of 3" in e.message

    async def test_nothing_stays_open(self, file_url: str, things: Callable[[], Any]) -> None:
        await natsbridge.plik_upload(file_url, "a", b"abc")
        before, tasks = things(), len(asyncio.all_tasks())
        for _ in range(3):
            await natsbridge.plik_upload(file_url, "a", b"abc")
            await upload_failure("http://127.0.0.1:9", "a", b"abc")
        await asyncio.sleep(0.05)
        assert things() == before
        assert len(asyncio.all_tasks()) == tasks


class TestFaults:
    async def test_no_server(self) -> None:
        e = await upload_failure("http://127.0.0.1:9", "a", b"abc")
        assert e.code == "UPLOAD_FAILED"
        assert e.details == {"url": "http://127.0.0.1:9", "status": 0, "attempts": 5}
        assert "file server's URL" in e.message

    async def test_each_attempt_is_a_new_file_and_failed_ones_are_removed(
        self, scripted: ScriptedHttp
    ) -> None:
        listing = b'{"files":[{"id":"F0","fileName":"a","status":"missing"},{"id":"F1"}]}'
        scripted.answers = [
            scripted.answer(503),
            scripted.answer(200, CREATED),
            scripted.answer(500),
            b"",  # closed without an answer
            stored(b"ab"),  # short
            stored(b"abc", fileMd5="0" * 32),
            stored(b"abc"),
            scripted.answer(200, listing),
            scripted.answer(200),
        ]
        result = await natsbridge.plik_upload(scripted.url, "a", io.BytesIO(b"abc"))
        assert result["url"] == f"{scripted.url}/file/U1/F1/a"
        lines = [r[0].rpartition(" ")[0] for r in scripted.requests]
        assert lines == [
            *["POST /upload"] * 2,
            *["POST /file/U1"] * 5,
            "GET /upload/U1",
            "DELETE /file/U1/F0/a",
        ]
        assert scripted.requests[-1][1]["x-uploadtoken"] == "T1"
        assert scripted.requests[0][1]["user-agent"].startswith("plik_client")
        assert json.loads(scripted.requests[0][2]) == {
            "ttl": 86400,
            "removable": False,
            "oneShot": False,
        }

    async def test_a_refusal_is_final_and_quotes_the_server(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [
            scripted.answer(200, CREATED),
            scripted.answer(400, b"file is too big, 10 bytes at most\r\n"),
            scripted.answer(200),
        ]
        e = await upload_failure(scripted.url, "a", b"abc")
        assert e.code == "UPLOAD_FAILED"
        assert "file is too big, 10 bytes at most" in e.message
        assert e.details["status"] == 400
        assert scripted.requests[-1][0] == "DELETE /upload/U1 HTTP/1.1"

    @pytest.mark.parametrize(
        ("status", "body", "said", "advised"),
        [
            (500, b"unable to save file : no space left\n", "500 unable to save file", False),
            (500, b"internal server error\n", "error: its log says why; is its disk full?", False),
            (500, b"", "answered 500: its log says why", False),
            (413, b"too large", "answered 413 too large", False),
            (404, b"404: Not Found", "answered 404 Not Found", True),
            (404, b"404 page not found\n", "answered 404 page not found", True),
            (503, b"", "answered 503", True),
        ],
    )
    async def test_what_the_server_says_is_quoted_and_its_url_doubted_only_where_that_helps(
        self, scripted: ScriptedHttp, status: int, body: bytes, said: str, advised: bool
    ) -> None:
        scripted.answers = [scripted.answer(status, body)]
        e = await upload_failure(scripted.url, "a", b"abc")
        assert said in e.message
        assert ("Check that" in e.message) is advised
        with pytest.raises(NATSBridgeError) as download:
            await natsbridge.fetch_with_backoff(scripted.url + "/file/a/b/c", 1, 1, 1)
        assert said in download.value.message

    async def test_what_is_no_http_server_is_not_quoted(
        self, fake_nats: Callable[[Any], Any]
    ) -> None:
        async def info(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"server_id":"' + b"x" * 500 + b'"}\r\n')
            await reader.read()

        url = (await fake_nats(info)).replace("nats", "http")
        e = await upload_failure(url, "a", b"abc")
        assert "what answers there does not speak HTTP. Check that" in e.message
        assert "INFO" not in e.message

    async def test_a_refusal_before_the_body_was_read_is_heard(
        self, scripted: ScriptedHttp
    ) -> None:
        scripted.read_body = False
        scripted.answers = [
            scripted.answer(200, CREATED),
            scripted.answer(400, b"too big"),
            scripted.answer(200),
        ]
        e = await upload_failure(scripted.url, "a", b"x" * (8 << 20))
        assert "too big" in e.message
        assert e.details["attempts"] == 1

    @pytest.mark.parametrize(
        "answer",
        [b"not json", b"[]", b"{}", b'{"id":5}', b'{"id":"../x"}', b"[" * 100_000, b'{"id":""}'],
    )
    async def test_what_is_no_plik_server(self, scripted: ScriptedHttp, answer: bytes) -> None:
        scripted.answers = [scripted.answer(200, answer)]
        e = await upload_failure(scripted.url, "a", b"abc")
        assert e.code == "UPLOAD_FAILED"
        assert "Plik" in e.message

    async def test_redirects_are_not_followed(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [scripted.answer(301, b"", "Location: http://elsewhere/upload")]
        e = await upload_failure(scripted.url, "a", b"abc")
        assert "http://elsewhere/upload" in e.message
        assert len(scripted.requests) == 1

    async def test_the_download_domain_is_the_urls_host(self, scripted: ScriptedHttp) -> None:
        created = CREATED.replace(b'""', b'"https://dl.example.com/"')
        scripted.answers = [scripted.answer(200, created), stored(b"abc")]
        result = await natsbridge.plik_upload(scripted.url + "/plik/", "a", b"abc")
        assert result["url"] == "https://dl.example.com/file/U1/F1/a"
        assert scripted.requests[0][0].startswith("POST /plik/upload ")

    async def test_an_unseekable_stream_gets_one_attempt(self, scripted: ScriptedHttp) -> None:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

            def seek(self, *where: Any) -> int:
                raise OSError("no")

        scripted.answers = [scripted.answer(200, CREATED), scripted.answer(503)]
        e = await upload_failure(scripted.url, "a", Pipe(b"abc"))
        assert e.details["attempts"] == 1
        sent = next(r for r in scripted.requests if r[0].startswith("POST /file"))
        assert sent[1]["transfer-encoding"] == "chunked"

    async def test_a_server_that_stalls(
        self, scripted: ScriptedHttp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "STALL_S", 0.2)
        monkeypatch.setattr(plik, "ATTEMPTS", 1)

        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(3)
            writer.close()

        server = await asyncio.start_server(stall, "127.0.0.1", 0)
        start = time.monotonic()
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        e = await upload_failure(url, "a", b"abc")
        assert "no byte moved" in e.message
        assert time.monotonic() - start < 2
        server.close()

    async def test_a_body_that_nobody_reads(
        self, scripted: ScriptedHttp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "STALL_S", 0.3)
        monkeypatch.setattr(plik, "ATTEMPTS", 1)

        async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST /upload"):
                writer.write(scripted.answer(200, CREATED))
                head = await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(3)
            writer.close()

        server = await asyncio.start_server(stuck, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        start = time.monotonic()
        e = await upload_failure(url, "a", b"x" * (32 << 20))
        assert e.code == "UPLOAD_FAILED"
        assert time.monotonic() - start < 3
        server.close()

    async def test_timeout_bounds_the_whole(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [scripted.answer(503, b"", "Retry-After: 20")]
        start = time.monotonic()
        e = await upload_failure(scripted.url, "a", b"abc", timeout=0.2)
        assert e.code == "UPLOAD_FAILED"
        assert "timeout=0.2" in e.message
        assert time.monotonic() - start < 1.5

    @pytest.mark.parametrize(
        ("arguments", "options", "code"),
        [
            (("ftp://x", "a", b""), {}, "INVALID_ARGUMENT"),
            ((None, "a", b""), {}, "INVALID_ARGUMENT"),
            (("http://x", 5, b""), {}, "INVALID_ARGUMENT"),
            (("http://x", "a", b""), {"ttl": -1}, "INVALID_ARGUMENT"),
            (("http://x", "a", b""), {"removable": 1}, "INVALID_ARGUMENT"),
            (("http://x", "a", b""), {"timeout": "x"}, "INVALID_ARGUMENT"),
            (("http://x", "a", "text"), {}, "INVALID_PAYLOAD_TYPE"),
        ],
    )
    async def test_bad_arguments(self, arguments: Any, options: dict[str, Any], code: str) -> None:
        assert (await upload_failure(*arguments, **options)).code == code


@pytest.mark.parametrize(
    ("dataname", "expected"),
    [
        ("photo.jpg", "photo.jpg"),
        ("", "payload"),
        ("..", "__"),
        (".x", "_x"),
        ('a"b\r\nc', "a_b__c"),
        ("größe", "gr__e"),
        ("x" * 100, "x" * 64),
    ],
)
async def test_file_names_are_safe_in_headers_and_urls(dataname: str, expected: str) -> None:
    assert multipart.file_name(dataname) == expected


async def test_remove_never_raises() -> None:
    async with aiohttp.ClientSession() as session:
        assert not await plik.remove(session, "http://127.0.0.1:9/file/a/b/c")
