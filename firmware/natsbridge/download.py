"""The links of a received message: fetched from where they may lead, verified, delivered once.

Only size and digest prove that a body is whole: a cut body is an error only where it had a
Content-Length, and Plik's web page answers 200 to those who follow its redirect.
"""

import hashlib
from binascii import hexlify

from micropython import const

from .errors import DOWNLOAD_FAILED, INTEGRITY_ERROR, fail
from .http import Connection, Fault
from .log import trace
from .sink import Target

_CHUNK = const(1024)  # bytes read and written at a time
_REDIRECTS = const(3)


class Claims(Connection):
    """Redeems the links of the envelope `env` for its receiver `nc`, one after another.

    A target has ``write(view)`` and ``rewind()``, after which all is written again; where that is
    False, an attempt that can't go on where the last one ended passes over what was written, once
    its digest has shown that it is still the same.
    """

    code = DOWNLOAD_FAILED
    asked = False  # for the file server's download domains

    def __init__(self, nc, env, sink, home, prefixes, deadline):
        super().__init__(home, nc, deadline)
        self.where = self.size = self.sha256 = self.target = self.done = self.hash = None
        self.total = None
        self.correlation_id = env["correlation_id"]
        self.sink = sink
        self.prefixes = prefixes

    def check(self, where, url):
        """Raise URL_NOT_ALLOWED if a payload's URL, or a redirection, leads elsewhere. where: see
        urls.parse, None if `url` is none."""
        if where:
            text = where[0] + where[1].split("?")[0].rstrip("/") + "/"
            for prefix in self.prefixes:
                if text.startswith(prefix):
                    return
        from .recover import widen

        widen(self, where, url)

    def fetch(self, item, handler, tries, on_progress, buf):
        """Fetch one payload into its target, through `buf` (1,024 bytes or more). tries: see
        recover.again."""
        self.dataname = name = item["dataname"]
        self.url = item["data"]
        self.where = item["where"]
        self.size = size = item.get("size")
        self.sha256 = (item["metadata"].get("sha256") or "").lower()
        self.tries = tries
        self.on_progress = on_progress
        self.buf = memoryview(buf or bytearray(_CHUNK))[:_CHUNK]
        trace(self.correlation_id, "%s %s: %s" % ("GET", name, self.url))
        target = None
        if handler:
            from .plik import download_by

            target = download_by(self, handler, item["payload_type"])
        if target is None:
            self.target = target = self.sink.open(name, item["payload_type"], size)
            self.done = 0
            got = self.run()
            if target is None:
                target = Target(got, memory=True)
                target.at = len(got)
        item["target"] = target

    def attempt(self):
        """Fetch once: the number of bytes, or, without a target, the bytes. Raises Fault where
        another attempt may help."""
        where = self.where
        size = self.size
        name = self.dataname
        if self.code != DOWNLOAD_FAILED:  # by the last attempt
            self.code = DOWNLOAD_FAILED
        for left in range(_REDIRECTS, -1, -1):
            self.request("GET", where, self.range if self.done else "", "")
            if self.answer() == 200 and not self.done:
                self.hash = hashlib.sha256()
                break
            from .recover import follow

            where = follow(self, left)
            if not where:
                break
        at = self.done
        self.total = total = size
        if self.length is not None:
            self.total = total = at + self.length
            self.fits(total, True)
        if self.target is None:
            from .plik import read_whole

            got = read_whole(self)
            at = len(got)
            self.fits(at, False)
            self.hash.update(got)
        else:
            buf = self.buf
            recv = self.recv
            update = self.hash.update
            write = self.target.write
            progress = self.on_progress
            most = self.sink.limit if size is None else size
            while True:
                try:
                    n = recv(buf, _CHUNK)
                except (OSError, ValueError) as e:
                    raise Fault(e)
                if not n:
                    break
                part = buf if n == _CHUNK else buf[:n]
                at += n
                if most is not None and at > most:
                    self.fits(at, False)
                update(part)
                write(part)
                self.done = at
                if progress:
                    progress(name, at, total)
            got = at
        if size is not None and at < size:
            self.code = INTEGRITY_ERROR
            raise Fault("%d bytes" % at)
        if self.sha256 and str(hexlify(self.hash.digest()), "utf-8") != self.sha256:
            raise fail(INTEGRITY_ERROR, "digest", name, url=self.url)
        return got

    def fits(self, at, end):
        """Raise if a body of `at` bytes or more (`end`: and no more) can't be the right one."""
        self.sink.check(self.dataname, at)
        size = self.size
        if size is not None and (at > size or end and at < size):
            raise fail(INTEGRITY_ERROR, "size", self.dataname, at, size, url=self.url)
