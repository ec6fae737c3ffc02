"""A NATS connection on a raw socket.

Bytes are read only when a call needs them. A message of up to 2 KB is taken whole, and queued
(8 KB in all) if the call was for another subscription. The body of a larger one stays on the
socket until it is read; a call that must read past it discards it.
"""

import time

from micropython import const

from .errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    Malformed,
    drop,
    fail,
)
from .protocol import MAX_LINE, check_subject, flat, parse_info, parse_msg
from .stream import until

_SMALL = const(2048)  # bytes of a message that is taken whole
_OVERHEAD = const(128)  # bytes of heap that a queued message costs besides its data
_QUEUE = const(8192)  # bytes of messages that wait for their next()
_JOIN = const(512)  # bytes of a payload up to which one write is cheaper than three
_SERVE = const(5000)  # ms without a look at the socket after which publish() takes one


class Connection:
    """A connection to one of `servers`. Made by `connect`. Attributes:

    name, id: who this peer is.
    url: the server, without credentials.
    max_payload: bytes that a message may have, as the server announced.
    """

    def __init__(self, servers, name, id, timeout):
        self.name = name
        self.id = id
        self.url = ""
        self.max_payload = 0
        self._servers = servers
        self._stream = None
        self._reader = None
        self._reconnect = False
        self._closed = False
        self._busy = False  # in the middle of a message that is being written
        self._timeout = timeout
        self._subs = {}
        self._sid = 0
        self._queue = []
        self._queued = 0
        self._head = None  # a small message whose body has not all arrived
        self._unread = None  # a large message whose body is still on the socket
        self._pings = 0  # PINGs of ours that wait for their PONG
        self._error = ""  # what the last -ERR said
        self._checked = ""  # the last subject found good
        self._seen = 0  # ticks_ms of the last look at the socket
        self.scratch = bytearray(1032)  # what envelopes and files are read through

    # -- connecting

    def _dial(self, again):
        from .dial import dial

        dial(self, self._servers, self._timeout, again)
        drop("dial")
        self._seen = time.ticks_ms()

    def _drop(self):
        """Close the socket. What was half read or half written is gone with it."""
        if self._stream:
            self._stream.close()
        self._stream = self._reader = self._head = None
        self._pings = 0
        if self._unread:
            self._unread.lost = True
            self._unread = None

    def _ready(self):
        """The stream; connects again if it was lost."""
        if self._busy:
            raise fail(INVALID_ARGUMENT, "busy")
        if self._stream is None:
            if self._closed or not self._reconnect:
                raise fail(NATS_CONNECTION_FAILED, "closed" if self._closed else "lost")
            self._dial(True)
        return self._stream

    def _fail(self, e, doing):
        """Drop the connection and raise what `e` means."""
        why = self._error or str(e) or "the connection ended"
        self._drop()
        raise fail(NATS_CONNECTION_FAILED, "broke", self.url, doing, why)

    def bound(self, deadline):
        """Bound what is done next by `deadline` (ticks_ms), or by nothing (None)."""
        if self._stream:
            self._stream.deadline = deadline

    def close(self):
        """Close the connection. It can be called twice."""
        self._closed = True
        self._drop()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # -- sending

    def publish(self, subject, payload, reply=""):
        """Publish one message.

        payload: bytes-like, str, or an object with ``__len__`` (bytes) and ``write_to(stream)``.

        Raises INVALID_ARGUMENT, PAYLOAD_TOO_LARGE before a byte is written, and
        NATS_CONNECTION_FAILED; then it is not known whether the message arrived.
        """
        if subject != self._checked:
            check_subject(subject)
            self._checked = subject
        if reply:
            check_subject(reply)
        if isinstance(payload, str):
            payload = payload.encode()
        elif not hasattr(payload, "write_to"):
            try:
                payload = flat(payload)
            except TypeError:
                raise fail(INVALID_ARGUMENT, "argument", "the payload is no bytes and no str")
        stream = self._ready()
        size = len(payload)
        if size > self.max_payload:
            raise fail(PAYLOAD_TOO_LARGE, "publish", size, self.url, self.max_payload, size=size)
        if time.ticks_diff(time.ticks_ms(), self._seen) > _SERVE:
            self.serve()
            stream = self._ready()
        try:
            head = ("PUB %s %s %d\r\n" % (subject, reply or "", size)).encode()
            if hasattr(payload, "write_to"):
                stream.write(head)
                self._busy = True  # its sources and callbacks must not write in between
                payload.write_to(stream)
                stream.write(b"\r\n")
            elif size <= _JOIN:
                stream.write(head + payload + b"\r\n")
            else:
                stream.write(head)
                stream.write(payload)
                stream.write(b"\r\n")
        except OSError as e:
            self._fail(e, "publishing to " + subject)
        except BaseException:
            # A message was begun and can't be finished: only a new connection is clean.
            self._drop()
            raise
        finally:
            self._busy = False

    def flush(self, timeout=5):
        """Wait, up to `timeout` s, until the server has taken all that was published.

        Like every call that reads, it reads past large messages that come meanwhile: flush before
        you ask others for one.

        Raises NATS_CONNECTION_FAILED, also with what the server refused since the last flush.
        """
        deadline = until(timeout)
        stream = self._ready()
        try:
            stream.write(b"PING\r\n")
            self._pings += 1
            while self._pings:
                msg = self._take()
                if msg is not None:
                    self._enqueue(msg)
                elif self._pings and not stream.wait(deadline):
                    raise OSError("no PONG within %s s" % timeout)
        except (OSError, ValueError) as e:
            self._fail(e, "flushing")
        if self._error:
            why = self._error
            self._error = ""
            raise fail(NATS_CONNECTION_FAILED, "refused", why)

    # -- receiving

    def subscribe(self, subject, queue=""):
        """Receive what is published to `subject` (wildcards allowed), shared within `queue`."""
        check_subject(subject, True)
        if queue != "":
            check_subject(queue, True)
        stream = self._ready()
        self._sid += 1
        sub = Subscription(self, self._sid, subject, queue)
        try:
            stream.write(("SUB %s %s %d\r\n" % (subject, queue, self._sid)).encode())
        except OSError as e:
            self._fail(e, "subscribing")
        self._subs[self._sid] = sub
        return sub

    def next(self, timeout=None):
        """The next message of any subscription, or None after `timeout` s (None: wait for ever).

        Raises NATS_CONNECTION_FAILED if the connection is lost and does not come back, and
        PAYLOAD_TOO_LARGE once after messages were dropped because the queue was full.
        """
        return self._next(None, timeout)

    def _next(self, sub, timeout):
        if sub and sub._sid not in self._subs:
            raise fail(INVALID_ARGUMENT, "unsubbed", sub.subject)
        queue = self._queue
        for i in range(len(queue)):
            if sub is None or queue[i].sub is sub:
                msg = queue.pop(i)
                self._queued -= msg.cost
                return msg
        for s in self._subs.values():
            n = s._dropped
            if n and (sub is None or s is sub):
                s._dropped = 0
                raise fail(PAYLOAD_TOO_LARGE, "dropped", n, s.subject, _QUEUE, dropped=n)
        deadline = until(timeout)
        while True:
            stream = self._ready()
            try:
                msg = self._take()
                while msg is None:
                    if not stream.wait(deadline):
                        return None
                    msg = self._take()
            except (OSError, ValueError) as e:
                if not self._reconnect:
                    self._fail(e, "waiting for a message")
                self._drop()
                continue
            if msg.sub and (sub is None or msg.sub is sub):
                return msg
            self._enqueue(msg)

    def request(self, subject, payload, timeout=5):
        """Publish `payload` and return the first answer, or None after `timeout` s.

        Raises NATS_CONNECTION_FAILED at once if nobody subscribes to `subject`.
        """
        from .log import uuid4

        with self.subscribe("_INBOX." + uuid4()) as inbox:
            self.publish(subject, payload, inbox.subject)
            msg = inbox.next(timeout)
        if msg is not None and msg.status == 503:
            raise fail(NATS_CONNECTION_FAILED, "nobody", subject)
        return msg

    def serve(self):
        """Answer PINGs and queue small messages, without waiting. Stops at a large message."""
        self._seen = time.ticks_ms()
        if self._stream is None or self._busy:
            return
        try:
            while self._unread is None:
                msg = self._take()
                if msg is None:
                    break
                self._enqueue(msg)
        except (OSError, ValueError):
            self._drop()  # the next call connects again, or says that it can't

    def _enqueue(self, msg):
        if msg.sub is None:
            return
        if self._queued + msg.cost > _QUEUE:
            msg.sub._dropped += 1
            return
        self._queue.append(msg)
        self._queued += msg.cost

    def _take(self):
        """The next message out of what has arrived, or None if more must arrive first.

        Raises OSError when the connection has ended, Malformed.
        """
        self._seen = time.ticks_ms()
        reader = self._reader
        while True:
            if self._unread:
                self._unread.lost = True
                got = self._unread.skip(reader, self._unread.left, False)
            else:
                msg = self._head
                if msg is None:
                    line = reader.line(MAX_LINE)
                    if line is not None:
                        self._head = self._control(line)
                        continue
                    got = reader.fill(False)
                elif msg.left:  # a large one: its body stays where it is
                    self._head = None
                    self._unread = msg
                    return msg
                else:
                    got = msg.fill(reader)
                    if got == -1:
                        self._head = None
                        return msg
            if got is None:
                return None
            if got == 0:
                raise OSError(self._error or "closed by the server")

    def _control(self, line):
        """Do what the server's control line says. The message it announces, or None."""
        op = line[:4].upper()
        if op == b"MSG " or op == b"HMSG":
            subject, sid, reply, header_size, size = parse_msg(line)
            return Msg(self, self._subs.get(sid), subject, reply, header_size, size)
        if op == b"PING":
            self._stream.write(b"PONG\r\n")
        elif op == b"PONG":
            self._pings = max(0, self._pings - 1)
        elif op == b"INFO":
            self.max_payload = parse_info(line).get("max_payload", self.max_payload)
        elif op == b"-ERR":
            self._error = str(line[5:], "utf-8").strip("' ")
        elif op[:3] != b"+OK":
            raise Malformed("unknown operation %r" % line[:32])
        return None


