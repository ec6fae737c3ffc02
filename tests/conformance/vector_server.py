"""The file server of the vectors: serves a case's files, and takes uploads the way Plik does.

Standard library only. It speaks to one case at a time: `serve(files)` forgets the last one.
"""

import base64
import hashlib
import json
import posixpath
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import vectors

_PART = re.compile(rb'name="file"; *filename="((?:[^"\\]|\\.)*)"')


class VectorServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1; use as a context manager.

    `url` has no path; `deleted` lists the paths that were asked to be deleted.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.serve({})

    def serve(self, files: dict[str, dict[str, Any]]) -> None:
        """Serves these file specs by path, and nothing else."""
        self.files = {path: dict(spec) for path, spec in files.items()}
        self.deleted: list[str] = []
        self.uploads: dict[str, str] = {}

    def stored(self) -> list[str]:
        """The paths of files that are served and were not deleted."""
        return [path for path in self.files if path not in self.deleted]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that hangs up on an answer it refuses."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self) -> "VectorServer":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: VectorServer

    def _path(self) -> str:
        """The request's path, percent-decoded and with dot segments resolved."""
        path = unquote(urlsplit(self.path).path)
        return posixpath.normpath(path) if path != "/" else path

    def do_GET(self) -> None:
        spec = self.server.files.get(self._path())
        if spec is None:
            self._answer(404, b"not found")
            return
        if spec.get("fail_first", 0) > 0:
            spec["fail_first"] -= 1
            self._answer(503, b"try again")
            return
        body = vectors.content(spec)
        self.send_response(spec.get("status", 200))
        for name, value in spec.get("headers", {}).items():
            self.send_header(name, value)
        if spec.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(
                b"%x\r\n%s\r\n" % (len(chunk), chunk)
                for chunk in (body[i : i + 1000] for i in range(0, len(body), 1000))
            )
            body += b"0\r\n\r\n"
        elif spec.get("status") != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: spec.get("cut", len(body))])
        self.close_connection = "cut" in spec or self.close_connection

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.server.deleted.append(self._path())
        self._answer(200, b"ok")

    def do_POST(self) -> None:
        body = self._body()
        path = self._path()
        if path == "/upload":
            options = json.loads(body or b"{}")
            upload = f"U{len(self.server.uploads) + 1}"
            self.server.uploads[upload] = f"token-{upload}"
            answer = {**options, "id": upload, "uploadToken": f"token-{upload}", "files": []}
            self._json({**answer, "downloadDomain": ""})
            return
        upload = path.removeprefix("/file/")
        if self.server.uploads.get(upload) != self.headers.get("X-UploadToken", ""):
            self._answer(403, b"invalid upload token")
            return
        boundary = str(self.headers.get_param("boundary", "", "content-type")).encode()
        head, _, rest = body.partition(b"\r\n\r\n")
        content, found, _ = rest.partition(b"\r\n--" + boundary)
        part = _PART.search(head)
        if not boundary or not found or part is None:
            self._answer(400, b"bad multipart body")
            return
        name = unquote(part[1].decode())
        file_id = f"F{len(self.server.files) + 1}"
        encoded = base64.b64encode(content).decode()
        self.server.files[f"/file/{upload}/{file_id}/{name}"] = {"base64": encoded}
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        about = {"id": file_id, "fileName": name, "fileSize": len(content), "fileMd5": digest}
        self._json({**about, "status": "uploaded", "fileType": "application/octet-stream"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No log: the test report is the log."""
