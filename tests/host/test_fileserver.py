"""The embedded file server against real clients: aiohttp's, and raw sockets for faults."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from natsbridge import fileform, fileserver, filestore
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.fileserver import FileServer

AGENT = {"User-Agent": "plik_client/test"}
FILE = b'form-data; name="file"; filename="a.bin"'


class Client:
    """What the tests say to one server."""

    def __init__(self, server: FileServer, folder: Path, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.folder = folder
        self.session = session
        self.url = server.url
        self.port = int(server.url.rpartition(":")[2])

    async def create(self, **options: Any) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/upload", json=options) as answer:
            assert answer.status == 200, await answer.text()
            upload: dict[str, Any] = json.loads(await answer.text())
            return upload

    async def send(self, upload: dict[str, Any], body: Any, boundary: str = "B") -> tuple[int, str]:
        headers = {
            "X-UploadToken": upload["uploadToken"],
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        }
        url = f"{self.url}/file/{upload['id']}"
        body = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self.session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def add(self, upload: dict[str, Any], data: bytes, name: str = "a.bin") -> dict[str, Any]:
        disposition = f'form-data; name="file"; filename="{name}"'.encode()
        status, text = await self.send(upload, form(data, disposition))
        assert status == 200, text
        file: dict[str, Any] = json.loads(text)
        return file

    def path(self, upload: dict[str, Any], file: dict[str, Any]) -> str:
        return f"/file/{upload['id']}/{file['id']}/{file['fileName']}"

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, bytes]:
        async with self.session.request(
            method, self.url + path, headers=headers, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers, await answer.read()

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def uploads(self) -> set[str]:
        return {path.stem for path in self.folder.iterdir()}

    def on_disk(self, upload: dict[str, Any]) -> set[str]:
        return {path.name for path in (self.folder / f"{upload['id']}.upload").iterdir()}


def form(data: bytes, disposition: bytes = FILE, end: bytes = b"\r\n--B--\r\n") -> bytes:
    return b"--B\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + data + end


@contextlib.asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Client]:
    async with (
        FileServer(folder, **options) as server,
        aiohttp.ClientSession(headers=AGENT) as session,
    ):
        yield Client(server, folder, session)


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path) as client:
        yield client


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what the server does on its own."""
    end = time.monotonic() + 3
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


# Creating uploads


@pytest.mark.asyncio
async def test_an_upload_is_answered_with_the_keys_of_plik(client: Client) -> None:
    async with client.session.post(f"{client.url}/upload", json={"ttl": 60}) as answer:
        assert answer.content_type == "text/plain"
        upload = json.loads(await answer.text())
    assert len(upload["id"]) == 16
    assert len(upload["uploadToken"]) == 32
    assert (upload["ttl"], upload["downloadDomain"], upload["files"]) == (60, "", None)
    assert (upload["oneShot"], upload["removable"], upload["stream"]) == (False, False, False)
    assert upload["admin"] is True
    start, end = (datetime.fromisoformat(upload[key]) for key in ("createdAt", "expireAt"))
    assert (end - start).total_seconds() == 60


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"OneShot": true, "Removable": true, "TTL": 7}', (True, True, 7)),
        (b'{"ONESHOT": true, "removable": null, "tTl": 7}', (True, False, 7)),
        (b'{"ttl": 5, "TTL": 7, "unknown": [1]}', (False, False, 7)),
        (b'{"ttl": 0}', (False, False, 30 * 86400)),
        (b"null", (False, False, 30 * 86400)),
        (b"", (False, False, 30 * 86400)),
    ],
)
@pytest.mark.asyncio
async def test_options_are_read_as_go_reads_json(
    client: Client, body: bytes, expected: tuple[bool, bool, int]
) -> None:
    async with client.session.post(f"{client.url}/upload", data=body) as answer:
        upload = json.loads(await answer.text())
    assert (upload["oneShot"], upload["removable"], upload["ttl"]) == expected


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b'{"ttl": 2592001}',
            "unable to create upload : invalid TTL. (maximum allowed is : 2592000)",
        ),
        (b'{"ttl": -1}', "unable to create upload : cannot set infinite TTL"),
        (b'{"stream": true}', "unable to create upload : stream mode is not enabled"),
        (b'{"password": "x"}', "unable to create upload : password protection is not enabled"),
        (b'{"ttl": "5"}', "unable to deserialize request body : "),
        (b'{"ttl": 1.5}', "unable to deserialize request body : "),
        (b'{"ttl": true}', "unable to deserialize request body : "),
        (b'{"oneShot": 1}', "unable to deserialize request body : "),
        (b"[]", "unable to deserialize request body : "),
        (b"{} x", "unable to deserialize request body : "),
        (b"\xff", "unable to deserialize request body : "),
        (b"[" * 100_000, "unable to deserialize request body : "),
        (b" " * ((1 << 20) + 1), "unable to read request body : http: request body too large"),
    ],
    ids=lambda value: str(value[:40]),
)
@pytest.mark.asyncio
async def test_a_refused_upload_is_a_400_with_text(client: Client, body: bytes, text: str) -> None:
    async with client.session.post(f"{client.url}/upload", data=io.BytesIO(body)) as answer:
        assert answer.status == 400
        assert (await answer.text()).startswith(text)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert client.uploads() == set()


