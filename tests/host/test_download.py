"""download: retries, verification, redirects."""

import asyncio
import hashlib
import io
import time
from collections.abc import Callable
from typing import Any

import pytest

import natsbridge
from conftest import ScriptedHttp
from natsbridge import download as download_module
from natsbridge import http
from natsbridge.allowed import Allowed
from natsbridge.download import Download
from natsbridge.errors import NATSBridgeError
from natsbridge.sink import MemoryTarget, Target, WritableTarget
from natsbridge.urls import parse_base, parse_url

pytestmark = pytest.mark.asyncio

DATA = bytes(range(256)) * 10
DIGEST = hashlib.sha256(DATA).hexdigest()


async def fetch(script: ScriptedHttp, target: Target | None = None, **options: Any) -> Any:
    target = target or MemoryTarget()
    base = parse_base(script.url, "x")
    options = {"max_retries": 3, "base_delay": 1, "max_delay": 2, **options}
    job = Download("d", parse_url(script.url + "/f"), Allowed([base]), **options)
    async with http.Session() as session:
        await job.run(session, target)
    return target.commit()


async def failure(script: ScriptedHttp, target: Target | None = None, **o: Any) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await fetch(script, target, **o)
    return e.value


def ok(data: bytes = DATA, *headers: str) -> bytes:
    return ScriptedHttp.answer(200, data, *headers)


def cut(at: int) -> bytes:
    return ok()[: at - len(DATA)]


class Out:
    """A writable that cannot seek."""

    def __init__(self) -> None:
        self.got = bytearray()

    def write(self, data: Any) -> None:
        self.got += data


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(scripted: ScriptedHttp, status: int) -> None:
    scripted.answers = [scripted.answer(status), ok()]
    assert await fetch(scripted, size=len(DATA), sha256=DIGEST.upper()) == DATA
    assert len(scripted.requests) == 2
    assert scripted.requests[0][1]["accept-encoding"] == "identity"
    assert scripted.requests[0][1]["user-agent"].startswith("plik_client")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 501])
async def test_what_is_final_is_not(scripted: ScriptedHttp, status: int) -> None:
    scripted.answers = [scripted.answer(status, b"" if status == 204 else b"no such file")]
    e = await failure(scripted)
    assert e.code == "DOWNLOAD_FAILED"
    assert e.details["status"] == status
    assert e.details["attempts"] == len(scripted.requests) == 1
    assert status == 204 or "no such file" in e.message


async def test_attempts_end(scripted: ScriptedHttp) -> None:
    scripted.answers = [scripted.answer(503)]
    e = await failure(scripted)
    assert e.details == {
        "dataname": "d",
        "url": scripted.url + "/f",
        "status": 503,
        "attempts": 3,
    }
    assert len(scripted.requests) == 3


async def test_attempts_that_break_off_are_counted_too(scripted: ScriptedHttp) -> None:
    scripted.answers = [b""]
    assert (await failure(scripted)).details["attempts"] == 3
    assert len(scripted.requests) == 3


async def test_a_part_that_was_not_asked_for_is_not_the_file(scripted: ScriptedHttp) -> None:
    part = scripted.answer(206, DATA[:100], f"Content-Range: bytes 0-99/{len(DATA)}")
    scripted.answers = [part]
    assert (await failure(scripted)).details["status"] == 206


@pytest.mark.parametrize("says", ["bytes 99-2558/2560", "bytes 100-2558/2559", "bytes */2560", ""])
async def test_after_another_range_than_asked_for_the_file_is_fetched_whole(
    scripted: ScriptedHttp, says: str
) -> None:
    wrong = scripted.answer(206, b"x", f"Content-Range: {says}")
    scripted.answers = [cut(100), wrong, ok()]
    assert await fetch(scripted, size=len(DATA), sha256=DIGEST) == DATA
    assert "range" not in scripted.requests[2][1]


