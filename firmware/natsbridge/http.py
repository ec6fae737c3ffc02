"""HTTP/1.1 (RFC 9112) and its URLs, as much of it as a file server's clients need.

An answer is never read beyond its end, and its head line by line. So bodies go straight into the
caller's buffer, and what a server says before it resets the connection is not lost (a socket's
read of more than arrived before the reset raises, and those bytes are gone: measured).
"""

import io
import time
from binascii import hexlify

from micropython import const

from .errors import INVALID_ARGUMENT, fail, make_room

_MAX_URL = const(1024)  # characters, as for every string of an envelope
_MAX_LINE = const(4096)  # bytes of a line: proxies send long cookies and policies
_KEEP = const(1300)  # bytes that are kept of one, and of all that matter: a URL has 1,024
_MAX_LINES = const(64)  # of one answer: status and header lines, interim ones, trailers
_MAX_DIGITS = const(15)  # of a Content-Length
_RECOVER = const(8192)  # bytes of heap that another attempt needs
_TURN = const(50)  # ms between two calls of idle while bytes move


def parse(url):
    """The parts of an http or https URL: (origin, path, host, port). What is returned is what is
    compared with the allow-list and what is requested: no second parser can read it differently.

    origin: scheme, host and, where it is not the default, port: ``http://host:8080``.
    path: begins with "/", has its dot segments resolved (RFC 3986, 5.2.4; %2e is a dot) and
        includes the query.
    host: in lower case, an IPv6 address without its brackets.

    Raises ValueError for all that can be read in two ways.
    """
    if not isinstance(url, str) or len(url) > _MAX_URL:
        raise ValueError
    at = url.find("/", url.find("://") + 3)
    # (Else by bytes: each character of a str stays in the heap as a name.)
    for c in url[at:] if at > 0 and max(url.encode()) > 127 else "":
        if c > "\x7f":  # in a path, in UTF-8 (RFC 3987)
            url = url.replace(c, "%" + str(hexlify(c.encode(), "%"), "utf-8").upper())
    good = True
    bad = '\\"<>^`{|}#'.encode()
    for c in url.encode():
        if not 33 <= c <= 126 or c in bad:
            good = False
    scheme, _, rest = url.partition("://")
    rest, query, text = rest.partition("?")
    query += text
    host, _, rest = rest.partition("/")
    for text in rest.lower().split("%")[1:]:
        if int(text[:2], 16) < 32 or text[:2] in "2f 5c 7f":  # 15 at most, if it is not two digits
            good = False
    path = []
    for part in rest.split("/"):
        text = part.lower().replace("%2e", ".")
        if text == "..":
            path = path[:-1]
        elif text != ".":
            path.append(part)
    if text and text in "..":
        path.append("")
    scheme = scheme.lower()
    usual = "443" if scheme == "https" else "80"
    host = host.lower()
    if host[:1] == "[":
        host, rest, port = host[1:].partition("]")
        text = "[%s]" % host
        good = good and rest and ":" in host
        rest = port[:1]
        port = port[1:]
    else:
        host, rest, port = host.partition(":")
        text = host
        good = good and host.strip(".-")
    for i in range(len(host)):
        c = host[i : i + 1]
        if not (c.isalpha() or c.isdigit() or c in ".-_:"):
            good = False
    if not rest:
        port = usual
    if (
        not good
        or (scheme != "http" and scheme != "https")
        or rest.strip(":")
        or not port.isdigit()
        or len(port) > 5
        or not 0 < int(port) < 65536
    ):
        raise ValueError
    port = int(port)
    origin = scheme + "://" + text
    if port != int(usual):
        origin += ":%d" % port
    return origin, "/" + "/".join(path) + query, host, port


def base(url):
    """`url` in one spelling, without a query or a final slash. Raises ValueError."""
    url = parse(url)
    return url[0] + url[1].split("?")[0].rstrip("/")


# An attempt that failed where another may not; its text is why. Nobody else raises it here, and a
# class of our own would take 250 bytes of heap.
Fault = EOFError


class Connection(io.IOBase):
    """A client of the file server at `url` (None: the default one) and of where its files are.

    It has one connection at a time, for one request after another. Attributes:

    base: `url` without what no path can be added to; extra, token: header lines, and an upload's
        token, for its origin alone.
    deadline: a time.ticks_ms() value; idle: called at least every 100 ms; tls: options for https.
    status, headers, length (bytes, None if not known): of the last answer.

    What the network or the server's HTTP does wrong is a Fault. Subclasses are jobs, which have
    attempt() and the attributes of recover.again.
    """

    stream = idle = tls = None
    extra = token = id = correlation_id = ""
    done = 0

    def __init__(self, url, nc, deadline):
        self.deadline = deadline
        if nc:
            self.idle = nc.serve
            if isinstance(nc.tls, dict):
                self.tls = dict(nc.tls, hostname=None)  # that is the broker's
        if url is None:
            from . import setting

            url = setting("FILESERVER_URL", "http://localhost:8080")
        try:
            self.base = base(url)
        except ValueError:
            from .plik import login

            login(self, url)

    def request(self, method, url, headers, body):
        """Send a request's head and the beginning of its body. headers: whole lines."""
        origin, path, host, port = parse(url)
        if self.stream and (self.left or self.chunked or not self.keep or origin != self.origin):
            self.close()
        self.origin = origin
        self.status = 0
        self.error = None
        self.one = bytearray(1)
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
        head = (
            "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: plik_client/natsbridge\r\n"
            "Accept-Encoding: identity\r\n%s\r\n%s"
            % (method, path, origin[origin.find("/") + 2 :], headers, body)
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

    def push(self, now):
        """Whether each piece goes out as it is written (1), or waits for the next ones until their
        packet is full (0): a third fewer packets (TCP_NODELAY)."""
        try:
            self.stream.raw.setsockopt(6, 1, now)
        except (OSError, ValueError, NotImplementedError):
            pass  # not on this port

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
                known = (
                    "content-length transfer-encoding content-encoding connection location "
                    "retry-after etag content-range"
                ).split()
                values = [None] * 8
                room = _KEEP  # for all of these
                line = self.line()
                while line:
                    name, mark, value = line.partition(":")
                    good = mark and name and name.strip() == name
                    name = name.lower()
                    if name in known:
                        i = known.index(name)
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
