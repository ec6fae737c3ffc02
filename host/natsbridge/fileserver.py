"""A file server for link payloads, inside this package: the part of Plik that NATSBridge uses.

    python -m natsbridge.fileserver --folder DIR

It answers as Plik 1.3.8 does (github.com/root-gg/plik; FACTS, "Plik"), its traps included, so that
what works here works there: a one-shot file is gone at the first GET, too large is a 400, an
upload's answer calls itself text/plain, and a failed download leads a browser to a web page with
status 200. Plik's users, passwords, streams, archives and lists are left out.

Ours is the rule that a server which others can reach wants a token for creating uploads. It is
sent as Plik's user token, in X-PlikToken, or as the password of a login in the server's URL.
Whoever has a file's URL can download it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import hmac
import ipaddress
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from aiohttp import BasicAuth, ClientError, web

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.fileform import Form, moving, read_options, refusal
from natsbridge.filestore import UPLOADED, File, FileStore, TooLarge, Upload
from natsbridge.log import Formatter, logger, trace
from natsbridge.urls import is_loopback

__all__ = ["FileServer", "main"]

#: Plik's own limits: files of one upload, UTF-8 bytes of a name, bytes of the options.
MAX_FILES = 1000
MAX_NAME = 1024
MAX_OPTIONS = 1 << 20
#: Seconds in 30 years, so that every expiry is a date.
MAX_TTL = 30 * 365 * 86400
#: Bytes read from disk at a time.
PIECE = 128 << 10
#: Seconds for which the rest of a refused body is still read, so that the answer is, too.
LINGER_S = 1.0
#: Seconds that running transfers get to end when the server stops, and again to clean up.
STOP_S = 0.5
#: Plik answers these (lower case) with the error itself, and anything else with a redirect to its
#: web page. The spelling is Plik's.
PLAIN_AGENTS = (
    *("wget", "curl", "python-urllib", "libwwww-perl"),
    *("php", "pycurl", "go-http-client", "plik_client"),
)
PAGE = (
    "<!DOCTYPE html><meta charset=utf-8><title>NATSBridge file server</title>"
    "<h1>NATSBridge file server</h1><p>Files are kept here for a while and fetched by their URL."
)

#: What a full disk, or a user's share of it, is called; and what is answered then. Plik tells why
#: only in its Debug mode, else "internal server error".
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE = "unable to save file : no space left on the file server's disk"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _moved(location: str) -> web.Response:
    return web.Response(status=301, headers={"Location": location}, content_type="text/html")


def _unusable(message: str) -> NATSBridgeError:
    return NATSBridgeError(INVALID_ARGUMENT, message)


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _password(request: web.Request) -> str:
    """Return the password of a login in the file server's URL, which is what a device can give."""
    try:
        login = BasicAuth.decode(request.headers.get("Authorization", ""), "utf-8")
    except ValueError:
        return ""
    return str(login.password)


def _url(host: str, port: int) -> str:
    ipv6 = ":" in host
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ipv6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if ipv6 else f"http://{host}:{port}"


def _human(size: int) -> str:
    """Return a number of bytes as Plik writes it: 500 B, 1.0 kB, 10 GB."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.{1 if size >= 1000 and value < 10 else 0}f} {units[0]}"


def _read(stream: BinaryIO, size: int) -> bytes:
    """Return the next bytes of a body whose headers are sent: a fault can only cut it off."""
    try:
        if data := stream.read(size):
            return data
    except OSError as e:
        raise ConnectionAbortedError(f"cannot read: {e}") from e
    raise ConnectionAbortedError("the file is shorter than it was")


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what went wrong: to a browser that wanted a file, as Plik does, with its web page."""
    try:
        return await handler(request)
    except ConnectionError as e:
        # Nobody is left to answer, or a body is under way: the connection has to go.
        trace("", f"file server: {request.method} {request.path}: {e}")
        if request.transport:
            request.transport.abort()
        return web.Response()
    except web.HTTPException as e:
        error = e
    except OSError as e:
        logger.error("file server: %s %s: %s", request.method, request.path, e)
        error = refusal(500, NO_SPACE if e.errno in FULL else "internal server error")
    if not request.content.at_eof():
        error.force_close()
    agent = request.headers.get("User-Agent", "").lower()
    is_download = "file" in request.match_info and request.method in ("GET", "HEAD")
    if is_download and not agent.startswith(PLAIN_AGENTS):
        message = quote((error.text or "").strip())
        return _moved(f"/#/?err={message}&errcode={error.status}&uri={request.rel_url}")
    raise error