@pytest.mark.parametrize("make", [MemoryTarget, lambda: WritableTarget("d", io.BytesIO())])
async def test_a_cut_body_is_fetched_again(
    scripted: ScriptedHttp, make: Callable[[], Target]
) -> None:
    scripted.answers = [cut(100), cut(2000), ok()]
    result = await fetch(scripted, make(), size=len(DATA), sha256=DIGEST)
    assert (result if isinstance(result, bytes) else result.getvalue()) == DATA
    assert "range" not in scripted.requests[0][1]
    assert scripted.requests[1][1]["range"] == "bytes=100-"


async def test_a_writable_that_cannot_seek_gets_each_byte_once(scripted: ScriptedHttp) -> None:
    scripted.answers = [cut(100), cut(50), ok()]
    out = Out()
    await fetch(scripted, WritableTarget("d", out), size=len(DATA), sha256=DIGEST)
    assert out.got == DATA


async def test_a_file_that_changes_between_attempts_is_never_mixed(
    scripted: ScriptedHttp,
) -> None:
    other = b"X" + DATA[1:]
    scripted.answers = [ok(other)[: 100 - len(DATA)], ok()]
    e = await failure(scripted, WritableTarget("d", Out()), size=len(DATA), sha256=DIGEST)
    assert e.code == "INTEGRITY_ERROR"
    scripted.answers = [ok(other)[: 100 - len(DATA)], ok()]
    assert await fetch(scripted, size=len(DATA), sha256=DIGEST) == DATA


async def test_a_server_that_resumes_is_let(scripted: ScriptedHttp) -> None:
    rest = scripted.answer(206, DATA[100:], f"Content-Range: bytes 100-2559/{len(DATA)}")
    scripted.answers = [cut(100), rest]
    assert await fetch(scripted, size=len(DATA), sha256=DIGEST) == DATA
    wrong = scripted.answer(206, DATA[99:], f"Content-Range: bytes 99-2559/{len(DATA)}")
    scripted.answers = [cut(100), wrong]
    assert (await failure(scripted, size=len(DATA), sha256=DIGEST)).code == "DOWNLOAD_FAILED"


async def test_without_a_digest_nothing_is_resumed(scripted: ScriptedHttp) -> None:
    scripted.answers = [cut(100), ok()]
    assert await fetch(scripted, size=len(DATA)) == DATA
    assert "range" not in scripted.requests[1][1]


async def test_a_body_that_is_always_cut(scripted: ScriptedHttp) -> None:
    scripted.answers = [cut(100)]
    e = await failure(scripted, size=len(DATA), sha256=DIGEST)
    assert e.code == "DOWNLOAD_FAILED"
    assert e.details["attempts"] == 3


async def test_chunked_bodies_prove_nothing_by_their_end(scripted: ScriptedHttp) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n"
    scripted.answers = [head + body % (len(DATA), DATA)]
    assert await fetch(scripted, size=len(DATA), sha256=DIGEST) == DATA
    scripted.answers = [head + body % (100, DATA[:100])]
    e = await failure(scripted, size=len(DATA), sha256=DIGEST)
    assert e.code == "INTEGRITY_ERROR"
    scripted.answers = [head + body % (len(DATA), DATA), head + body % (100, DATA[:100])]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"size": len(DATA) - 1}, "INTEGRITY_ERROR"),
        ({"size": len(DATA) + 1}, "INTEGRITY_ERROR"),
        ({"size": len(DATA), "sha256": "0" * 64}, "INTEGRITY_ERROR"),
        ({"sha256": "0" * 64}, "INTEGRITY_ERROR"),
        ({"limit": len(DATA) - 1}, "PAYLOAD_TOO_LARGE"),
    ],
)
@pytest.mark.parametrize("length", [True, False])
async def test_size_digest_and_limit_are_checked(
    scripted: ScriptedHttp, options: dict[str, Any], code: str, length: bool
) -> None:
    scripted.answers = [ok() if length else b"HTTP/1.1 200 OK\r\n\r\n" + DATA]
    e = await failure(scripted, **options)
    assert e.code == code
    assert scripted.url in e.message