class Subscription:
    """Messages on `subject`. Iterate over it, or call next()."""

    def __init__(self, connection, sid, subject, queue):
        self.subject = subject
        self.queue = queue
        self._nc = connection
        self._sid = sid
        self._dropped = 0

    def next(self, timeout=None):
        """The next message, or None after `timeout` s (None: for ever); see Connection.next."""
        return self._nc._next(self, timeout)

    def unsubscribe(self):
        """End the subscription; what waits for it in the queue is dropped."""
        nc = self._nc
        if nc._subs.pop(self._sid, None) is None:
            return
        for i in range(len(nc._queue) - 1, -1, -1):
            if nc._queue[i].sub is self:
                nc._queued -= nc._queue.pop(i).cost
        if nc._stream and not nc._busy:
            try:
                nc._stream.write(("UNSUB %d\r\n" % self._sid).encode())
            except OSError:
                nc._drop()  # a new connection is made without this subscription

    def __iter__(self):
        return self

    def __next__(self):
        if self._nc._closed or self._sid not in self._nc._subs:
            raise StopIteration
        return self.next()

    __enter__ = __iter__

    def __exit__(self, *exc):
        self.unsubscribe()


class Msg:
    """A message: subject, reply, data, and len() in bytes.

    A large one is still on the socket: use it (data, readinto, smartreceive) before anything else
    is asked of its connection.
    """

    def __init__(self, connection, sub, subject, reply, header_size, size):
        self.connection = connection
        self.sub = sub
        self.subject = subject
        self.reply = reply
        self.header_size = header_size
        self.size = size  # bytes, headers included
        self.status = 0  # of the headers; 503: no responders
        self.left = size + 2 if size > _SMALL else 0  # bytes on the socket, with the line end
        self.lost = False  # another call read past the body, or the connection broke
        self.cost = _OVERHEAD + (0 if self.left else size)
        self._data = None
        self.at = 0

    def __len__(self):
        return self.size - self.header_size

    def __bool__(self):
        return True  # also when it is empty

    @property
    def data(self):
        """The whole payload, bytes-like.

        Raises INVALID_ARGUMENT if it is no longer there, PAYLOAD_TOO_LARGE if the heap can't
        hold it.
        """
        if self._data is None:
            size = len(self)
            self.rewind()
            try:
                data = memoryview(bytearray(size))
            except MemoryError:
                raise fail(PAYLOAD_TOO_LARGE, "msg-heap", size, size=size)
            at = 0
            while at < size:
                at += self.readinto(data[at:], size - at)
            self._data = data
        return bytes(self._data) if self.size <= _SMALL else self._data

    def rewind(self):
        """Start readinto() at the first byte. Raises INVALID_ARGUMENT where that is gone."""
        self.at = 0
        if self._data is None and (self.lost or self.left != self.size + 2):
            raise fail(INVALID_ARGUMENT, "msg-gone", self.subject)

    def readinto(self, buf, n):
        """Read the next 1 to `n` bytes of the payload into `buf`: their number, 0 at its end."""
        if self._data is not None:
            n = min(n, len(self._data) - self.at)
            buf[:n] = self._data[self.at : self.at + n]
            self.at += n
            return n
        if self.lost:
            self.rewind()  # raises
        nc = self.connection
        reader = nc._reader
        try:
            while self.left > len(self) + 2:  # the headers
                self.skip(reader, self.left - len(self) - 2, True)
            n = min(n, self.left - 2)
            if n > 0:
                n = reader.readinto(buf, n)
                if not n:
                    raise OSError("closed by the server")
                self.left -= n
                if self.left == 2:
                    # The line end too, so that nothing half-read stays on the socket.
                    if reader.readline(2):
                        raise Malformed("a message without its line end")
                    self.left = 0
                    nc._unread = None
            return max(n, 0)
        except (OSError, EOFError, ValueError) as e:
            nc._fail(e, "a message was read")

    # -- for the connection

    def fill(self, reader):
        """Take what has arrived of a small body, as Reader.readinto: -1 when that is all."""
        if self._data is None:
            self._data = memoryview(bytearray(self.size + 2))  # with the line end
        body = self._data
        n = reader.readinto(body[self.at :], len(body) - self.at, False)
        if n:
            self.at += n
            if self.at == len(body):
                if body[-2:] != b"\r\n":
                    raise Malformed("a message without its line end")
                if self.header_size > 11 and body[8] == 32:  # the blank after NATS/1.0
                    self.status = int(bytes(body[9:12]))
                self._data = body[self.header_size : -2]
                self.at = 0
                return -1
        return n

    def skip(self, reader, n, wait):
        """Pass over up to `n` bytes of a large body. Returns as Reader.skip."""
        n = reader.skip(n, wait)
        if n:
            self.left -= n
            if not self.left:
                self.connection._unread = None
        elif wait:
            raise EOFError
        return n