class FileServer:
    """The server; `async with FileServer(folder) as server:` runs it.

    Args:
        folder: where the uploads are kept; made if need be. One server at a time.
        host: the address to listen on.
        port: 0 for a free one.
        token: what creating an upload asks for, "" for nothing. An address that other machines
            can reach needs one.
        max_file_size: in bytes.
        default_ttl, max_ttl: seconds that an upload is kept, when it does not say, and at most.
        download_domain: `scheme://host:port` that files are to be fetched from, if another than
            the server's own; requests under other names are redirected there.
        sweep_interval: seconds between searches for what has expired.
        on_trouble: called with one line when the folder cannot be written to, and then not before
            a file was taken again.

    Attributes:
        url: where the server is, from this machine; "" before it runs.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`; from `start` also when it cannot listen or write.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "",
        max_file_size: int = 10 * 10**9,
        default_ttl: int = 30 * 86400,
        max_ttl: int = 30 * 86400,
        download_domain: str = "",
        sweep_interval: float = 60,
        on_trouble: Callable[[str], object] = lambda text: None,
    ) -> None:
        if not token and not is_loopback(host):
            raise _unusable(
                f"the file server is to listen on {host!r}, where other machines reach it, without"
                " a token: give it one (token=..., --token), or listen on 127.0.0.1"
            )
        if not token.isascii() or not token.isprintable() or token != token.strip():
            raise _unusable("the token must be printable ASCII without spaces around it")
        if not 0 < default_ttl <= max_ttl <= MAX_TTL:
            raise _unusable(
                f"default_ttl {default_ttl} and max_ttl {max_ttl} must be seconds,"
                f" 0 < default_ttl <= max_ttl <= {MAX_TTL}"
            )
        domain = urlsplit(download_domain)
        if download_domain and not (domain.scheme in ("http", "https") and domain.netloc):
            raise _unusable(
                f"download_domain {download_domain!r} must be like https://files.example.com"
            )
        self.url = ""
        self._store = FileStore(folder)
        self._folder = folder
        self._host = host
        self._port = port
        self._token = token
        self._max_file_size = max_file_size
        self._default_ttl = default_ttl
        self._max_ttl = max_ttl
        self._download_domain = download_domain.rstrip("/")
        self._sweep_interval = sweep_interval
        self._on_trouble = on_trouble
        self._in_trouble = False
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Uploads from an earlier run that have not expired are there again."""
        app = web.Application(middlewares=[_answer_errors], client_max_size=MAX_OPTIONS)
        file = "/file/{upload}/{file}/{name:[^/]+}"
        app.router.add_get("/", self._get_page)
        app.router.add_get("/config", self._get_config)
        app.router.add_post("/upload", self._create)
        app.router.add_get("/upload/{upload}", self._get_upload)
        app.router.add_delete("/upload/{upload}", self._remove_upload)
        app.router.add_post("/file/{upload}", self._add_file)
        app.router.add_get(file, self._get_file)
        app.router.add_delete(file, self._remove_file)
        runner = web.AppRunner(
            app, access_log=None, logger=logger, lingering_time=LINGER_S, shutdown_timeout=STOP_S
        )
        try:
            self._store.load()
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as e:
            await runner.cleanup()
            raise _unusable(
                f"the file server cannot use {self._folder} or listen on"
                f" {self._host}:{self._port}: {e}. Choose another folder, address or port"
            ) from e
        self._runner = runner
        self._sweeper = asyncio.create_task(self._sweep())
        self.url = _url(*runner.addresses[0][:2])

    async def stop(self) -> None:
        """Stop listening; running transfers are cut."""
        if self._sweeper:
            self._sweeper.cancel()
            await asyncio.wait({self._sweeper})
        if self._runner:
            await self._runner.cleanup()
        self._runner = self._sweeper = None
        self.url = ""

    async def __aenter__(self) -> FileServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_interval)
            self._store.sweep()

    # What the URL names.

    def _upload(self, request: web.Request) -> Upload:
        upload_id = request.match_info["upload"]
        upload = self._store.get(upload_id)
        if not upload:
            raise refusal(404, f"upload {upload_id} not found")
        if upload.expired:
            raise refusal(404, f"upload {upload_id} has expired")
        return upload

    def _file(self, request: web.Request, upload: Upload) -> File:
        file = upload.files.get(request.match_info["file"])
        if not file:
            raise refusal(404, f"file {request.match_info['file']} not found")
        if file.name != request.match_info["name"]:
            raise refusal(400, "invalid file name")
        return file

    @staticmethod
    def _is_admin(request: web.Request, upload: Upload) -> bool:
        return _same(request.headers.get("X-UploadToken", ""), upload.token)

    # One method for each request.

    async def _get_page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _get_config(self, request: web.Request) -> web.Response:
        features = {
            **dict.fromkeys(("one_shot", "removable", "set_ttl"), "enabled"),
            **dict.fromkeys(("stream", "password", "comments", "extend_ttl"), "disabled"),
            "authentication": "forced" if self._token else "disabled",
        }
        return web.json_response(
            {
                "maxFileSize": self._max_file_size,
                "maxFilePerUpload": MAX_FILES,
                "defaultTTL": self._default_ttl,
                "maxTTL": self._max_ttl,
                "downloadDomain": self._download_domain,
                "downloadDomainAlias": None,
                **{f"feature_{name}": state for name, state in features.items()},
                # The same for clients from before Plik 1.3.6.
                "authentication": bool(self._token),
                "noAnonymousUploads": bool(self._token),
                "oneShot": True,
                "removable": True,
                "stream": False,
                "protectedByPassword": False,
            }
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Tell of an error of the disk's in the block."""
        try:
            yield
        except ConnectionError:
            raise
        except OSError as e:
            if e.errno and not self._in_trouble:
                self._in_trouble = True
                why = e.strerror or str(e)
                self._on_trouble(f"the file server cannot keep files in {self._folder}: {why}")
            raise

    async def _create(self, request: web.Request) -> web.Response:
        given = request.headers.get("X-PlikToken", "") or _password(request)
        if self._token and not given:
            raise refusal(400, "unable to create upload : anonymous uploads are disabled")
        if self._token and not _same(given, self._token):
            raise refusal(403, "invalid token")
        try:
            options = read_options(await moving(request.read()))
        except web.HTTPRequestEntityTooLarge:
            text = "unable to read request body : http: request body too large"
            raise refusal(400, text) from None
        ttl = options["ttl"] or self._default_ttl
        why = ""
        if options["stream"]:
            why = "stream mode is not enabled"
        elif options["login"] or options["password"]:
            why = "password protection is not enabled"
        elif ttl < 0:
            why = f"cannot set infinite TTL (maximum allowed is : {self._max_ttl})"
        elif ttl > self._max_ttl:
            why = f"invalid TTL. (maximum allowed is : {self._max_ttl})"
        if why:
            raise refusal(400, f"unable to create upload : {why}")
        with self._writing():
            upload = self._store.create(ttl, options["oneshot"], options["removable"])
        answer = upload.to_json(admin=True, download_domain=self._download_domain)
        answer["files"] = None
        return web.Response(text=json.dumps(answer), content_type="text/plain")

    async def _get_upload(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        admin = self._is_admin(request, upload)
        answer = upload.to_json(admin=admin, download_domain=self._download_domain)
        return web.json_response(answer)

    async def _remove_upload(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        if not upload.removable and not self._is_admin(request, upload):
            raise refusal(403, "you are not allowed to remove this upload")
        self._store.remove(upload)
        return web.Response(text="ok")

    async def _add_file(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        if not self._is_admin(request, upload):
            raise refusal(403, "you are not allowed to add file to this upload")
        form = Form(request)
        name = await form.name()
        if len(upload.files) >= MAX_FILES:
            text = f"maximum number file per upload reached, limit is {MAX_FILES}"
            raise refusal(400, text)
        if len(name.encode()) > MAX_NAME:
            text = f"unable to create file : file name {name[:20]}... is too long,"
            raise refusal(400, f"{text} maximum length is {MAX_NAME} characters")
        with self._writing(), self._store.add(upload, name, self._max_file_size) as incoming:
            try:
                async for data in form.data():
                    await asyncio.to_thread(incoming.write, data)
            except TooLarge:
                limit = _human(self._max_file_size)
                raise refusal(400, f"file too big (limit is set to {limit})") from None
            except (EOFError, ClientError):
                text = "unable to read data from request body : unexpected EOF"
                raise refusal(500, text) from None
            file = incoming.finish()
            self._in_trouble = False
            return web.json_response(file.to_json())

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        upload = self._upload(request)
        file = self._file(request, upload)
        if self._download_domain and request.host != urlsplit(self._download_domain).netloc:
            return _moved(f"{self._download_domain}{request.rel_url}")
        if file.status != UPLOADED:
            raise refusal(404, f"file {file.name} ({file.id}) is not available : {file.status}")
        response = web.StreamResponse(
            headers={
                "Content-Type": file.type or "application/octet-stream",
                "Content-Disposition": f'filename="{file.name}"',
            }
        )
        if upload.one_shot:
            response.headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
            response.headers["Pragma"] = "no-cache"
            response.headers["Expires"] = "0"
        if file.size:
            response.content_length = file.size
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        with self._store.open(upload, file) as stream:
            await response.prepare(request)
            left = file.size
            while left:
                data = await asyncio.to_thread(_read, stream, min(left, PIECE))
                await moving(response.write(data))
                left -= len(data)
        await response.write_eof()
        return response

    async def _remove_file(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        file = self._file(request, upload)
        if not upload.removable and not self._is_admin(request, upload):
            raise refusal(403, "you are not allowed to remove files from this upload")
        self._store.remove_file(upload, file)
        return web.Response(text="ok")


async def _serve(server: FileServer) -> None:
    stopped = asyncio.Event()
    # Windows has no signal handlers in its loop; there, Ctrl-C is a KeyboardInterrupt.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with server:
        print(server.url, flush=True)
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGINT or SIGTERM; its URL is printed once it listens."""
    parser = argparse.ArgumentParser("natsbridge.fileserver", description="Serve link payloads.")
    parser.add_argument("--folder", type=Path, required=True, help="where files are kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--token", default="", help="what creating an upload asks for")
    parser.add_argument("--max-file-size", type=int, default=10 * 10**9, help="bytes")
    parser.add_argument("--default-ttl", type=int, default=30 * 86400, help="seconds")
    parser.add_argument("--max-ttl", type=int, default=30 * 86400, help="seconds")
    parser.add_argument("--download-domain", default="", help="URL that files are fetched from")
    faults = logging.StreamHandler()
    faults.setFormatter(Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[faults])
    try:
        asyncio.run(_serve(FileServer(**vars(parser.parse_args(arguments)))))
    except NATSBridgeError as e:
        print(e, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