async def test_an_endless_body_is_left_at_the_limit(scripted: ScriptedHttp) -> None:
    scripted.answers = [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000_000]
    assert (await failure(scripted, limit=1_000_000)).code == "PAYLOAD_TOO_LARGE"


async def test_a_compressed_body_is_refused(scripted: ScriptedHttp) -> None:
    scripted.answers = [ok(DATA, "Content-Encoding: gzip")]
    assert (await failure(scripted)).code == "DOWNLOAD_FAILED"


class TestRedirects:
    async def test_inside_the_allowed(self, scripted: ScriptedHttp) -> None:
        hops = [scripted.answer(302, b"", f"Location: {where}") for where in ("/a", "b", "./c")]
        scripted.answers = [*hops, ok()]
        assert await fetch(scripted) == DATA
        assert [r[0].split()[1] for r in scripted.requests] == ["/f", "/a", "/b", "/c"]

    async def test_not_more_than_three(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [scripted.answer(302, b"", "Location: /a")]
        e = await failure(scripted)
        assert e.code == "DOWNLOAD_FAILED"
        assert len(scripted.requests) == 4

    @pytest.mark.parametrize(
        "location", ["http://127.0.0.1:9/x", "//other/x", "file:///x", "https://u:p@h/"]
    )
    async def test_not_elsewhere(self, scripted: ScriptedHttp, location: str) -> None:
        scripted.answers = [scripted.answer(302, b"", f"Location: {location}")]
        assert (await failure(scripted)).code == "URL_NOT_ALLOWED"

    async def test_not_to_nowhere(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [scripted.answer(302)]
        assert (await failure(scripted)).code == "DOWNLOAD_FAILED"


class TestDelays:
    async def test_retry_after_is_honoured(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [scripted.answer(503, b"", "Retry-After: 1"), ok()]
        start = time.monotonic()
        assert await fetch(scripted, max_delay=2000) == DATA
        assert time.monotonic() - start >= 1

    async def test_delays_double_up_to_the_maximum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        for attempt in (1, 2, 3, 7, 1000):
            await http.pause(attempt, 100, 5000)
        await http.pause(1, 100, 5000, "99999")
        await http.pause(1, 100, 5000, "junk")
        most = (0.1, 0.2, 0.4, 5, 5, 5, 0.1)
        assert all(s / 4 <= w <= s for s, w in zip(most, waited, strict=True))
        assert waited[5] == 5  # what the server asks for has no jitter, but a limit


class TestFetchWithBackoff:
    async def test_it_returns_bytes(self, scripted: ScriptedHttp) -> None:
        scripted.answers = [scripted.answer(503), ok()]
        url = scripted.url + "/file/a/b/c.txt?x=1"
        assert await natsbridge.fetch_with_backoff(url, 2, 1, 1, "c") == DATA

    async def test_it_takes_positions_and_checks_them(self) -> None:
        for arguments in (
            ("ftp://x",),
            ("http://h", 0),
            ("http://h", 1, -1),
            ("http://h", 1, 1, "x"),
        ):
            with pytest.raises(NATSBridgeError) as e:
                await natsbridge.fetch_with_backoff(*arguments)
            assert e.value.code == "INVALID_ARGUMENT"

    async def test_no_server(self) -> None:
        with pytest.raises(NATSBridgeError) as e:
            await natsbridge.fetch_with_backoff("http://127.0.0.1:9/x", 2, 1, 1)
        assert e.value.code == "DOWNLOAD_FAILED"
        assert e.value.details["attempts"] == 2

    async def test_memory_is_limited(
        self, scripted: ScriptedHttp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download_module, "MEMORY_LIMIT", 100)
        scripted.answers = [ok()]
        with pytest.raises(NATSBridgeError) as e:
            await natsbridge.fetch_with_backoff(scripted.url)
        assert e.value.code == "PAYLOAD_TOO_LARGE"


async def test_a_cancelled_thread_is_waited_for() -> None:
    seen = []

    def slow() -> None:
        time.sleep(0.1)
        seen.append("done")

    task = asyncio.ensure_future(download_module.in_thread(slow))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["done"]
