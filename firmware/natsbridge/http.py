"""HTTP/1.1 (RFC 9112), as much of it as a file server's clients need.

An answer is never read beyond its end, and its head line by line. So bodies go straight into the
caller's buffer, and what a server says before it resets the connection is not lost (a socket's
read of more than arrived before the reset raises, and those bytes are gone: measured).
"""

import io
import time

from micropython import const

from .errors import INVALID_ARGUMENT, fail, make_room

_MAX_LINE = const(4096)  # bytes of a line: proxies send long cookies and policies
_KEEP = const(1300)  # bytes that are kept of one, and of all that matter: a URL has 1,024
_MAX_LINES = const(64)  # of one answer: status and header lines, interim ones, trailers
_MAX_DIGITS = const(15)  # of a Content-Length
# The headers that matter, in one text: a list of them would take 600 bytes of heap.
_KNOWN = (
    ":content-length:transfer-encoding:content-encoding:connection:location:retry-after:etag:"
    "content-range:"
)
_RECOVER = const(8192)  # bytes of heap that another attempt needs
_TURN = const(50)  # ms between two calls of idle while bytes move


# An attempt that failed where another may not; its text is why. Nobody else raises it here, and a
# class of our own would take 250 bytes of heap.
Fault = EOFError


class Connection(io.IOBase):
    """A client of the file server `home` (see urls.home) and of where its files are.

    It has one connection at a time, for one request after another. Attributes:

    base: its URL; extra, token: header lines, and an upload's token, for its origin alone.
    deadline: a time.ticks_ms() value; idle: called at least every 100 ms; tls: options for https.
    status, headers, length (bytes, None if not known): of the last answer.

    What the network or the server's HTTP does wrong is a Fault. Subclasses are jobs, which have
    attempt() and the attributes of recover.again.
    """

    deadline = idle = tls = error = None  # (set only if it is another: heap)
    extra = token = id = ""
    done = 0
    one = bytearray(1)  # read through, by whoever's turn it is

    def __init__(self, home, nc, deadline):
        # All at once: later, their table would have to find a larger piece of the heap.
        self.stream = self.origin = self.status = self.due = self.lines = self.headers = None
        self.keep = self.left = self.length = self.chunked = self.attempts = self.buf = None
        self.dataname = self.url = self.tries = self.on_progress = self.correlation_id = None
        self.home = home
        self.base = home[0] + home[1]
        if home[4]:
            self.extra = home[4]
        if deadline is not None:
            self.deadline = deadline
        if nc:
            self.idle = nc.serve
            if isinstance(nc.tls, dict):
                self.tls = dict(nc.tls, hostname=None)  # that is the broker's

    def under(self, path):
        """The file server's URL for `path`, which has nothing to be escaped, as urls.parse's."""
        origin, start, host, port, _ = self.home
        return origin, start + path, host, port

    def request(self, method, where, headers, body):
        """Send a request's head and the beginning of its body. where: see urls.parse.
        headers: whole lines."""
        origin, path, host, port = where
        if self.stream and (self.left or self.chunked or not self.keep or origin != self.origin):
            self.close()
        self.origin = origin
        self.status = 0
        if self.error:
            self.error = None
        if (self.base + "/").startswith(origin + "/"):
            headers += self.extra
            if self.token:
                headers += "X-UploadToken: %s\r\n" % self.token
        if not self.stream:
            tls = None
            if origin[:5] == "https":
                tls = self.tls
                if not tls:
                    raise fail(INVALID_ARGUMENT, "https", origin)
            from .stream import Stream

            try:
                self.stream = Stream(host, port, self.deadline, self.idle, tls)
            except OSError as e:
                raise Fault(e)
        self.tick()
        # Joined, since what formats tries one piece of heap after the other.
        head = "".join(
            (
                method,
                " ",
                path,
                " HTTP/1.1\r\nHost: ",
                origin[origin.find("/") + 2 :],
                "\r\nUser-Agent: plik_client/natsbridge\r\nAccept-Encoding: identity\r\n",
                headers,
                "\r\n",
                body,
            )
        )
        self.write(head, 0, len(head))

    def tick(self):
        """Let others have their turn. Raises Fault when the time is over."""
        self.due = time.ticks_add(time.ticks_ms(), _TURN)
        if self.idle:
            self.idle()
        if self.deadline is not None and time.ticks_diff(self.deadline, self.due) <= -_TURN:
            raise Fault("time over")

    def write(self, buf, start, n):
        """Write a piece of a body: False once the server takes no more; it may say why."""
        if time.ticks_diff(time.ticks_ms(), self.due) > 0:
            self.tick()
        try:
            if not self.error:
                done = self.stream.socket.write(buf, start, n)
                if done != n:  # the rest waits
                    done = done or 0
                    self.stream.write(buf, start + done, n - done)
        except OSError as e:
            self.error = e
        return not self.error

    def answer(self):
        """Read the answer up to its body: its status."""
        self.lines = status = 0
        try:
            while status < 200:  # interim answers
                line = self.line()
                status = line[9:12]
                if (
                    line[:9] not in ("HTTP/1.1 ", "HTTP/1.0 ")
                    or not (status.isdigit() and "100" <= status < "600")
                    or line[12:13].strip()
                ):
                    raise ValueError("no HTTP")
                status = int(status)
                values = [None] * 8
                room = _KEEP  # for all of these
                line = self.line()
                while line:
                    name, mark, value = line.partition(":")
                    good = mark and name and name.strip() == name
                    at = _KNOWN.find(":%s:" % name.lower())
                    if at >= 0:
                        i = _KNOWN.count(":", 0, at)
                        value = value.strip()
                        room -= len(line)
                        # Twice the same length is legal; other lists are not those of one value.
                        good = good and (values[i] is None or i == 0 and value == values[0])
                        good = good and room > 0  # so it is not cut off
                        values[i] = value
                    if not good:
                        raise ValueError("bad header")
                    line = self.line()
            length, coding, encoding, keep = values[:4]
            if length is not None:
                if coding is not None or not length.isdigit() or len(length) > _MAX_DIGITS:
                    raise ValueError("bad header")
                length = int(length)
            if (coding or "chunked").lower() != "chunked" or (encoding or "identity") != "identity":
                raise ValueError("bad header")
            if status == 204:
                length = 0
                coding = None
        except (OSError, ValueError) as e:
            raise Fault(self.error or e)
        self.status = status
        self.headers = values
        self.keep = (keep or "").lower() != "close"
        self.length = length
        self.chunked = 0 if coding is None else 1  # 2 once a chunk was begun
        # Bytes left of the body or of its chunk; -1: all until the stream ends.
        self.left = length
        if self.chunked:
            from .recover import read_size

            self.read_size = read_size  # here, since an import allocates
            self.left = 0
        elif length is None:
            self.left = -1
        return status

    def line(self):
        """The next line of the answer's head, without its end, cut off at 1,300 bytes."""
        self.lines += 1
        line = bytearray()
        n = 0
        while True:
            if not self.stream.readinto(self.one, 1):
                raise ValueError("cut off")
            c = self.one[0]
            if c == 10:
                return str(line, "utf-8").rstrip("\r")
            n += 1
            if n > _MAX_LINE or self.lines > _MAX_LINES:
                raise ValueError("bad header")
            if n <= _KEEP:
                line.append(c if c < 128 else 63)

    def readinto(self, buf, n=0):
        """Read 1 to `n` bytes (0: as many as fit) of the body into `buf`: their number, 0 at its
        end."""
        try:
            return self.recv(buf, n or len(buf))
        except (OSError, ValueError) as e:
            raise Fault(e)

    def recv(self, buf, n):
        """Likewise, with the network's error as it comes: what catches it takes heap in each call
        (measured), so a loop calls this, and catches outside."""
        if time.ticks_diff(time.ticks_ms(), self.due) > 0:
            self.tick()
        left = self.left
        if self.chunked and not left:
            left = self.read_size(self)
        if 0 <= left < n:
            n = left
            if not n:
                return 0
        got = self.stream.socket.readinto(buf, n)
        if got is None:
            got = self.stream.readinto(buf, n)  # waits
        if left > 0:
            if not got:
                raise ValueError("cut off")
            self.left = left - got
        return got

    def close(self):
        """Close it; another request opens it again."""
        if self.stream:
            self.stream.close()
            self.stream = None

    def run(self):
        """The result of attempt(), of as many as it takes."""
        self.attempts = 1
        try:
            return self.attempt()
        except Exception as e:
            make_room(_RECOVER, "http", "recover")
            from .recover import again

            return again(self, e)
        finally:
            self.close()


# What read() of every stream is in C: read(connection, n) fills the bytes that it returns through
# readinto(), so they are allocated once; without `n` to the body's end.
read = io.BytesIO.__dict__["read"]
