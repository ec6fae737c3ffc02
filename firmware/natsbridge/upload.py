"""Uploads to a Plik file server: the links of a message on their way out.

What Plik really does: the id of a file whose upload failed can't be used again, so each attempt
adds a file to the same upload, and the answer's size and MD5 are compared with what was sent.
"""

import hashlib
import json
from binascii import hexlify

from micropython import const

from .errors import UPLOAD_FAILED, NATSBridgeError, fail
from .http import Connection, Fault, read
from .log import trace, uuid4
from .source import link

_CHUNK = const(1024)  # bytes of a file that are read and sent at a time
_ANSWER = const(4096)  # bytes of an answer's JSON


def upload_links(
    nc,
    env,
    sources,
    links,
    home,
    url,
    handler,
    fallback_direct,
    on_progress,
    deadline,
    buf,
    done,
):
    """Upload what `links` ({index: (source, value)}) took out of `sources`, through `buf`, and
    write the URLs into the envelope; append (URL, token) to `done`, for recover.undo.

    Returns why an upload failed that goes direct instead, if the message is not too large for that;
    raises UPLOAD_FAILED if an upload fails and may not, or can't.
    """
    failed = None
    job = Upload(home, nc, deadline)
    # Whoever knows a URL may delete its file, where the message names who that is.
    removable = (env["receiver_id"] or env["receiver_name"]) != ""
    job.form = {"ttl": 86400, "removable": removable, "oneShot": False}
    job.correlation_id = env["correlation_id"]
    job.on_progress = on_progress
    job.buf = buf or bytearray(_CHUNK + 8)  # one that is in another send has none
    if handler:
        from .plik import use_handler

        use_handler(job, handler, url)
    for i in links:
        p = env["payloads"][i]
        source, value = links[i]
        try:
            url, size, digest = job.send(p["dataname"], source, value)
            if job.token:
                done.append((url, job.token))
        except NATSBridgeError as e:
            size = source.size
            if not fallback_direct or size is None or e.code != UPLOAD_FAILED:
                raise
            if size > nc.max_payload // 4 * 3:
                raise
            link(env, sources, i, links[i])
            trace(job.correlation_id, "direct: %s" % e)
            failed = e
            continue
        p["data"] = url
        p["size"] = size
        p["metadata"] = {
            "payload_bytes": size,
            "sha256": digest,
            "removable": job.form["removable"],
        }
    return failed


class Upload(Connection):
    """Uploads of payloads, one after another. Attributes:

    form: what an upload's creation asks for; ttl (s), 0 for the server's default.
    buf: a bytearray of 1,032 bytes to read through.
    id, token: of the upload on the server; file: the id of the file in it.
    """

    code = UPLOAD_FAILED
    pauses = (100, 5000)  # ms: see recover.again
    handler = None

    def send(self, dataname, source, value):
        """Upload a payload's Source: (URL, size, SHA-256)."""
        trace(self.correlation_id, "%s %s: %s" % ("POST", dataname, source.size))
        self.dataname = dataname
        self.source = source
        self.url = self.base
        self.id = self.token = ""
        # What has no size can't be read again.
        self.tries = (1 if source.size is None else 5,) + self.pauses
        if self.handler:
            from .plik import upload_by

            return upload_by(self, value)
        return self.run()

    def attempt(self):
        """Upload once. Raises Fault where another attempt may help."""
        while not self.id:
            start = json.dumps(self.form)
            head = "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(start)
            self.request("POST", self.under("/upload"), head, start)
            head = start = None  # the answer needs more
            self.server = self.base
            answer = self.loads("uploadToken")
            if answer:  # else the ttl was too long, and there is another one now
                self.token = answer["uploadToken"]
                self.id = answer["id"]
            answer = None  # it takes kilobytes
        name = safe(self.dataname[:64]) or "payload"  # under which the file is stored
        head = uuid4()
        start = '--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
        start %= (head, name)
        end = "\r\n--%s--\r\n" % head
        head = "Content-Type: multipart/form-data; boundary=%s\r\n" % head
        source = self.source
        size = source.size
        if size is None:
            from .recover import write_chunk

            head += "Transfer-Encoding: chunked\r\n"
            start = "%x\r\n%s\r\n" % (len(start), start)
            end = "%x\r\n%s\r\n0\r\n\r\n" % (len(end), end)
        else:
            head += "Content-Length: %d\r\n" % (len(start) + size + len(end))
            source.rewind()
        self.request("POST", self.under("/file/" + self.id), head, start)
        head = start = None
        push(self, 0)
        sha256 = hashlib.sha256()
        md5 = hashlib.md5() if hasattr(hashlib, "md5") else None
        view = memoryview(self.buf)[6 : 6 + _CHUNK]
        fill = source.fill
        write = self.write
        progress = self.on_progress
        at = 0
        more = True
        while more and at != size:
            part = view
            if size is not None and size - at < _CHUNK:
                part = view[: size - at]
            n = fill(part, len(part), self.dataname)
            if not n:
                break
            if n < _CHUNK:
                part = view[:n]
            sha256.update(part)
            if md5:
                md5.update(part)
            at += n
            more = write_chunk(self, self.buf, n) if size is None else write(self.buf, 6, n)
            if more and progress:
                progress(self.dataname, at, size)
        push(self, 1)
        more = more and write(end, 0, len(end))
        answer = self.loads("id")
        if md5 and answer.get("fileMd5"):
            more = more and answer["fileMd5"] == str(hexlify(md5.digest()), "utf-8")
        if not more or answer.get("fileSize", at) != at:
            raise Fault("not stored")
        self.file = answer["id"]
        url = "%s/file/%s" % (self.server, self.id) + "/%s/%s" % (self.file, name)
        return url, at, str(hexlify(sha256.digest()), "utf-8")

    def loads(self, token):
        """The JSON answered, with an id and a token that can't break out of a URL or a header.
        None for a refusal that has been mended."""
        if self.answer() != 200:
            from .recover import refuse

            return refuse(self)
        try:
            answer = json.loads(read(self, min(_ANSWER, self.length or _ANSWER)))
            for key in ("id", token):
                if not answer[key] or safe(answer[key]) != answer[key]:
                    raise ValueError
            if answer.get("downloadDomain"):
                from .urls import parse, stem

                url = parse(answer["downloadDomain"])
                self.server = url[0] + stem(url)
            return answer
        except (ValueError, KeyError, TypeError, AttributeError, MemoryError):
            raise fail(UPLOAD_FAILED, "plik", self.base, url=self.base)


def push(job, now):
    """Whether each piece goes out as it is written (1), or waits for the next ones until their
    packet is full (0): a third fewer packets (TCP_NODELAY)."""
    try:
        job.stream.raw.setsockopt(6, 1, now)
    except (OSError, ValueError, NotImplementedError):
        pass  # not on this port


def safe(text):
    """`text` as it can stand in a URL and in a header: other characters, and dots at its beginning,
    become underscores."""
    name = ""
    for i in range(len(text)):
        c = text[i : i + 1]  # as in files.py
        name += c if c.isalpha() or c.isdigit() or c in "._-" else "_"  # (é is no letter here)
    text = name.lstrip(".")
    return "_" * (len(name) - len(text)) + text