@pytest.mark.asyncio
async def test_the_configuration_tells_the_limits(tmp_path: Path) -> None:
    async with running(tmp_path, max_file_size=1000, default_ttl=10, max_ttl=20) as client:
        status, _, body = await client.ask("GET", "/config")
    config = json.loads(body)
    assert status == 200
    assert (config["maxFileSize"], config["defaultTTL"], config["maxTTL"]) == (1000, 10, 20)
    assert (config["downloadDomain"], config["downloadDomainAlias"]) == ("", None)
    assert (config["oneShot"], config["feature_one_shot"]) == (True, "enabled")
    assert (config["authentication"], config["feature_authentication"]) == (False, "disabled")


# Adding files


@pytest.mark.asyncio
async def test_a_file_comes_back_as_it_went_in(client: Client) -> None:
    data = os.urandom(1_000_000)
    upload = await client.create()
    file = await client.add(upload, data)
    assert file["fileName"] == "a.bin"
    assert (file["fileSize"], file["status"]) == (len(data), "uploaded")
    assert file["fileMd5"] == hashlib.md5(data).hexdigest()
    status, headers, body = await client.ask("GET", client.path(upload, file))
    assert status == 200
    assert body == data
    assert headers["Content-Length"] == str(len(data))
    assert headers["Content-Disposition"] == 'filename="a.bin"'
    assert "Cache-Control" not in headers


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
@pytest.mark.asyncio
async def test_data_that_looks_like_boundaries_is_data(client: Client, size: int) -> None:
    data = (b"\r\n--" * size)[:size]
    upload = await client.create()
    file = await client.add(upload, data)
    assert (await client.ask("GET", client.path(upload, file)))[2] == data


@pytest.mark.asyncio
async def test_a_chunked_body_and_aiohttps_own_form_are_taken(client: Client) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in form(b"abc"):
            yield bytes((byte,))

    upload = await client.create()
    status, text = await client.send(upload, pieces())
    assert (status, json.loads(text)["fileSize"]) == (200, 3)
    own = aiohttp.FormData()
    own.add_field("comment", "first")
    own.add_field("file", b"abc", filename="b c.txt")
    async with client.session.post(
        f"{client.url}/file/{upload['id']}",
        data=own,
        headers={"X-UploadToken": upload["uploadToken"]},
    ) as answer:
        assert (await answer.json())["fileMd5"] == hashlib.md5(b"abc").hexdigest()


