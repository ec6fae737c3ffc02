"""Downloads, streamed and verified.

Only size and digest prove that a body is whole: a cut body is an error only where it had a
Content-Length, and Plik's web page answers 200 to those who follow its redirect.
"""

import hashlib
from binascii import hexlify

from micropython import const

from .errors import DOWNLOAD_FAILED, INTEGRITY_ERROR, PAYLOAD_TOO_LARGE, NATSBridgeError
from .http import Connection, Fault

_CHUNK = const(1024)  # bytes read and written at a time
_REDIRECTS = const(3)


def fetch_with_backoff(url, max_retries=5, base_delay=100, max_delay=5000, correlation_id=""):
    """The file at `url`, as bytes. At most `max_retries` attempts, `base_delay` ms apart, doubled
    each time up to `max_delay`.

    Raises DOWNLOAD_FAILED, INVALID_ARGUMENT, and PAYLOAD_TOO_LARGE for the heap.
    """
    return download(
        url, None, None, "", None, None, "", max_retries, base_delay, max_delay, correlation_id
    )


def download(
    url,
    target,
    size=None,
    sha256="",
    allow=None,
    limit=None,
    dataname="",
    max_retries=5,
    base_delay=100,
    max_delay=5000,
    correlation_id="",
    on_progress=None,
    idle=None,
    deadline=None,
    buf=None,
):
    """Fetch `url`, which the caller has found allowed, into `target`: the number of bytes.

    target: has ``write(view)`` and ``rewind()``, after which all is written again; where that is
        False, another attempt passes over what was written, once its digest has shown that it
        is still the same. None: the file is returned, as bytes.
    size, sha256 (in hexadecimal): what the file must have; None and "": whatever it has.
    allow: called with the URL of a redirection, raises if that may not be followed; None: only
        those within the origin of `url` are.
    limit: bytes; None: any number.
    max_retries, base_delay, max_delay: attempts, and ms between them.
    deadline: a time.ticks_ms() value; idle: called at least every 100 ms.
    buf: a bytearray of 1,024 bytes to read through, None to allocate one.

    Raises DOWNLOAD_FAILED, INTEGRITY_ERROR, PAYLOAD_TOO_LARGE, INVALID_ARGUMENT.
    """
    job = _Download()
    job.what = "%s can't be fetched from %s: " % (dataname or "the file", url)
    job.url = url
    job.tries = 1
    job.deadline = deadline
    job.idle = idle
    job.correlation_id = correlation_id
    job.target = target
    job.size = size
    job.sha256 = sha256.lower()
    job.allow = allow
    job.buf = memoryview(buf or bytearray(_CHUNK))[:_CHUNK]
    job.limit = limit
    job.dataname = dataname
    job.on_progress = on_progress
    try:
        return job.attempt()
    except Fault as e:
        from .retry import again

        return again(job, e, max_retries, base_delay, max_delay)


class _Download:
    """One download, with as many attempts as it takes."""

    written = 0  # bytes that the target has, and, after a fault, their digest
    digest = b""

    def attempt(self):
        """Fetch once: the result. Raises Fault where another attempt may help."""
        self.code = DOWNLOAD_FAILED
        url = self.url
        for left in range(_REDIRECTS, -1, -1):
            connection = Connection(url, self.deadline, self.idle)
            try:
                connection.request("GET", connection.path)
                answer = connection.answer()
                if answer.status == 200:
                    self.total = answer.length if self.size is None else self.size
                    if answer.length is not None:
                        self.check(answer.length, answer.length)
                    if self.target is not None:
                        return self._stream(connection)
                    from .whole import read_whole

                    return read_whole(connection, self)
                from .retry import redirection

                url = redirection(connection, self, left)
            finally:
                connection.close()

    def check(self, least, most=None):
        """Raise if a body of `least` bytes or more, but at most `most`, can't be the right one."""
        size = self.size
        code = ""
        if self.limit is not None and least > self.limit:
            code = PAYLOAD_TOO_LARGE
            size = self.limit
        elif size is not None and (least > size or most is not None and most < size):
            code = INTEGRITY_ERROR
        if code:
            raise self.error(code, "it has %d bytes or more, not %d" % (least, size))

    def end(self, n, digest):
        """Check a body that ended after `n` bytes. One that is short may have been cut: a Fault."""
        self.code = INTEGRITY_ERROR
        if self.size is not None and n < self.size:
            raise Fault("it ended after %d bytes of %d" % (n, self.size), 200, 0)
        if self.sha256 and str(hexlify(digest.digest()), "utf-8") != self.sha256:
            raise self.error(self.code, "its SHA-256 digest differs")

    def error(self, code, why):
        details = {"url": self.url, "size": self.size, "correlation_id": self.correlation_id}
        return NATSBridgeError(code, self.what + why, details)

    def _stream(self, connection):
        """Read the body into the target: the number of bytes."""
        if self.tries > 1 and self.target.rewind():
            self.written = 0
        buf = self.buf
        whole = hashlib.sha256()
        known = hashlib.sha256() if self.written else None  # while passing over what is written
        at = 0
        try:
            while True:
                n = connection.readinto(
                    buf, _CHUNK if known is None else min(_CHUNK, self.written - at)
                )
                part = buf if n == _CHUNK else buf[:n]
                whole.update(part)
                at += n
                if known is None:
                    if not n:
                        break
                    self.check(at)
                    try:
                        took = self.target.write(part)
                    except OSError as e:
                        took = e
                    if took is not None and took != n:
                        why = "its target took %r of %d bytes" % (took, n)
                        raise self.error(DOWNLOAD_FAILED, why)
                    self.written = at
                    if self.on_progress:
                        self.on_progress(self.dataname, at, self.total)
                else:
                    known.update(part)
                    if not n or at == self.written:
                        if known.digest() != self.digest:
                            raise self.error(INTEGRITY_ERROR, "it changed between two attempts")
                        known = None
            self.end(at, whole)
        except Fault:
            if known is None:
                self.digest = whole.digest()
            raise
        return at
