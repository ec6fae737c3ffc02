"""HTTP/1.1 (RFC 9112), as much of it as a file server's clients need.

`head` and `Response` know bytes only; `Connection` joins them to a socket. An answer is read byte
by byte up to its body and never beyond its end. So bodies go straight into the caller's buffer,
and what a server says before it resets the connection is not lost (a socket's read of more than
arrived before the reset raises, and those bytes are gone: measured).
"""

import time

from micropython import const

from .errors import INVALID_ARGUMENT, NATSBridgeError, drop

_MAX_LINE = const(4096)  # bytes of a line: proxies send long cookies and policies
_MAX_LINES = const(64)  # of one answer: status and header lines, interim ones, trailers
_MAX_DIGITS = const(15)  # of a Content-Length


class Fault(Exception):
    """An attempt that failed where another may not. Arguments: why, status or 0, Retry-After."""


def head(method, host, path, headers=()):
    """The text of a request's head. Raises ValueError if a header could smuggle in another."""
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: " + host]
    lines += ["User-Agent: plik_client/natsbridge", "Accept-Encoding: identity"]
    lines += headers
    for line in lines:
        for c in line:
            if not " " <= c <= "~":
                raise ValueError(line)
    return "\r\n".join(lines) + "\r\n\r\n"


class Response:
    """The answer that ``source.readinto(buf, n)`` gives (1 to n bytes, 0 at the end).

    Attributes: status; length (bytes of the body, None if not known); location; retry_after (s);
    keep, chunked, left: how the body ends, and whether another answer may follow it.
    Raises ValueError for what is not HTTP, EOFError where the answer is cut.
    """

    def __init__(self, source, method="GET"):
        self.source = source
        self._one = bytearray(1)
        self._lines = 0
        self.status = 100
        while self.status < 200:  # interim answers
            line = self.line()
            status = line[9:12]
            if (
                line[:9] not in ("HTTP/1.1 ", "HTTP/1.0 ")
                or not (status.isdigit() and "100" <= status < "600")
                or line[12:13].strip()
            ):
                raise ValueError("that is not HTTP/1.1: %r" % line[:20])
            self.status = int(status)
            self.keep = line[7] == "1"
            self.length = None
            self.location = ""
            self.retry_after = 0
            self.chunked = False
            while self.header():
                pass
        if self.chunked and self.length is not None:
            raise ValueError("the answer has two lengths")
        if method == "HEAD" or self.status in (204, 304):
            self.chunked = False
            self.length = 0
        if self.chunked:
            from .chunked import read_size

            self._read_size = read_size  # here, since an import allocates
        # Bytes left of the body or of its chunk; -1: all until the stream ends.
        self.left = 0 if self.chunked else -1 if self.length is None else self.length

    def byte(self):
        if not self.source.readinto(self._one, 1):
            raise EOFError("the server closed the connection too early")
        return self._one[0]

    def line(self):
        self._lines += 1
        line = bytearray()
        while True:
            c = self.byte()
            if c == 10:
                return str(line, "utf-8").rstrip("\r")
            if len(line) == _MAX_LINE or self._lines > _MAX_LINES:
                raise ValueError("the answer's head is too long")
            line.append(c if c < 128 else 63)

    def header(self):
        """Read a header: False at the empty line that ends them."""
        line = self.line()
        name, mark, value = line.partition(":")
        good = mark and name and name.strip() == name
        name = name.lower()
        value = value.strip()
        if name == "content-length":
            good = value.isdigit() and len(value) <= _MAX_DIGITS
            good = good and self.length in (None, int(value))
            self.length = int(value) if good else None
        elif name == "transfer-encoding":
            good = value.lower() == "chunked" and not self.chunked
            self.chunked = True
        elif name == "content-encoding":
            good = value == "identity"
        elif name == "location":
            self.location = value
        elif name == "retry-after":
            if value.isdigit() and len(value) < 7:  # the other form is a date, and needs a clock
                self.retry_after = int(value)
        elif name == "connection":
            self.keep = self.keep and value.lower() != "close"
        if line and not good:
            raise ValueError("the answer has the bad header %r" % line[:60])
        return line

    def readinto(self, buf, n):
        """Read 1 to `n` bytes of the body into `buf`: their number, 0 at its end."""
        if self.chunked and not self.left:
            self.left = self._read_size(self)
            self.chunked = self.left > 0
        if 0 <= self.left < n:
            n = self.left
        if not n:
            return 0
        got = self.source.readinto(buf, n)
        if self.left > 0:
            if not got:
                raise EOFError("the server closed the connection too early")
            self.left -= got
            if self.chunked and not self.left and (self.byte() != 13 or self.byte() != 10):
                raise ValueError("a chunk is longer than it said")
        return got


class Connection:
    """A connection to the server of an http:// URL, for one request after another.

    Attributes: origin and path (with query) of the URL; response: what `answer` read.
    deadline, idle: as in Stream; `idle` is called for each piece of a body too.
    What the network or the server's HTTP does wrong is a Fault.
    """

    def __init__(self, url, deadline=None, idle=None):
        from .urls import origin, parse

        scheme, self.host, self.port, self.path = parse(url)
        if scheme != "http":
            raise NATSBridgeError(
                INVALID_ARGUMENT, url + ": this version of the firmware has no https; use http"
            )
        self.origin = origin(url)
        parse = origin = None
        drop("urls")
        self.deadline = deadline
        self.idle = idle
        self._stream = None

    def _tick(self):
        if self.idle:
            self.idle()
        if self.deadline is not None and time.ticks_diff(self.deadline, time.ticks_ms()) <= 0:
            raise Fault("the time allowed is over", 0, 0)

    def request(self, method, path, headers=(), body=b""):
        """Send a request's head and the beginning of its body."""
        self.method = method
        self._broken = None
        if self._stream:
            last = self.response
            if not last.keep or last.left or last.chunked:  # there is more to come, or nothing
                self.close()
        if not self._stream:
            from .stream import Stream

            try:
                self._stream = Stream(self.host, self.port, self.deadline, self.idle)
            except OSError as e:
                raise Fault("%s (does a server run at %s?)" % (e, self.origin), 0, 0)
        self.write(head(method, self.origin[7:], path, headers))
        self.write(body)

    def write(self, buf, start=0, n=None):
        """Write a piece of a body: False once the server takes no more; it may say why."""
        self._tick()
        try:
            if not self._broken:
                self._stream.write(buf, start, n)
        except OSError as e:
            self._broken = e
        return not self._broken

    def answer(self):
        """Read the answer up to its body: the Response."""
        try:
            self.response = Response(self._stream, self.method)
        except (OSError, EOFError, ValueError) as e:
            raise Fault(str(self._broken or e), 0, 0)
        return self.response

    def readinto(self, buf, n):
        """Read 1 to `n` bytes of the answer's body into `buf`: their number, 0 at its end."""
        self._tick()
        try:
            return self.response.readinto(buf, n)
        except (OSError, EOFError, ValueError) as e:
            raise Fault(str(e), self.response.status, 0)

    def body(self, limit):
        """The answer's body, at most `limit` bytes of it."""
        length = self.response.length
        view = memoryview(bytearray(limit if length is None else min(limit, length)))
        at = 0
        n = 1
        while n and at < len(view):
            n = self.readinto(view[at:], len(view) - at)
            at += n
        return bytes(view[:at])

    def close(self):
        """Close it; another request opens it again."""
        if self._stream:
            self._stream.close()
            self._stream = None
