"""Uploads to a Plik file server: the links of a message on their way out.

What Plik really does: the id of a file whose upload failed can't be used again, so each attempt
adds a file to the same upload, and the answer's size and MD5 are compared with what was sent.
"""

import hashlib
import json
import os
from binascii import hexlify

from micropython import const

from .errors import UPLOAD_FAILED, NATSBridgeError
from .http import Connection, Fault
from .log import trace

TTL = 86400  # s
_ATTEMPTS = const(5)
_BASE_DELAY = const(100)  # ms
_MAX_DELAY = const(5000)
_CHUNK = const(1024)  # bytes of a file that are read and sent at a time
_ANSWER = const(4096)  # bytes of an answer's JSON
_SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


def upload_links(
    nc, msg_json, links, url, handler, fallback_direct, on_progress, deadline, buf, done
):
    """Upload what `links` ({index: (source, value)}) took out of `msg_json`, through `buf`, and
    write the URLs into its envelope; append to `done` what plik.upload answered.

    Raises UPLOAD_FAILED if an upload fails and may not, or can't, go direct instead.
    """
    if url is None:
        from . import setting

        url = setting("FILESERVER_URL", "http://localhost:8080")
    env = msg_json.env
    cid = env["correlation_id"]
    oneshot = False
    ours = handler is None
    if handler:
        from .plik import plik_oneshot_upload, plik_upload

        oneshot = handler is plik_oneshot_upload
        ours = oneshot or handler is plik_upload
    removable = ours and not oneshot and (env["receiver_id"] or env["receiver_name"]) != ""
    for i in links:
        p = env["payloads"][i]
        name = p["dataname"]
        source, value = links[i]
        trace(cid, "Uploading %r (%s bytes) to %s" % (name, source.size, url))
        try:
            if ours:
                answer = upload(
                    url,
                    name,
                    source,
                    removable=removable,
                    oneshot=oneshot,
                    correlation_id=cid,
                    on_progress=on_progress,
                    idle=nc.serve,
                    deadline=deadline,
                    buf=buf,
                )
                done.append(answer)
            else:
                from .handover import upload_by

                answer = upload_by(handler, url, name, source, value)
        except NATSBridgeError as e:
            if not fallback_direct or source.size is None or e.code != UPLOAD_FAILED:
                raise
            msg_json.link(i, links[i])
            if len(msg_json) > nc.max_payload:
                raise
            trace(cid, "%s; sending %r direct" % (e, name))
            continue
        p["data"] = answer["url"]
        p["size"] = answer["size"]
        p["metadata"] = {
            "payload_bytes": answer["size"],
            "sha256": answer["sha256"],
            "removable": removable,
        }


def upload(
    url,
    dataname,
    source,
    ttl=TTL,
    removable=False,
    oneshot=False,
    correlation_id="",
    on_progress=None,
    idle=None,
    deadline=None,
    buf=None,
):
    """Upload a payload's Source: results and errors as of `plik_upload`.

    idle: called at least every 100 ms; deadline: a time.ticks_ms() value. A source of unknown
    size gets one attempt. buf: a bytearray of 1,032 bytes to read through, None to allocate one.
    """
    job = _Upload(url, dataname, source, on_progress, correlation_id, idle, deadline)
    job.buf = buf or bytearray(_CHUNK + 8)  # with room for a chunk's size before, its end after
    job.view = memoryview(job.buf)[6 : 6 + _CHUNK]
    job.form = {"ttl": ttl, "removable": removable, "oneShot": oneshot}
    try:
        try:
            result = job.attempt()
        except Fault as e:
            from .retry import again

            tries = 1 if source.size is None else _ATTEMPTS
            result = again(job, e, tries, _BASE_DELAY, _MAX_DELAY)
    except Exception:
        if job.id:
            _tidy(job, "")
        raise
    if job.tries > 1:
        _tidy(job, result["fileid"])
    trace(correlation_id, "Uploaded %d bytes to %s" % (job.done, result["url"]))
    return result


def _tidy(job, kept):
    """Remove what failed attempts left behind: all but the file `kept`, or the whole upload."""
    try:
        from .plikadmin import remove, remove_others

        if kept:
            remove_others(job.base, job.id, job.token, kept, job.correlation_id)
        else:
            remove("%s/upload/%s" % (job.base, job.id), job.token, job.correlation_id)
    except MemoryError:
        pass  # the upload's own outcome matters more; the server forgets the rest by itself