@pytest.mark.asyncio
async def test_an_empty_file_has_no_length(client: Client) -> None:
    upload = await client.create()
    file = await client.add(upload, b"")
    assert (file["fileSize"], file["fileType"]) == (0, "")
    for method in ("HEAD", "GET"):
        status, headers, body = await client.ask(method, client.path(upload, file))
        assert (status, body) == (200, b"")
        assert "Content-Length" not in headers
        assert headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\nrest", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wave"),
        ("Grüße".encode(), "text/plain; charset=utf-8"),
        (b"<html><script>", "text/plain; charset=utf-8"),
        (b"\0\1", "application/octet-stream"),
    ],
)
@pytest.mark.asyncio
async def test_the_type_is_seen_in_the_data(client: Client, data: bytes, kind: str) -> None:
    upload = await client.create()
    file = await client.add(upload, data)
    assert file["fileType"] == kind
    assert (await client.ask("HEAD", client.path(upload, file)))[1]["Content-Type"] == kind


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="a b;c.txt"', "a b;c.txt"),
        ("Form-Data;NAME=file;FileName=a;", "a"),
        ('form-data; name="file"; filename="x/y/z.txt"', "z.txt"),
        ('form-data; name="file"; filename=".."', ".."),
        ('form-data; name="file"; filename="é.txt"', "é.txt"),
        ('form-data; name="file"; filename="a%22b"', "a%22b"),
    ],
)
@pytest.mark.asyncio
async def test_a_name_is_kept_without_folders(client: Client, disposition: str, name: str) -> None:
    upload = await client.create()
    status, text = await client.send(upload, form(b"x", disposition.encode()))
    assert (status, json.loads(text)["fileName"]) == (200, name)
    assert all(len(on_disk) in (16, 11) for on_disk in client.on_disk(upload))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (form(b"x", b'form-data; name="file"; filename="a"b"'), "missing file from"),
        (form(b"x", b'form-data; name="file"; filename="a\\"b"'), "missing file from"),
        (form(b"x", b'form-data; name="other"; filename="a"'), "missing file from"),
        (form(b"x", b'attachment; name="file"; filename="a"'), "missing file from"),
        (form(b"x", b'form-data; name="file"'), "missing file name from"),
        (form(b"x", b'form-data; name="file"; filename="/"'), "missing file name from"),
        (form(b"x", b'form-data; name="file"; filename="a\x01"'), "invalid multipart form"),
        (
            form(b"x", b'form-data; name="file"; filename="' + b"a" * 1025 + b'"'),
            "unable to create file : file name aaaaaaaaaaaaaaaaaaaa... is too long",
        ),
        (b"", "invalid multipart form"),
        (b"--B\r\nContent-Disp", "invalid multipart form"),
        (b"--B\r\n" + b"x" * (3 << 20), "invalid multipart form"),
        (b"x" * (3 << 20), "invalid multipart form"),
    ],
    ids=lambda value: str(value[:60]),
)
@pytest.mark.asyncio
async def test_a_form_without_a_usable_file_is_a_400(
    client: Client, body: bytes, text: str
) -> None:
    upload = await client.create()
    status, answer = await client.send(upload, body)
    assert status == 400
    assert answer.startswith(text)
    assert client.on_disk(upload) == {"upload.json"}


@pytest.mark.asyncio
async def test_a_body_that_is_no_form_is_a_400(client: Client) -> None:
    upload = await client.create()
    token = {"X-UploadToken": upload["uploadToken"]}
    for kind in ("text/plain", "multipart/form-data", 'multipart/form-data; boundary=""'):
        async with client.session.post(
            f"{client.url}/file/{upload['id']}", data=b"x", headers={**token, "Content-Type": kind}
        ) as answer:
            assert answer.status == 400
            assert (await answer.text()).startswith("invalid multipart form : ")


@pytest.mark.asyncio
async def test_adding_wants_the_uploads_own_token(client: Client) -> None:
    upload = await client.create()
    for token in ("", "x", (await client.create())["uploadToken"]):
        status, text = await client.send({**upload, "uploadToken": token}, form(b"x"))
        assert (status, text) == (403, "you are not allowed to add file to this upload\n")
    status, text = await client.send({**upload, "id": "a" * 16}, form(b"x"))
    assert (status, text) == (404, "upload aaaaaaaaaaaaaaaa not found\n")


@pytest.mark.parametrize("limit", [10, 1000, 70_000])
@pytest.mark.asyncio
async def test_a_file_may_be_as_large_as_the_limit_and_no_larger(
    tmp_path: Path, limit: int
) -> None:
    async with running(tmp_path, max_file_size=limit) as client:
        upload = await client.create()
        file = await client.add(upload, b"x" * limit)
        status, text = await client.send(upload, form(b"x" * (limit + 1)))
        said = {10: "10 B", 1000: "1.0 kB", 70_000: "70 kB"}[limit]
        assert (status, text) == (400, f"file too big (limit is set to {said})\n")
        assert client.on_disk(upload) == {"upload.json", file["id"]}


@pytest.mark.asyncio
async def test_an_upload_has_at_most_so_many_files(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fileserver, "MAX_FILES", 2)
    upload = await client.create()
    for _ in range(2):
        await client.add(upload, b"x")
    status, text = await client.send(upload, form(b"x"))
    assert (status, text) == (400, "maximum number file per upload reached, limit is 2\n")


# The form reader by itself


