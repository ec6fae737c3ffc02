# ruff: noqa: ASYNC230, ASYNC240 (tests may block)
"""send and receive: round trips, transport selection, faults, and what is left behind."""

import asyncio
import base64
import hashlib
import io
import json
import os
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
import pytest_asyncio

import natsbridge
from conftest import FileServerProcess, NatsServer, ScriptedHttp
from natsbridge import http, plik, send
from natsbridge.client import Connection, Msg, Subscription
from natsbridge.errors import NATSBridgeError

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("environment")]

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, "ü"]})
NOWHERE = "http://127.0.0.1:9"


class Line:
    """A connection, and a subscription to a subject of its own."""

    def __init__(self, nc: Connection, sub: Subscription) -> None:
        self.nc = nc
        self.sub = sub
        self.subject = sub.subject

    async def send(self, data: Any, **options: Any) -> tuple[dict[str, Any], str]:
        return await natsbridge.smartsend(self.subject, data, nats_connection=self.nc, **options)

    async def msg(self) -> Msg:
        msg = await self.sub.next(2)
        assert msg is not None
        return msg

    async def receive(self, **options: Any) -> dict[str, Any]:
        return await natsbridge.smartreceive(await self.msg(), **options)


@pytest_asyncio.fixture
async def line(nats_url: str) -> AsyncIterator[Line]:
    async with await natsbridge.connect(nats_url, name="desk", id="desk-1") as nc:
        yield Line(nc, await nc.subscribe(f"t.{uuid.uuid4().hex}"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plik, "BASE_DELAY", 5)


async def failure(work: Awaitable[Any]) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await work
    return e.value


def message(payload: dict[str, Any], **fields: Any) -> Msg:
    whole = {"dataname": "d.bin", "payload_type": "binary", "transport": "direct", **payload}
    return Msg("s", "", json.dumps({"correlation_id": "c", **fields, "payloads": [whole]}).encode())


def link(url: str, data: bytes = b"abc", **metadata: Any) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {
        "transport": "link",
        "encoding": "none",
        "size": len(data),
        "data": url,
        "metadata": {"sha256": digest, **metadata},
    }


class TestRoundTrip:
    async def test_every_type_direct(self, line: Line) -> None:
        data = [
            ("msg", "Grüße", "text"),
            ("d", {"a": [1, 2.5, None]}, "dictionary"),
            ("t", TABLE, "arrowtable"),
            ("j", [{"a": 1}], "jsontable"),
            ("i", b"\x00\xff", "image"),
            ("a", io.BytesIO(b"sound"), "audio"),
            ("v", bytearray(b"film"), "video"),
            ("b", b"", "binary"),
        ]
        env, msg_json = await line.send(data)
        assert [p["data"] for p in env["payloads"]] == [item[1] for item in data]
        assert {p["transport"] for p in env["payloads"]} == {"direct"}
        msg = await line.msg()
        assert msg.data.decode() == msg_json == await natsbridge.envelope_to_json(env)
        got = (await natsbridge.smartreceive(msg))["payloads"]
        assert [(n, k) for n, _, k in got] == [(n, k) for n, _, k in data]
        assert got[0][1] == "Grüße"
        assert got[1][1] == {"a": [1, 2.5, None]}
        assert got[2][1].equals(TABLE)
        assert [v for _, v, _ in got[3:]] == [[{"a": 1}], b"\x00\xff", b"sound", b"film", b""]
        assert type(got[4][1]) is bytes

    async def test_every_type_by_link(self, line: Line, file_url: str) -> None:
        data = [
            ("msg", "Grüße", "text"),
            ("d", {"a": 1}, "dictionary"),
            ("t", TABLE, "arrowtable"),
            ("j", [], "jsontable"),
            ("b", b"", "binary"),
            ("s", io.BytesIO(b"stream"), "video"),
        ]
        env, msg_json = await line.send(data, size_threshold=0)
        for payload in env["payloads"]:
            assert payload["transport"] == "link"
            assert payload["encoding"] == "none"
            assert payload["data"].startswith(file_url + "/file/")
            assert list(payload["metadata"]) == ["payload_bytes", "sha256", "removable"]
            assert payload["metadata"]["payload_bytes"] == payload["size"]
            assert payload["metadata"]["removable"] is False
        assert json.loads(msg_json) == env
        got = (await line.receive())["payloads"]
        assert got[2][1].equals(TABLE)
        values = [v for i, (_, v, _) in enumerate(got) if i != 2]
        assert values == ["Grüße", {"a": 1}, [], b"", b"stream"]

    async def test_fields_arrive(self, line: Line) -> None:
        fields = {
            "correlation_id": "c",
            "msg_id": "m",
            "msg_purpose": "command",
            "receiver_name": "r",
            "receiver_id": "r-1",
            "reply_to": "t.reply",
            "reply_to_msg_id": "m-0",
            "metadata": {"room": [7]},
        }
        env, _ = await line.send([], **fields)
        msg = await line.msg()
        assert msg.reply == "t.reply"
        got = await natsbridge.smartreceive(msg)
        assert got == env
        assert {k: got[k] for k in fields} == fields
        assert (got["sender_name"], got["sender_id"]) == ("desk", "desk-1")
        assert (got["send_to"], got["broker_url"]) == (line.subject, line.nc.url)
        assert got["payloads"] == []

    async def test_a_reply_to_that_is_no_subject_is_only_a_field(self, line: Line) -> None:
        await line.send([], reply_to="not a subject")
        msg = await line.msg()
        assert msg.reply == ""
        assert (await natsbridge.smartreceive(msg))["reply_to"] == "not a subject"

    async def test_an_error_response_arrives_as_error(self, line: Line) -> None:
        response = NATSBridgeError("UPLOAD_FAILED", "no", {"correlation_id": "c"}).to_dict()
        text = await natsbridge.envelope_to_json(response)
        await natsbridge.publish_message(line.nc, line.subject, text)
        env = await line.receive()
        assert env["error"] == response["error"]
        assert env["payloads"] == []
        assert env["correlation_id"] == "c"

    async def test_without_a_connection_one_is_opened_and_closed(
        self, line: Line, nats_url: str, things: Callable[[], Any]
    ) -> None:
        await natsbridge.smartsend(line.subject, [], broker_url=nats_url)
        before = things()
        env, text = await natsbridge.smartsend(line.subject, [("m", "x", "text")], sender_name="n")
        await natsbridge.publish_message(nats_url, line.subject, text, "c")
        assert env["sender_name"] == "n"
        assert env["broker_url"] == nats_url
        for _ in range(3):
            await line.receive()
        await asyncio.sleep(0.05)
        assert things() == before

    async def test_plain_nats_py_on_both_ends(self, nats_url: str, file_url: str) -> None:
        import nats

        plain = await nats.connect(nats_url, name="plain")
        sub = await plain.subscribe("t.plain")
        data = [("m", "x", "text"), ("l", b"y" * 600_000, "binary")]
        env, text = await natsbridge.smartsend(
            "t.plain", data, nats_connection=plain, receiver_name="plain"
        )
        assert env["sender_name"] == "plain"
        await natsbridge.publish_message(plain, "t.plain", text)
        msg = await sub.next_msg(2)
        got = await natsbridge.smartreceive(msg, nats_connection=plain)
        assert got["payloads"] == data
        gone = await failure(natsbridge.smartreceive(await sub.next_msg(2), max_retries=1))
        assert gone.details["status"] == 404
        await plain.close()


class TestTransportSelection:
    async def test_threshold(self, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
        async def transports(**options: Any) -> list[str]:
            data = [("a", b"x" * 99, "binary"), ("b", b"x" * 100, "binary")]
            env, _ = await line.send(data, **options)
            await line.receive()
            return [p["transport"] for p in env["payloads"]]

        assert await transports() == ["direct", "direct"]
        assert await transports(size_threshold=100) == ["direct", "link"]
        monkeypatch.setenv("SIZE_THRESHOLD", "99")
        assert await transports() == ["link", "link"]
        assert await transports(size_threshold=101) == ["direct", "direct"]
        monkeypatch.setenv("SIZE_THRESHOLD", "many")
        assert (await failure(transports())).code == "INVALID_ARGUMENT"

    async def test_the_default_threshold_is_half_a_million(self, line: Line) -> None:
        data = [("a", b"x" * 499_999, "binary"), ("b", b"x" * 500_000, "binary")]
        env, _ = await line.send(data)
        assert [p["transport"] for p in env["payloads"]] == ["direct", "link"]
        assert (await line.receive())["payloads"] == data

    async def test_three_payloads_that_do_not_fit_together(self, line: Line) -> None:
        data = [
            (n, os.urandom(s), "binary")
            for n, s in (("a", 400_000), ("b", 400_001), ("c", 399_999))
        ]
        env, msg_json = await line.send(data)
        assert [p["transport"] for p in env["payloads"]] == ["link", "link", "direct"]
        assert len(msg_json.encode()) <= line.nc.max_payload
        assert (await line.receive())["payloads"] == data

    @pytest.mark.parametrize("slack", [0, -1])
    async def test_the_last_byte_that_fits(self, line: Line, slack: int) -> None:
        options = {"correlation_id": "c", "msg_id": "m", "size_threshold": 10**9}
        _, text = await line.send([("a", b"", "binary")], **options)
        await line.receive()
        # "size" and "payload_bytes" grow from one digit to six, the base64 by steps of four.
        room = (line.nc.max_payload - len(text.encode()) - 10) // 4 * 3
        data = [("a", b"x" * (room - slack), "binary")]
        env, text = await line.send(data, **options)
        assert env["payloads"][0]["transport"] == ("direct" if slack == 0 else "link")
        assert len(text.encode()) <= line.nc.max_payload
        assert (await line.receive())["payloads"] == data

    async def test_what_fits_nowhere(self, tmp_path: Path) -> None:
        config = tmp_path / "small.conf"
        config.write_text("max_payload: 2000")
        with NatsServer(tmp_path, "-c", str(config)) as server:
            async with await natsbridge.connect(server.url) as nc:
                data = [(f"p{i}", b"x" * 400, "binary") for i in range(6)]
                e = await failure(natsbridge.smartsend("t", data, nats_connection=nc))
                assert e.code == "PAYLOAD_TOO_LARGE"
                assert e.details["max_payload"] == 2000
                assert str(e.details["size"]) in e.message
                await nc.flush()

    async def test_fallback_to_direct(self, line: Line) -> None:
        data = [("a", b"x" * 600_000, "binary")]
        env, _ = await line.send(data, fileserver_url=NOWHERE)
        assert env["payloads"][0]["transport"] == "direct"
        assert env["payloads"][0]["data"] is data[0][1]
        assert (await line.receive())["payloads"] == data
        stream = io.BytesIO(b"__stream")
        stream.seek(2)
        await line.send([("s", stream, "binary")], fileserver_url=NOWHERE, size_threshold=0)
        assert (await line.receive())["payloads"] == [("s", b"stream", "binary")]

    async def test_no_fallback(self, line: Line, file_server: FileServerProcess) -> None:
        pipe = os.pipe()
        os.write(pipe[1], b"abc")
        os.close(pipe[1])
        with open(pipe[0], "rb", buffering=0) as stream:  # noqa: PTH123 a descriptor
            cases: list[tuple[Any, dict[str, Any]]] = [
                (b"x" * 600_000, {"fallback_direct": False}),
                (b"x" * 1_000_000, {}),
                (stream, {}),
            ]
            for value, options in cases:
                e = await failure(
                    line.send([("a", value, "binary")], fileserver_url=NOWHERE, **options)
                )
                assert e.code == "UPLOAD_FAILED"
                assert e.details["correlation_id"]
        assert await line.sub.next(0.05) is None

    async def test_an_unseekable_stream_goes_by_link(self, line: Line) -> None:
        pipe = os.pipe()
        os.write(pipe[1], b"abc")
        os.close(pipe[1])
        with open(pipe[0], "rb", buffering=0) as stream:  # noqa: PTH123 a descriptor
            env, _ = await line.send([("a", stream, "binary")])
        assert env["payloads"][0]["size"] == 3
        assert (await line.receive())["payloads"] == [("a", b"abc", "binary")]


class TestNothingIsLeft:
    async def uploads(self, server: FileServerProcess) -> set[Path]:
        return {p for p in server.folder.rglob("*") if p.is_file()}

    async def test_uploads_of_a_message_that_fails_are_removed(
        self, line: Line, file_server: FileServerProcess
    ) -> None:
        sent: list[str] = []

        def progress(name: str, done: int, total: int | None) -> None:
            if name == "b":
                raise RuntimeError("stop")
            sent.append(name)

        before = await self.uploads(file_server)
        data = [("a", b"x" * 1000, "binary"), ("b", b"y" * 1000, "binary")]
        with pytest.raises(RuntimeError, match="stop"):
            await line.send(data, size_threshold=0, on_progress=progress)
        assert "a" in sent
        assert await self.uploads(file_server) == before
        assert await line.sub.next(0.05) is None

    async def test_uploads_are_removed_where_publishing_fails(
        self, file_server: FileServerProcess, tmp_path: Path
    ) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, reconnect=False)

        def progress(*args: object) -> None:
            server.kill()

        before = await self.uploads(file_server)
        data = [("a", b"x" * 1000, "binary"), ("b", b"y" * 1000, "binary")]
        e = None
        for _ in range(3):  # the loss may be noticed only by the next attempt
            try:
                await natsbridge.smartsend(
                    "t", data, nats_connection=nc, size_threshold=0, on_progress=progress
                )
                before = await self.uploads(file_server)
            except NATSBridgeError as error:
                e = error
                break
        assert e is not None
        assert e.code == "NATS_CONNECTION_FAILED"
        assert await self.uploads(file_server) == before
        await nc.close()

    async def test_an_unreachable_broker_is_found_before_uploading(
        self, file_server: FileServerProcess
    ) -> None:
        before = await self.uploads(file_server)
        e = await failure(
            natsbridge.smartsend(
                "t", [("a", b"x", "binary")], broker_url="nats://127.0.0.1:9", size_threshold=0
            )
        )
        assert e.code == "NATS_CONNECTION_FAILED"
        assert await self.uploads(file_server) == before

    async def test_cancelling_a_send_removes_what_was_uploaded(
        self, line: Line, file_server: FileServerProcess
    ) -> None:
        before = await self.uploads(file_server)
        started = asyncio.Event()
        task = asyncio.ensure_future(
            line.send(
                [("a", b"x" * 100_000, "binary"), ("b", Slow(b"y" * 100_000), "binary")],
                size_threshold=0,
                on_progress=lambda name, *_: started.set() if name == "b" else None,
            )
        )
        await asyncio.wait_for(started.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(100):  # the server notices a broken upload a little later
            if await self.uploads(file_server) == before:
                break
            await asyncio.sleep(0.02)
        assert await self.uploads(file_server) == before

    async def test_cancelling_a_receive_leaves_no_file(self, line: Line, tmp_path: Path) -> None:
        await line.send([("a", b"x" * (4 << 20), "binary")])
        msg = await line.msg()
        task: list[asyncio.Task[Any]] = []
        task.append(
            asyncio.ensure_future(
                natsbridge.smartreceive(
                    msg, sink=str(tmp_path), on_progress=lambda *_: task[0].cancel() and None
                )
            )
        )
        with pytest.raises(asyncio.CancelledError):
            await task[0]
        assert list(tmp_path.iterdir()) == []
        env = await natsbridge.smartreceive(msg, sink=str(tmp_path))
        assert Path(env["payloads"][0][1]).stat().st_size == 4 << 20

    async def test_timeouts(self, line: Line, tmp_path: Path) -> None:
        async def never(*args: Any) -> dict[str, Any]:
            await asyncio.sleep(10)
            return {}

        data = [("a", b"x", "binary")]
        options: dict[str, Any] = {"size_threshold": 0, "timeout": 0.1}
        e = await failure(line.send(data, fileserver_upload_handler=never, **options))
        assert e.code == "UPLOAD_FAILED"
        assert "timeout=0.1" in e.message
        await line.send(data, size_threshold=0)
        e = await failure(
            line.receive(fileserver_download_handler=never, timeout=0.1, sink=str(tmp_path))
        )
        assert e.code == "DOWNLOAD_FAILED"
        assert list(tmp_path.iterdir()) == []

    async def test_no_descriptor_task_or_thread_stays(
        self, line: Line, things: Callable[[], Any], tmp_path: Path
    ) -> None:
        async def once() -> None:
            data = [("a", b"x", "binary"), ("t", TABLE, "arrowtable")]
            await line.send(data, size_threshold=0)
            await line.receive(sink=str(tmp_path))
            await line.send(data, size_threshold=0)
            await failure(line.receive(fileserver_url=NOWHERE))
            await failure(line.send([*data, ("x", 5, "binary")]))

        await once()
        before, tasks = things(), len(asyncio.all_tasks())
        for _ in range(5):
            await once()
        await asyncio.sleep(0.05)
        assert things() == before
        assert len(asyncio.all_tasks()) == tasks

    async def test_memory_is_constant_for_links(self, line: Line, tmp_path: Path) -> None:
        source = tmp_path / "big"
        with source.open("wb") as out:
            for _ in range(48):
                out.write(os.urandom(1 << 20))
        (tmp_path / "in").mkdir()
        tracemalloc.start()
        with source.open("rb") as stream:
            await line.send([("big", stream, "binary")])
        env = await line.receive(sink=str(tmp_path / "in"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20
        assert Path(env["payloads"][0][1]).read_bytes() == source.read_bytes()


class Slow(io.BytesIO):
    """A stream that takes its time."""

    def readinto(self, buffer: Any) -> int:
        import time

        time.sleep(0.05)
        return super().readinto(memoryview(buffer)[:10_000])


class TestBadArguments:
    @pytest.mark.parametrize(
        ("data", "options"),
        [
            ("x", {}),
            ([("a", b"")], {}),
            ([5], {}),
            ([(5, b"", "binary")], {}),
            ([("x" * 1025, b"", "binary")], {}),
            ([("\ud800", b"", "binary")], {}),
            ([("a", b"", "binary")] * 65, {}),
            ([], {"size_threshold": -1}),
            ([], {"size_threshold": True}),
            ([], {"size_threshold": 1.5}),
            ([], {"metadata": []}),
            ([], {"metadata": {"a": {1}}}),
            ([], {"reply_to": 5}),
            ([], {"msg_purpose": "x" * 1025}),
            ([], {"timeout": -1}),
            ([], {"fileserver_url": "localhost:8080"}),
            ([], {"fileserver_upload_handler": 5}),
            ([], {"nats_connection": object()}),
        ],
    )
    async def test_of_smartsend(self, data: Any, options: dict[str, Any]) -> None:
        e = await failure(natsbridge.smartsend("t", data, **options))
        assert e.code == "INVALID_ARGUMENT"

    async def test_one_bad_payload_stops_the_message(self, line: Line) -> None:
        bad: list[Any] = [
            ("x", "y", "image"),
            ("x", b"", "picture"),
            ("x", float("nan"), "dictionary"),
        ]
        for payload in bad:
            e = await failure(line.send([("a", b"x" * 600_000, "binary"), payload]))
            assert e.code == "INVALID_PAYLOAD_TYPE"
        assert await line.sub.next(0.05) is None

    @pytest.mark.parametrize(
        "options",
        [
            {"fileserver_url": "x"},
            {"allowed_urls": ["x"]},
            {"nack_subjects": "a"},
            {"nack_subjects": ["a b"]},
            {"max_retries": 0},
            {"base_delay": -1},
            {"max_delay": "x"},
            {"max_payload_size": -1},
            {"timeout": "x"},
            {"sink": 5},
            {"sink": "/no/such/folder"},
            {"sink": ""},
            {"spool_dir": "/no/such/folder"},
            {"fileserver_download_handler": 5},
            {"nack": True},
            {"nats_connection": 5},
        ],
    )
    async def test_of_smartreceive(self, options: dict[str, Any]) -> None:
        msg = Msg("s", "", b'{"payloads":[]}')
        assert (await failure(natsbridge.smartreceive(msg, **options))).code == "INVALID_ARGUMENT"

    async def test_of_what_is_no_message(self) -> None:
        for msg in (None, b"{}", "x"):
            assert (await failure(natsbridge.smartreceive(msg))).code == "INVALID_ARGUMENT"

    async def test_of_publish_message(self, line: Line) -> None:
        for text in (b"{}", None, "\ud800"):
            work = natsbridge.publish_message(line.nc, "t", text)  # type: ignore[arg-type]
            assert (await failure(work)).code == "INVALID_ARGUMENT"
        e = await failure(natsbridge.publish_message(line.nc, "t", "x" * (1 << 20) + "x"))
        assert e.code == "PAYLOAD_TOO_LARGE"


class TestReceiveErrors:
    @pytest.mark.parametrize(
        ("payload", "code"),
        [
            ({"payload_type": "x", "data": ""}, "INVALID_PAYLOAD_TYPE"),
            ({"transport": "x", "data": ""}, "INVALID_TRANSPORT"),
            ({"encoding": "x", "data": ""}, "INVALID_ENVELOPE"),
            ({"data": "a"}, "DESERIALIZATION_ERROR"),
            ({"data": "QQ==", "size": 2}, "INTEGRITY_ERROR"),
            ({"data": "QQ==", "size": 1, "payload_type": "arrowtable"}, "DESERIALIZATION_ERROR"),
            ({"transport": "link", "data": "http://evil/x"}, "URL_NOT_ALLOWED"),
            ({"transport": "link", "data": "file:///etc/passwd"}, "URL_NOT_ALLOWED"),
        ],
    )
    async def test_each_has_its_code_and_the_correlation_id(
        self, payload: dict[str, Any], code: str
    ) -> None:
        e = await failure(natsbridge.smartreceive(message(payload)))
        assert e.code == code
        assert e.details["correlation_id"] == "c"

    async def test_an_invalid_message(self) -> None:
        e = await failure(natsbridge.smartreceive(Msg("s", "", b"junk")))
        assert e.code == "INVALID_ENVELOPE"

    async def test_sizes_are_limited(self, line: Line, tmp_path: Path) -> None:
        data = base64.b64encode(b"x" * 1000).decode()
        for options in ({"size": 1000}, {}):
            msg = message({"data": data, **options})
            e = await failure(natsbridge.smartreceive(msg, max_payload_size=999))
            assert e.code == "PAYLOAD_TOO_LARGE"
            assert (await natsbridge.smartreceive(msg, max_payload_size=1000))["payloads"]
        huge = message({**link("http://127.0.0.1:9/x"), "size": 1 << 40})
        e = await failure(natsbridge.smartreceive(huge, fileserver_url=NOWHERE))
        assert e.code == "PAYLOAD_TOO_LARGE"
        e = await failure(
            natsbridge.smartreceive(huge, fileserver_url=NOWHERE, sink=str(tmp_path), max_retries=1)
        )
        assert e.code == "DOWNLOAD_FAILED"
        await line.send([("a", b"x" * 2000, "binary")], size_threshold=0)
        e = await failure(line.receive(max_payload_size=1999, sink=str(tmp_path)))
        assert e.code == "PAYLOAD_TOO_LARGE"
        assert list(tmp_path.iterdir()) == []

    async def test_urls_allowed(self, line: Line, file_url: str) -> None:
        await line.send([("a", b"abc", "binary")], size_threshold=0)
        msg = await line.msg()
        e = await failure(natsbridge.smartreceive(msg, fileserver_url=NOWHERE))
        assert e.code == "URL_NOT_ALLOWED"
        assert f'allowed_urls=["{file_url}"]' in e.message
        options: dict[str, Any] = {"fileserver_url": NOWHERE, "allowed_urls": [file_url]}
        assert await natsbridge.smartreceive(msg, **options)

    async def test_the_file_servers_own_download_domain_is_allowed(
        self, line: Line, file_url: str, scripted: ScriptedHttp
    ) -> None:
        scripted.answers = [scripted.answer(200, json.dumps({"downloadDomain": file_url}).encode())]
        await line.send([("a", b"abc", "binary")], size_threshold=0)
        env = await line.receive(fileserver_url=scripted.url)
        assert env["payloads"] == [("a", b"abc", "binary")]
        assert [r[0] for r in scripted.requests] == ["GET /config HTTP/1.1"]

    async def test_a_file_that_is_not_what_was_sent(
        self, scripted: ScriptedHttp, tmp_path: Path
    ) -> None:
        for answer in (b"abd", b"ab", b"abcd"):
            scripted.answers = [scripted.answer(200, answer)]
            e = await failure(
                natsbridge.smartreceive(
                    message(link(scripted.url + "/x")),
                    fileserver_url=scripted.url,
                    sink=str(tmp_path),
                    base_delay=1,
                )
            )
            assert e.code == "INTEGRITY_ERROR"
            assert list(tmp_path.iterdir()) == []


class TestSinks:
    async def test_a_folder_takes_bytes_and_leaves_values(self, line: Line, tmp_path: Path) -> None:
        data = [
            ("m", "x", "text"),
            ("../evil", b"1", "image"),
            ("d", {}, "dictionary"),
            ("t", TABLE, "arrowtable"),
            ("../evil", b"2" * 600_000, "audio"),
        ]
        await line.send(data)
        got = (await line.receive(sink=str(tmp_path)))["payloads"]
        assert got[0][1] == "x"
        assert got[2][1] == {}
        assert got[1][1] == str(tmp_path / "_._evil")
        assert got[4][1] == str(tmp_path / "_._evil-1") or "evil" in got[4][1]
        assert Path(got[1][1]).read_bytes() == b"1"
        with pa.ipc.open_stream(Path(got[3][1]).read_bytes()) as reader:
            assert reader.read_all().equals(TABLE)
        assert Path(got[4][1]).read_bytes() == b"2" * 600_000
        assert len(list(tmp_path.iterdir())) == 3

    async def test_a_callable_is_asked_for_every_payload(self, line: Line) -> None:
        asked: list[tuple[str, str, int | None]] = []
        out = io.BytesIO()

        def sink(dataname: str, payload_type: str, size: int | None) -> Any:
            asked.append((dataname, payload_type, size))
            return out if dataname == "b" else None

        await line.send([("a", "x", "text"), ("b", b"y" * 600_000, "binary"), ("c", "z", "text")])
        got = (await line.receive(sink=sink))["payloads"]
        assert got == [("a", "x", "text"), ("b", out, "binary"), ("c", "z", "text")]
        assert out.getvalue() == b"y" * 600_000
        assert asked == [("a", "text", 1), ("c", "text", 1), ("b", "binary", 600_000)]

    async def test_what_a_sink_raises_is_raised(self, line: Line) -> None:
        def sink(*args: object) -> None:
            raise KeyError("mine")

        await line.send([("a", "x", "text")])
        with pytest.raises(KeyError, match="mine"):
            await line.receive(sink=sink)

    async def test_one_failing_payload_leaves_no_file_of_the_others(self, tmp_path: Path) -> None:
        good = {"dataname": "g", "payload_type": "binary", "transport": "direct", "data": "QQ=="}
        bad = {**good, "payload_type": "text", "data": "/w=="}
        msg = Msg("s", "", json.dumps({"payloads": [good, bad]}).encode())
        e = await failure(natsbridge.smartreceive(msg, sink=tmp_path))
        assert e.code == "DESERIALIZATION_ERROR"
        assert list(tmp_path.iterdir()) == []

    async def test_progress_of_both_directions(self, line: Line) -> None:
        seen: list[tuple[str, int, int | None]] = []
        data = [("a", b"x" * 300_000, "binary"), ("b", "direct", "text")]
        await line.send(data, size_threshold=1000, on_progress=lambda *p: seen.append(p))
        assert ("a", 300_000, 300_000) in seen
        assert seen[-1] == ("b", 6, 6)
        seen.clear()
        await line.receive(on_progress=lambda *p: seen.append(p))
        assert seen[0] == ("b", 6, 6)
        assert seen[-1] == ("a", 300_000, 300_000)


class TestHandlers:
    async def test_uploads_by_functions_and_coroutines(self, line: Line) -> None:
        store: dict[str, bytes] = {}

        def keep(url: str, dataname: str, data: bytes) -> dict[str, Any]:
            assert type(data) is bytes
            store[dataname] = data
            return {"status": 200, "uploadid": "u", "fileid": "f", "url": f"{url}/{dataname}"}

        async def keep_later(url: str, dataname: str, data: bytes) -> dict[str, Any]:
            return keep(url, dataname, data)

        def load(url: str, retries: int, base: int, most: int, correlation_id: str) -> bytes:
            assert (retries, base, most) == (5, 100, 5000)
            assert correlation_id
            return store[url.rpartition("/")[2]]

        async def load_later(*args: Any) -> bytes:
            return load(*args)

        for up, down in ((keep, load), (keep_later, load_later)):
            stream = io.BytesIO(b"abc")
            env, _ = await line.send(
                [("a", stream, "binary")], size_threshold=0, fileserver_upload_handler=up
            )
            metadata = env["payloads"][0]["metadata"]
            assert metadata["sha256"] == hashlib.sha256(b"abc").hexdigest()
            assert metadata["removable"] is False
            got = await line.receive(fileserver_download_handler=down)
            assert got["payloads"] == [("a", b"abc", "binary")]
        store["a"] = b"abd"
        await line.send([("a", b"abc", "binary")], size_threshold=0, fileserver_upload_handler=keep)
        store["a"] = b"abd"
        e = await failure(line.receive(fileserver_download_handler=load))
        assert e.code == "INTEGRITY_ERROR"

    @pytest.mark.parametrize(
        "result",
        [None, {}, {"url": 5}, {"url": ""}, {"status": 500, "url": "http://x"}, RuntimeError("x")],
    )
    async def test_uploads_that_fail_fall_back_or_raise(self, line: Line, result: Any) -> None:
        def handler(url: str, dataname: str, data: bytes) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        options: dict[str, Any] = {"size_threshold": 0, "fileserver_upload_handler": handler}
        env, _ = await line.send([("a", b"abc", "binary")], **options)
        assert env["payloads"][0]["transport"] == "direct"
        await line.receive()
        e = await failure(line.send([("a", b"abc", "binary")], fallback_direct=False, **options))
        assert e.code == "UPLOAD_FAILED"

    @pytest.mark.parametrize("result", [None, "text", RuntimeError("x")])
    async def test_downloads_that_fail(self, line: Line, result: Any) -> None:
        def handler(*args: Any) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        await line.send([("a", b"abc", "binary")], size_threshold=0)
        e = await failure(line.receive(fileserver_download_handler=handler))
        assert e.code == "DOWNLOAD_FAILED"

    async def test_our_own_calls_are_handlers_that_stream(self, line: Line) -> None:
        for handler in (natsbridge.plik_upload, natsbridge.plik_oneshot_upload):
            env, _ = await line.send(
                [("a", b"abc", "binary")],
                size_threshold=0,
                receiver_name="somebody",
                fileserver_upload_handler=handler,
            )
            removable = env["payloads"][0]["metadata"]["removable"]
            assert removable is (handler is natsbridge.plik_upload)
            got = await line.receive(fileserver_download_handler=natsbridge.fetch_with_backoff)
            assert got["payloads"] == [("a", b"abc", "binary")]


class TestConsumeOnce:
    async def test_a_server_that_does_not_delete_holds_nothing_up(
        self, line: Line, scripted: ScriptedHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plik, "CLEANUP_S", 0.1)
        url = scripted.url + "/file/u/f/n"
        scripted.answers = [
            scripted.answer(200, b"abc"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            b"",
        ]
        msg = message(link(url, removable=True), receiver_id="desk-1")
        env = await natsbridge.smartreceive(
            msg, fileserver_url=scripted.url, nats_connection=line.nc, sink=str(tmp_path)
        )
        assert Path(env["payloads"][0][1]).read_bytes() == b"abc"

    async def status(self, env: dict[str, Any]) -> int:
        async with http.Session() as session, session.get(env["payloads"][0]["data"]) as r:
            return r.status

    @pytest.mark.parametrize(
        ("fields", "consumed"),
        [
            ({}, False),
            ({"receiver_id": "desk-1"}, True),
            ({"receiver_id": "other", "receiver_name": "desk"}, False),
            ({"receiver_name": "desk"}, True),
            ({"receiver_name": "other"}, False),
            ({"receiver_name": "desk-1"}, False),
        ],
    )
    async def test_only_what_is_for_this_receiver_is_deleted(
        self, line: Line, fields: dict[str, str], consumed: bool
    ) -> None:
        env, _ = await line.send([("a", b"abc", "binary")], size_threshold=0, **fields)
        assert env["payloads"][0]["metadata"]["removable"] is bool(fields)
        await line.receive()
        assert await self.status(env) == (404 if consumed else 200)

    async def test_nothing_is_deleted_when_the_message_fails(
        self, line: Line, file_url: str, tmp_path: Path
    ) -> None:
        env, _ = await line.send(
            [("a", b"abc", "binary"), ("b", b"{", "dictionary")],
            size_threshold=0,
            receiver_id="desk-1",
        )
        e = await failure(line.receive(sink=str(tmp_path)))
        assert e.code == "DESERIALIZATION_ERROR"
        assert await self.status(env) == 200
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "path", ["/file/u/f/n/x", "/file/u/f", "/files/u/f/n", "/file//f/n", "/file/u/f/n?x=1"]
    )
    async def test_only_a_files_own_url_is_deleted(
        self, scripted: ScriptedHttp, line: Line, path: str
    ) -> None:
        scripted.answers = [scripted.answer(200, b"abc")]
        msg = message(link(scripted.url + path, removable=True), receiver_id="desk-1")
        await natsbridge.smartreceive(msg, fileserver_url=scripted.url, nats_connection=line.nc)
        assert [r[0].split()[0] for r in scripted.requests] == ["GET"]

    async def test_without_size_or_digest_nothing_is_deleted(
        self, scripted: ScriptedHttp, line: Line
    ) -> None:
        scripted.answers = [scripted.answer(200, b"abc")]
        for change in ({"size": None}, {"metadata": {"removable": True}}):
            whole = {**link(scripted.url + "/file/u/f/n", removable=True), **change}
            msg = message(whole, receiver_id="desk-1")
            await natsbridge.smartreceive(msg, fileserver_url=scripted.url, nats_connection=line.nc)
        assert [r[0].split()[0] for r in scripted.requests] == ["GET", "GET"]
        msg = message(link(scripted.url + "/file/u/f/n", removable=True), receiver_id="desk-1")
        await natsbridge.smartreceive(msg, fileserver_url=scripted.url, nats_connection=line.nc)
        assert scripted.requests[-1][0] == "DELETE /file/u/f/n HTTP/1.1"


async def test_the_default_url_of_the_file_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FILESERVER_URL")
    assert send.fileserver(None).full == "http://localhost:8080"
    monkeypatch.setenv("FILESERVER_URL", "http://files/plik/")
    assert send.fileserver(None).full == "http://files/plik"
    assert send.fileserver("http://other").full == "http://other"