class _Upload:
    """One upload of one file, with as many attempts as it takes."""

    code = UPLOAD_FAILED
    tries = 1
    id = ""

    def __init__(self, url, dataname, source, on_progress, correlation_id, idle, deadline):
        self.url = url
        self.deadline = deadline
        self.idle = idle
        self.correlation_id = correlation_id
        self.dataname = dataname
        self.source = source
        self.on_progress = on_progress
        self.what = "%r can't be uploaded to %s: " % (dataname, url)
        self.connection = Connection(url, deadline, idle)
        self.root = self.connection.path.split("?")[0].rstrip("/")
        self.base = self.domain = self.connection.origin + self.root
        name = ""  # under which it is stored: safe in a URL and in a header
        for c in dataname[:64]:
            name += c if c in _SAFE or c == "." else "_"
        bare = name.lstrip(".")
        self.name = "_" * (len(name) - len(bare)) + bare or "payload"

    def _error(self, why):
        return NATSBridgeError(self.code, self.what + why, {"url": self.url})

    def attempt(self):
        """Upload once: the result. Raises Fault where another attempt may help."""
        try:
            if not self.id:
                self._create()
            file = self._send()
        finally:
            self.connection.close()
        return {
            "status": 200,
            "uploadid": self.id,
            "fileid": file,
            "url": "%s/file/%s/%s/%s" % (self.domain, self.id, file, self.name),
            "size": self.done,
            "sha256": str(hexlify(self.sha256.digest()), "utf-8"),
            "uploadtoken": self.token,
        }

    def _create(self):
        """Make the upload: its id, token and domain."""
        form = self.form
        body = json.dumps(form)
        headers = ("Content-Type: application/json", "Content-Length: %d" % len(body))
        self.connection.request("POST", self.root + "/upload", headers, body)
        try:
            answer = self._answer("uploadToken")
        except NATSBridgeError as e:
            if e.details.get("status") != 400 or not form["ttl"]:
                raise
            form["ttl"] = 0  # one that is longer than the server allows; its default never is
            self._create()
            return
        if answer.get("downloadDomain"):
            from .urls import parse

            parse(answer["downloadDomain"], self.code)
            self.domain = answer["downloadDomain"].rstrip("/")
        self.token = answer["uploadToken"]
        self.id = answer["id"]

    def _answer(self, token="id"):
        """The JSON answered, with an id and a token that can't break out of a URL or a header."""
        connection = self.connection
        if connection.answer().status != 200:
            from .retry import refusal

            raise refusal(connection, self)
        try:
            answer = json.loads(connection.body(_ANSWER))
            for key in ("id", token):
                if not 0 < len(answer[key]) <= 128 or answer[key].strip(_SAFE):
                    raise ValueError
            return answer
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._error("what answers there is not a Plik server")

    def _send(self):
        """Send the file: its id."""
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5() if hasattr(hashlib, "md5") else None
        self.done = 0
        size = self.source.size
        boundary = str(hexlify(os.urandom(16)), "utf-8")
        start = (
            '--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n" % (boundary, self.name)
        )
        end = "\r\n--%s--\r\n" % boundary
        if size is None:
            from .chunked import write_chunk

            self._write_chunk = write_chunk
            length = "Transfer-Encoding: chunked"
            start = "%x\r\n%s\r\n" % (len(start), start)
            end = "%x\r\n%s\r\n0\r\n\r\n" % (len(end), end)
        else:
            length = "Content-Length: %d" % (len(start) + size + len(end))
            self.source.rewind()
        kind = "Content-Type: multipart/form-data; boundary=" + boundary
        headers = (length, kind, "X-UploadToken: " + self.token)
        self.connection.request("POST", "%s/file/%s" % (self.root, self.id), headers, start)
        whole = self._data(size) and self.connection.write(end)
        answer = self._answer()
        if whole and self.md5 and answer.get("fileMd5"):
            whole = answer["fileMd5"] == str(hexlify(self.md5.digest()), "utf-8")
        if not whole or answer.get("fileSize", self.done) != self.done:
            raise Fault("the server did not store the %d bytes sent" % self.done, 200, 0)
        return answer["id"]

    def _data(self, size):
        """Read, hash and write the source's bytes: False once the server takes no more."""
        while self.done != size:
            buf = self.view
            if size is not None and size - self.done < _CHUNK:
                buf = buf[: size - self.done]
            try:
                n = self.source.readinto(buf)
            except OSError as e:
                raise self._error("its source can't be read: %s" % e)
            if not n:
                if n == 0 and size is None:
                    break
                raise self._error("its source gave %r after %d bytes of %s" % (n, self.done, size))
            if n < _CHUNK:
                buf = buf[:n]
            self.sha256.update(buf)
            if self.md5:
                self.md5.update(buf)
            self.done += n
            if size is None:
                more = self._write_chunk(self.connection, self.buf, n)
            else:
                more = self.connection.write(self.buf, 6, n)
            if not more:
                return False
            if self.on_progress:
                self.on_progress(self.dataname, self.done, size)
        return True