class Pieces:
    """A request body that arrives in given pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def read_form(pieces: list[bytes]) -> tuple[str, bytes]:
    request: Any = SimpleNamespace(
        headers={"Content-Type": 'multipart/form-data; boundary="B"'}, content=Pieces(pieces)
    )
    reader = fileform.Form(request)
    return await reader.name(), b"".join([data async for data in reader.data()])


@pytest.mark.asyncio
async def test_a_form_reads_the_same_however_it_is_split() -> None:
    data = b"\r\n--\r\r\n-\r\n--C\0" + bytes(range(256))
    part = b"--B\r\nContent-Disposition: form-data; name=x\r\n\r\nskip me\r\n"
    body = b"preamble\r\n" + part + form(data)
    expected = ("a.bin", data)
    assert await read_form([body]) == expected
    assert await read_form([bytes((byte,)) for byte in body]) == expected
    for cut in range(1, len(body)):
        assert await read_form([body[:cut], body[cut:]]) == expected
    assert await read_form([body + b"--B\r\nepilogue" * 3]) == expected


@pytest.mark.asyncio
async def test_a_form_cut_anywhere_before_its_boundary_is_not_complete() -> None:
    body = form(b"abc", end=b"\r\n--B")
    assert await read_form([body]) == ("a.bin", b"abc")
    start = body.index(b"abc")
    for cut in range(len(body)):
        with pytest.raises(EOFError if cut >= start else web.HTTPBadRequest):
            await read_form([body[:cut]])


# Faults while uploading


async def begin(client: Client, upload: dict[str, Any], head: str) -> asyncio.StreamWriter:
    _, writer = await client.raw()
    writer.write(
        f"POST /file/{upload['id']} HTTP/1.1\r\nHost: x\r\nX-UploadToken: {upload['uploadToken']}"
        f"\r\nContent-Type: multipart/form-data; boundary=B\r\n{head}\r\n\r\n".encode()
    )
    writer.write(form(b"x" * 200_000, end=b""))
    await writer.drain()
    await until(lambda: any(name.endswith(".part") for name in client.on_disk(upload)))
    return writer


@pytest.mark.parametrize("head", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
@pytest.mark.asyncio
async def test_a_cut_upload_leaves_nothing(client: Client, head: str) -> None:
    upload = await client.create()
    if "chunked" in head:
        _, writer = await client.raw()
        body = form(b"x" * 200_000, end=b"")
        writer.write(
            f"POST /file/{upload['id']} HTTP/1.1\r\nHost: x\r\n"
            f"X-UploadToken: {upload['uploadToken']}\r\n"
            f"Content-Type: multipart/form-data; boundary=B\r\n{head}\r\n\r\n".encode()
        )
        writer.write(b"%x\r\n%s\r\n" % (len(body), body))
        await until(lambda: len(client.on_disk(upload)) == 2)
    else:
        writer = await begin(client, upload, head)
    writer.transport.abort()
    await until(lambda: client.on_disk(upload) == {"upload.json"})
    _, _, body = await client.ask("GET", f"/upload/{upload['id']}")
    (file,) = json.loads(body)["files"]
    assert (file["status"], file["fileSize"]) == ("uploading", 0)
    status, _, body = await client.ask("GET", client.path(upload, file))
    text = f"file a.bin ({file['id']}) is not available : uploading\n"
    assert (status, body.decode()) == (404, text)


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n--"])
@pytest.mark.asyncio
async def test_a_body_that_ends_well_but_early_is_a_500(client: Client, end: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield form(b"x" * 100_000, end=end)

    upload = await client.create()
    status, text = await client.send(upload, pieces())
    assert status == 500
    assert text.startswith("unable to read data from request body : ")
    assert client.on_disk(upload) == {"upload.json"}


@pytest.mark.asyncio
async def test_a_refusal_can_be_read_before_the_body_is_sent(client: Client) -> None:
    reader, writer = await client.raw()
    writer.write(b"POST /file/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nxxx")
    answer = await asyncio.wait_for(reader.read(), 3)
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nupload nothing not found\n")
    writer.close()


@pytest.mark.asyncio
async def test_an_upload_that_stalls_is_dropped(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fileform, "STALL_S", 0.2)
    upload = await client.create()
    writer = await begin(client, upload, "Content-Length: 1000000")
    await until(lambda: client.on_disk(upload) == {"upload.json"})
    writer.close()


@pytest.mark.asyncio
async def test_a_full_disk_is_said_and_leaves_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "unable to save file : no space left on the file server's disk\n"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    upload = await client.create()
    kept = await client.add(upload, b"kept")
    for owner, method in ((filestore.Incoming, "write"), (filestore.FileStore, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, full)
            status, text = await client.send(upload, form(b"x"))
        assert (status, text) == (500, said)
        assert client.on_disk(upload) == {"upload.json", kept["id"]}
    monkeypatch.setattr(filestore.FileStore, "save", full)
    status, _, body = await client.ask("POST", "/upload")
    assert (status, body) == (500, said.encode())
    assert client.uploads() == {upload["id"]}
    # To remove needs no space.
    token = {"X-UploadToken": upload["uploadToken"]}
    assert (await client.ask("DELETE", client.path(upload, kept), token))[0] == 200
    assert client.on_disk(upload) == {"upload.json"}


@pytest.mark.asyncio
async def test_trouble_with_the_disk_is_told_once_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def fails(number: int) -> Callable[..., None]:
        def write(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return write

    async with running(tmp_path, on_trouble=told.append) as client:
        upload = await client.create()
        for number, text in (
            (errno.ENOSPC, "no space left on the file server's disk"),
            (errno.EDQUOT, "no space left on the file server's disk"),
            (errno.EROFS, "internal server error"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(filestore.Incoming, "write", fails(number))
                patch.setattr(filestore.FileStore, "save", fails(number))
                for _ in range(3):
                    status, answer = await client.send(upload, form(b"x"))
                    assert (status, text in answer) == (500, True)
                    status, _, body = await client.ask("POST", "/upload")
                    assert (status, text in body.decode()) == (500, True)
            where = f"the file server cannot keep files in {tmp_path}: "
            assert told == [where + os.strerror(number)]
            told.clear()
            await client.add(upload, b"x")
        # What a sender does is no trouble of the disk's.
        writer = await begin(client, upload, "Content-Length: 1000000")
        writer.close()
        await until(lambda: not any(name.endswith(".part") for name in client.on_disk(upload)))
    assert told == []


@pytest.mark.asyncio
async def test_an_upload_removed_while_a_file_arrives_stays_removed(client: Client) -> None:
    upload = await client.create(removable=True)
    writer = await begin(client, upload, "Content-Length: 1000000")
    assert (await client.ask("DELETE", f"/upload/{upload['id']}"))[0] == 200
    writer.write(b"\r\n--B--\r\n")
    writer.write_eof()
    await writer.drain()
    assert client.uploads() == set()
    writer.close()


# Downloads


async def answer_head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)


@pytest.mark.asyncio
async def test_a_one_shot_file_is_gone_at_the_first_get_but_not_at_head(client: Client) -> None:
    upload = await client.create(oneShot=True)
    data = os.urandom(20_000_000)
    file = await client.add(upload, data)
    path = client.path(upload, file)
    for _ in range(2):
        status, headers, _ = await client.ask("HEAD", path)
        assert (status, headers["Content-Length"]) == (200, str(len(data)))
        assert headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    reader, writer = await client.raw()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await answer_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
    for method in ("GET", "HEAD"):
        assert (await client.ask(method, path))[0] == 404
    assert await reader.readexactly(len(data)) == data
    writer.close()
    assert client.on_disk(upload) == {"upload.json"}


@pytest.mark.asyncio
async def test_a_one_shot_file_whose_transfer_breaks_is_lost(client: Client) -> None:
    upload = await client.create(oneShot=True)
    file = await client.add(upload, bytes(20_000_000))
    reader, writer = await client.raw()
    writer.write(f"GET {client.path(upload, file)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await answer_head(reader)
    writer.transport.abort()
    status, _, body = await client.ask("GET", client.path(upload, file))
    text = f"file a.bin ({file['id']}) is not available : removed\n"
    assert (status, body.decode()) == (404, text)


@pytest.mark.asyncio
async def test_a_range_is_ignored(client: Client) -> None:
    upload = await client.create()
    file = await client.add(upload, b"0123456789")
    status, headers, body = await client.ask(
        "GET", client.path(upload, file), {"Range": "bytes=5-", "If-None-Match": "*"}
    )
    assert (status, body) == (200, b"0123456789")
    assert "Accept-Ranges" not in headers


@pytest.mark.parametrize(
    "agent", ["curl/8.5.0", "Python-urllib/3.11", "plik_client/x", "Wget/1.2", "Go-http-client/1.1"]
)
@pytest.mark.asyncio
async def test_programs_get_the_error_itself(client: Client, agent: str) -> None:
    status, headers, body = await client.ask(
        "GET", "/file/aaaaaaaaaaaaaaaa/b/c", {"User-Agent": agent}
    )
    assert (status, body) == (404, b"upload aaaaaaaaaaaaaaaa not found\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("agent", ["Mozilla/5.0", "my curl", "Python/3.11 aiohttp/3.9", ""])
@pytest.mark.asyncio
async def test_others_are_led_to_a_web_page_that_is_a_200(client: Client, agent: str) -> None:
    path, headers = "/file/aaaaaaaaaaaaaaaa/b/c%0D%0AX:y", {"User-Agent": agent}
    for method in ("GET", "HEAD"):
        status, got, _ = await client.ask(method, path, headers)
        assert status == 301
        assert got["Location"] == (
            f"/#/?err=upload%20aaaaaaaaaaaaaaaa%20not%20found&errcode=404&uri={path}"
        )
    async with client.session.get(client.url + path, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
    assert (await client.ask("DELETE", path, headers))[0] == 404
    assert (await client.ask("GET", "/upload/nothing", headers))[0] == 404


@pytest.mark.asyncio
async def test_a_download_names_all_three_parts(client: Client) -> None:
    upload, other = await client.create(), await client.create()
    file = await client.add(upload, b"x")
    for path, status in (
        (client.path(upload, {**file, "fileName": "b"}), 400),
        (client.path(upload, {**file, "id": "a" * 16}), 404),
        (client.path(other, file), 404),
        (client.path(upload, {**file, "id": "upload.json"}), 404),
        (client.path(upload, {**file, "id": "..%2f..%2fx"}), 404),
        (f"/file/..%2f{upload['id']}/{file['id']}/a.bin", 404),
    ):
        assert (await client.ask("GET", path))[0] == status


@pytest.mark.asyncio
async def test_a_download_that_stalls_is_dropped(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await client.create()
    file = await client.add(upload, bytes(30_000_000))
    monkeypatch.setattr(fileform, "STALL_S", 0.2)
    reader, writer = await client.raw()
    writer.write(f"GET {client.path(upload, file)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await answer_head(reader)
    await asyncio.sleep(0.6)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(reader.readexactly(30_000_000), 3)
    writer.close()


@pytest.mark.asyncio
async def test_bytes_that_went_missing_cut_the_connection(client: Client) -> None:
    upload = await client.create()
    file = await client.add(upload, bytes(1_000_000))
    path = client.folder / f"{upload['id']}.upload" / file["id"]
    os.truncate(path, 500_000)
    with pytest.raises(aiohttp.ClientError):
        await client.ask("GET", client.path(upload, file))
    path.unlink()
    status, _, body = await client.ask("GET", client.path(upload, file))
    assert (status, body) == (500, b"internal server error\n")


@pytest.mark.asyncio
async def test_files_belong_to_the_download_domain_where_there_is_one(tmp_path: Path) -> None:
    async with running(tmp_path, download_domain="http://files.test:81/") as client:
        upload = await client.create()
        assert upload["downloadDomain"] == "http://files.test:81"
        assert json.loads((await client.ask("GET", "/config"))[2])["downloadDomain"] != ""
        file = await client.add(upload, b"x")
        path = client.path(upload, file)
        status, headers, _ = await client.ask("GET", path)
        assert (status, headers["Location"]) == (301, f"http://files.test:81{path}")
        assert (await client.ask("GET", path, {"Host": "files.test:81"}))[2] == b"x"


# Removing


@pytest.mark.asyncio
async def test_a_removable_file_is_removed_by_anybody_and_twice(client: Client) -> None:
    upload = await client.create(removable=True)
    file, other = await client.add(upload, b"x"), await client.add(upload, b"y")
    for _ in range(2):
        status, _, body = await client.ask("DELETE", client.path(upload, file))
        assert (status, body) == (200, b"ok")
    assert (await client.ask("GET", client.path(upload, file)))[0] == 404
    assert (await client.ask("GET", client.path(upload, other)))[2] == b"y"
    assert client.on_disk(upload) == {"upload.json", other["id"]}


@pytest.mark.asyncio
async def test_what_is_not_removable_wants_the_token(client: Client) -> None:
    upload = await client.create()
    file = await client.add(upload, b"x")
    path, whole = client.path(upload, file), f"/upload/{upload['id']}"
    for headers in ({}, {"X-UploadToken": "x"}, {"X-UploadToken": "é"}):
        status, _, body = await client.ask("DELETE", path, headers)
        text = b"you are not allowed to remove files from this upload\n"
        assert (status, body) == (403, text)
        assert (await client.ask("DELETE", whole, headers))[0] == 403
    token = {"X-UploadToken": upload["uploadToken"]}
    for _ in range(2):
        assert (await client.ask("DELETE", path, token))[0] == 200
    assert (await client.ask("DELETE", whole, token))[0] == 200
    assert (await client.ask("DELETE", whole, token))[0] == 404
    assert client.uploads() == set()


@pytest.mark.asyncio
async def test_an_upload_lists_its_files_and_shows_its_token_to_its_owner(client: Client) -> None:
    upload = await client.create()
    assert json.loads((await client.ask("GET", f"/upload/{upload['id']}"))[2])["files"] == []
    file = await client.add(upload, b"x")
    _, _, body = await client.ask("GET", f"/upload/{upload['id']}")
    shown = json.loads(body)
    assert shown["files"] == [file]
    assert (shown["admin"], "uploadToken" in shown) == (False, False)
    token = {"X-UploadToken": upload["uploadToken"]}
    _, _, body = await client.ask("GET", f"/upload/{upload['id']}", token)
    assert json.loads(body)["uploadToken"] == upload["uploadToken"]


# Time, restarts, what is on disk


@pytest.mark.asyncio
async def test_an_expired_upload_is_refused_at_once_and_swept_later(tmp_path: Path) -> None:
    async with running(tmp_path, sweep_interval=1.5) as client:
        upload = await client.create(ttl=1)
        kept = await client.create(ttl=60)
        file = await client.add(upload, b"x")
        assert (await client.ask("GET", client.path(upload, file)))[0] == 200
        await asyncio.sleep(1.1)
        status, _, body = await client.ask("GET", client.path(upload, file))
        assert (status, body.decode()) == (404, f"upload {upload['id']} has expired\n")
        assert client.uploads() == {upload["id"], kept["id"]}
        await until(lambda: client.uploads() == {kept["id"]})


@pytest.mark.asyncio
async def test_a_restart_keeps_what_has_not_expired(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        upload = await client.create(removable=True)
        file, gone = await client.add(upload, b"x", "é"), await client.add(upload, b"y")
        short = await client.add(upload, b"12345")
        await client.ask("DELETE", client.path(upload, gone))
        await client.create(ttl=1)
    folder = tmp_path / f"{upload['id']}.upload"
    os.truncate(folder / short["id"], 3)
    (folder / f"{'c' * 16}.part").write_bytes(b"half")
    (tmp_path / f"{'d' * 16}.upload").mkdir()
    (tmp_path / f"{'d' * 16}.upload" / ("e" * 16)).write_bytes(b"no metadata")
    (tmp_path / "somebody else's.upload").mkdir()
    await asyncio.sleep(1.1)
    async with running(tmp_path) as client:
        assert client.uploads() == {upload["id"], "somebody else's"}
        assert client.on_disk(upload) == {"upload.json", file["id"]}
        assert (await client.ask("GET", client.path(upload, file)))[2] == b"x"
        token = {"X-UploadToken": upload["uploadToken"]}
        _, _, body = await client.ask("GET", f"/upload/{upload['id']}", token)
        shown = json.loads(body)
        assert [each["status"] for each in shown["files"]] == ["uploaded", "deleted", "deleted"]
        assert (shown["expireAt"], shown["removable"]) == (upload["expireAt"], True)
        await client.add(upload, b"more")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: text.replace('"ttl": 60', '"ttl": "x"'),
        lambda text: text.replace('"ttl": 60', '"ttl": 1e300'),
        lambda text: text.replace('"files": []', '"files": [{"id": "../../victim"}]'),
        lambda text: text.replace('"id": "', '"id": "../'),
    ],
)
@pytest.mark.asyncio
async def test_damaged_metadata_is_left_alone_and_served_to_nobody(
    tmp_path: Path, damage: Callable[[str], str]
) -> None:
    async with running(tmp_path) as client:
        upload = await client.create(ttl=60)
    path = tmp_path / f"{upload['id']}.upload" / "upload.json"
    damaged = damage(path.read_text("utf-8"))
    path.write_text(damaged, "utf-8")
    async with running(tmp_path) as client:
        assert (await client.ask("GET", f"/upload/{upload['id']}"))[0] == 404
        await client.create()
    assert path.read_text("utf-8") == damaged


@pytest.mark.asyncio
async def test_stopping_cuts_transfers_and_leaves_no_half_file(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        upload = await client.create()
        file = await client.add(upload, bytes(30_000_000))
        writer = await begin(client, upload, "Content-Length: 1000000")
        reader, download = await client.raw()
        download.write(f"GET {client.path(upload, file)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await answer_head(reader)
        start = time.monotonic()
        await client.server.stop()
        assert time.monotonic() - start < 2 * fileserver.STOP_S + 1
        assert client.on_disk(upload) == {"upload.json", file["id"]}
        assert client.server.url == ""
    writer.close()
    download.close()


# Addresses and tokens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_an_address_that_others_reach_wants_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(NATSBridgeError, match="token") as caught:
        FileServer(tmp_path, host=host)
    assert caught.value.code == INVALID_ARGUMENT
    FileServer(tmp_path, host=host, token="secret")


@pytest.mark.asyncio
async def test_with_a_token_creating_wants_it_and_downloading_does_not(tmp_path: Path) -> None:
    async with running(tmp_path, host="0.0.0.0", token="secret") as client:
        assert client.url.startswith("http://127.0.0.1:")
        status, _, body = await client.ask("POST", "/upload")
        text = b"unable to create upload : anonymous uploads are disabled\n"
        assert (status, body) == (400, text)
        for wrong in ("secreT", "é"):
            status, _, body = await client.ask("POST", "/upload", {"X-PlikToken": wrong})
            assert (status, body) == (403, b"invalid token\n")
        login = {"Authorization": "Basic " + base64.b64encode(b"me:wrong").decode()}
        assert (await client.ask("POST", "/upload", login))[0] == 403
        login = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
        assert (await client.ask("POST", "/upload", login))[0] == 200
        assert (await client.ask("POST", "/upload", {"Authorization": "Basic !"}))[0] == 400
        status, _, body = await client.ask("POST", "/upload", {"X-PlikToken": "secret"})
        assert status == 200
        upload = json.loads(body)
        file = await client.add(upload, b"x")
        assert (await client.ask("GET", client.path(upload, file)))[2] == b"x"
        config = json.loads((await client.ask("GET", "/config"))[2])
        assert (config["noAnonymousUploads"], config["feature_authentication"]) == (True, "forced")


@pytest.mark.asyncio
async def test_without_a_token_a_wrong_one_is_accepted(client: Client) -> None:
    assert (await client.ask("POST", "/upload", {"X-PlikToken": "wrong"}))[0] == 200


@pytest.mark.parametrize(
    "options",
    [
        {"token": "a\nb"},
        {"token": "é"},
        {"default_ttl": 0},
        {"default_ttl": 10, "max_ttl": 9},
        {"max_ttl": 10**12},
        {"download_domain": "files.test"},
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(NATSBridgeError) as caught:
        FileServer(tmp_path, **options)
    assert caught.value.code == INVALID_ARGUMENT


@pytest.mark.asyncio
async def test_a_port_or_folder_that_cannot_be_used_is_named(client: Client) -> None:
    taken = FileServer(client.folder / "other", port=client.port)
    (client.folder / "file").write_bytes(b"")
    for server in (taken, FileServer(client.folder / "file")):
        with pytest.raises(NATSBridgeError, match=r"cannot use .* or listen on") as caught:
            await server.start()
        assert caught.value.code == INVALID_ARGUMENT
        await server.stop()


@pytest.mark.asyncio
async def test_many_clients_at_once_are_served(client: Client) -> None:
    async def one(number: int) -> None:
        data = number.to_bytes(2, "big") * 50_000
        upload = await client.create(oneShot=number % 2 == 0)
        file = await client.add(upload, data)
        assert (await client.ask("GET", client.path(upload, file)))[2] == data

    await asyncio.gather(*(one(number) for number in range(50)))


# The program


@contextlib.contextmanager
def program(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "natsbridge.fileserver", "--folder", str(folder), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_prints_its_url_and_ends_cleanly(tmp_path: Path, number: int) -> None:
    with program(tmp_path / "new") as process:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
            process.send_signal(number)
            out, err = process.communicate(timeout=5)
        assert (process.returncode, out, err) == (0, "", "")


def test_the_program_says_in_one_line_why_it_cannot_run(tmp_path: Path) -> None:
    with program(tmp_path, "--host", "0.0.0.0") as process:
        out, err = process.communicate(timeout=5)
        assert (process.returncode, out) == (1, "")
        assert err.startswith("INVALID_ARGUMENT: ")
        assert err.count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.asyncio
async def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    size = 150 << 20

    async def big() -> AsyncIterator[bytes]:
        yield form(b"", end=b"")
        for _ in range(size >> 20):
            yield bytes(1 << 20)
        yield b"\r\n--B--\r\n"

    def peak(process: subprocess.Popen[str]) -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    with program(tmp_path) as process:
        url = await asyncio.to_thread(process.stdout.readline)
        async with aiohttp.ClientSession(headers=AGENT) as session:
            stub: Any = SimpleNamespace(url=url.strip())
            client = Client(stub, tmp_path, session)
            upload = await client.create()
            small = await client.add(upload, b"x")
            await client.ask("GET", client.path(upload, small))
            before = peak(process)
            status, text = await client.send(upload, big())
            assert (status, json.loads(text)["fileSize"]) == (200, size)
            async with session.get(client.url + client.path(upload, json.loads(text))) as answer:
                got = 0
                async for data in answer.content.iter_any():
                    got += len(data)
            assert got == size
        assert peak(process) - before < 12 << 20
