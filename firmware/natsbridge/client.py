"""A NATS connection on a raw socket.

Bytes are read only when a call needs them. A message of up to 2 KB is taken whole, and queued
(8 KB in all) if the call was for another subscription. The body of a larger one stays on the
socket until it is read; a call that must read past it discards it.

Here is what every connection needs. What is rare is loaded when it happens: connecting (greet),
INFO and -ERR (news), headers, publishing while disconnected (pending), and request, drain and
unsubscribe (calls).
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
from .protocol import MAX_LINE, check_subject, flat, parse_msg
from .stream import passed, until

_SMALL = const(2048)  # bytes of a message that is taken whole
_OVERHEAD = const(128)  # bytes of heap that a queued message costs besides its data
_QUEUE = const(8192)  # bytes of messages that wait for their next()
_ROOM = const(_QUEUE - _SMALL - _OVERHEAD)  # queued bytes up to which any small message fits
_JOIN = const(512)  # bytes of a payload up to which one write is cheaper than three
_SERVE = const(5000)  # ms without a look at the socket after which publish() takes one
_PIECES = const(64)  # pieces to take at a time, so that nothing but waiting takes long
_LATE = const(20)  # ms over its time that next() may go on through what has arrived


class Connection:
    """A connection to one of several servers. Made by `connect`. Attributes:

    name, id: who this peer is.
    url: the server, without credentials.
    max_payload: bytes that a message may have, as the server announced.
    connected: whether it is, as far as is known.
    pending: bytes that publish() has queued and that are not written yet.
    tls: the options for TLS, as given to connect.
    """

    def __init__(self, name, id, options):
        self.name = name
        self.id = id
        self.url = ""
        self.max_payload = 0
        self.connected = False
        self.pending = 0
        self.tls = options["tls"]
        self.idle = None  # on_idle, kept from using the connection
        self._options = options  # for greet
        self._every = options["ping_interval"]
        self._stream = None
        self._reader = None
        self._dialer = None  # makes a connection, or another one
        self._deadline = None  # of what is done with the connection: see bound
        self._closed = False
        self._busy = False  # in the middle of a message that is being written, or in on_idle
        self._subs = {}
        self._sid = 0
        self._queue = []
        self._queued = 0
        self._head = None  # a message that has not all arrived
        self._unread = None  # a large message whose body is still on the socket
        self._pinged = 0  # PINGs sent and PONGs received on this socket
        self._ponged = 0
        self._draining = []  # [the PONG that ends them, sid], in this order
        self._drained = False
        self._error = ""  # what the server refused since the last flush
        self._dirty = False  # published since the last flush
        self._lost = False  # the connection was, since then
        self._why = ""  # it was lost
        self._trouble = []  # subscriptions that have something to raise
        self._checked = ""  # the subject that can be published to at once
        self._seen = 0  # ticks_ms of the last look at the socket
        self._quiet = 0  # ticks_ms since when nothing was heard while we looked
        self.scratch = bytearray(1032)  # what envelopes and files are read through

    # -- connecting

    def _drop(self, why):
        """Close the socket. What was half read or half written is gone with it."""
        if self._stream:
            self._why = str(why) or "EOF"
            self._stream.close()
        self._stream = self._reader = self._head = None
        self.connected = False
        self._checked = ""
        if self._unread:
            self._unread.lost = True
            self._unread = None
        if self._dirty:
            self._lost = True
            self._dirty = False

    def _ready(self, deadline, wait=True):
        """The stream; connects again if it was lost, until `deadline`. Without `wait` it takes a
        step towards that, and is None as long as that is not done."""
        if self._busy:
            raise fail(INVALID_ARGUMENT, "busy")
        if self._stream is None or self._dialer:
            from .greet import tend

            tend(self, deadline, wait)
        if self.pending:
            from .pending import settle

            settle(self, deadline, wait)
        return self._stream

    def _fail(self, why, doing):
        """Drop the connection, and raise that."""
        self._drop(why)
        raise fail(NATS_CONNECTION_FAILED, "broke", self.url, doing, self._why)

    def bound(self, deadline):
        """Bound what is done next by `deadline` (ticks_ms), or by nothing (None)."""
        self._deadline = deadline
        if self._stream:
            self._stream.deadline = deadline

    def close(self):
        """Close the connection. It can be called twice.

        Raises NATS_CONNECTION_FAILED, when it is closed, if queued messages could not be sent.
        """
        self._closed = True
        if self.pending:
            from .pending import leave

            leave(self)
        self._drop("closed")
        if self._dialer:
            self._dialer.close()
            self._dialer = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0]:
            self.pending = 0  # its error would hide this one
        self.close()

    # -- sending

    def publish(self, subject, payload, reply="", headers=None):
        """Publish one message.

        payload: bytes-like, str, or an object with ``__len__`` (bytes) and ``write_to(stream)``.
        headers: dict of str to str.

        With connect's pending_size, what is published while disconnected is queued.

        Raises INVALID_ARGUMENT, PAYLOAD_TOO_LARGE before a byte is written, and
        NATS_CONNECTION_FAILED; then it is not known whether the message arrived.
        """
        if isinstance(payload, str):
            payload = payload.encode()
        seen = 0 <= time.ticks_diff(time.ticks_ms(), self._seen) < _SERVE
        if subject == self._checked and seen and isinstance(payload, bytes):
            if len(payload) <= _JOIN and not (reply or headers):
                try:
                    self._stream.write(b"PUB %s %d\r\n%s\r\n" % (subject, len(payload), payload))
                    self._dirty = True
                    return
                except OSError as e:
                    self._drop(e)  # it can't have arrived: once again, in a new connection
        check_subject(subject)
        if reply:
            check_subject(reply)
        streams = hasattr(payload, "write_to")
        if not streams:
            try:
                payload = flat(payload)
            except TypeError:
                raise fail(INVALID_ARGUMENT, "argument", "the payload is no bytes and no str")
        size = len(payload)
        if headers:
            from .headers import pack

            head, size = pack(self, subject, reply, headers, size)
        else:
            head = ("PUB %s %s %d\r\n" % (subject, reply or "", size)).encode()
        deadline = until(self._options["timeout"])
        if self._options["pending_size"]:
            from .pending import keep

            if keep(self, head, payload, size):
                return
        for again in (True, False):
            stream = self._ready(deadline)
            if not seen:
                self.serve()
                stream = self._ready(deadline)
            if size > self.max_payload:
                raise fail(
                    PAYLOAD_TOO_LARGE, "publish", size, self.url, self.max_payload, size=size
                )
            self._checked = ""
            self._busy = True  # sources and callbacks must not write in between
            try:
                if size <= _JOIN and not streams:
                    stream.write(head + payload + b"\r\n")
                else:
                    stream.write(head)
                    if streams:
                        payload.write_to(stream)
                    else:
                        stream.write(payload)
                    stream.write(b"\r\n")
                self._dirty = True
                if self.max_payload >= _JOIN:
                    self._checked = subject
                return
            except OSError as e:
                why = e
            except BaseException:
                # A message was begun and can't be finished: only a new connection is clean. This
                # one ends in order: what went before arrives, and no server has to be spared.
                self._dirty = False
                self._drop("source")
                self._options["hold"] = time.ticks_ms()
                raise
            finally:
                self._busy = False
            self.serve()  # what the server said before it closed is a better reason
            if streams or not again:
                self._fail(why, "publishing to " + subject)
            self._drop(why)  # it can't have arrived whole: once again, in a new connection

    def flush(self, timeout=5):
        """Wait, up to `timeout` s, until the server has taken all that was published.

        Like every call that reads, it reads past large messages that come meanwhile: flush before
        you ask others for one.

        Raises NATS_CONNECTION_FAILED, also with what was refused or lost since the last flush.
        """
        deadline = until(timeout)
        stream = self._ready(deadline)
        stream.deadline = deadline
        try:
            stream.write(b"PING\r\n")
            self._pinged += 1
            mark = self._pinged
            while self._ponged < mark:
                msg = self._take()
                if msg:
                    self._enqueue(msg)
                elif self._ponged == mark:
                    break
                if passed(deadline) or (msg is None and not self._pause(deadline)):
                    raise OSError("no PONG within %s s" % timeout)
            self._dirty = False
        except (OSError, ValueError) as e:
            self._dirty = False  # that is told now
            self._fail(e, "flushing")
        stream.deadline = self._deadline
        if self._error or self._lost:
            from .calls import refused

            refused(self)

    # -- receiving

    def subscribe(self, subject, queue=""):
        """Receive what is published to `subject` (wildcards allowed), shared within `queue`."""
        check_subject(subject, True)
        if queue != "":
            check_subject(queue, True)
        stream = self._ready(until(self._options["timeout"]))
        self._sid += 1
        sub = Subscription(self, self._sid, subject, queue)
        try:
            stream.write(("SUB %s %s %d\r\n" % (subject, queue, self._sid)).encode())
        except OSError as e:
            self._fail(e, "subscribing")
        self._subs[self._sid] = sub
        return sub

    def next(self, timeout=None):
        """The next message of any subscription, or None after `timeout` s (None: wait for ever,
        also for a lost connection to come back). With 0 it never waits.

        Raises NATS_CONNECTION_FAILED if the connection is lost and does not come back within
        `timeout`, or the server refused a subscription; PAYLOAD_TOO_LARGE once after messages were
        dropped because the queue was full.
        """
        return self._next(None, timeout)

    def _next(self, sub, timeout):
        deadline = until(timeout)
        while True:
            queue = self._queue
            for i in range(len(queue)):
                if sub is None or queue[i].sub is sub:
                    msg = queue.pop(i)
                    self._queued -= msg.cost()
                    return msg
            if self._trouble or self._drained or (sub and sub._sid not in self._subs):
                from .calls import ended

                if ended(self, sub):
                    return None
            if self._stream is None or self._busy or self._dialer or self.pending:
                if self._ready(deadline, timeout is None or timeout > 0) is None:
                    return None
            try:
                msg = self._take()
                if msg is None:
                    if not self._pause(deadline):
                        return None
                    continue
            except (OSError, ValueError) as e:
                if not self._options["reconnect"]:
                    self._fail(e, "waiting for a message")
                self._drop(e)
                continue
            if msg:
                if sub is None or msg.sub is sub:
                    return msg
                self._enqueue(msg)
            if deadline is not None and time.ticks_diff(time.ticks_ms(), deadline) > _LATE:
                return None

    def request(self, subject, payload, timeout=5, headers=None):
        """Publish `payload` and return the first answer, or None after `timeout` s.

        Raises NATS_CONNECTION_FAILED at once if nobody subscribes to `subject`.
        """
        from .calls import request

        return request(self, subject, payload, timeout, headers)

    def drain(self, timeout=5):
        """End all subscriptions in order: what the server has sent can still be taken, then next()
        returns None. Waits, up to `timeout` s, until the server has taken all that was published.
        """
        from .calls import drain

        drain(self, self._subs, timeout)

    def poll(self):
        """Look after the connection without ever waiting: answer PINGs, queue small messages, take
        a step towards a lost connection. Whether next(0) would return a message.

        What the port itself can't do without waiting is a name look-up, and a step of TLS.
        """
        if not self._busy and self._ready(None, False):
            if self._unread and not self._queue:
                self._unread.lost = True  # next() gave it, and this is another call
            self.serve(_ROOM)
        return bool(self._queue or self._trouble)

    def serve(self, room=1 << 29):
        """Likewise, while something else is done, and call on_idle. Messages that are more than
        `room` bytes in all wait; small ones that do not fit the queue are dropped, which the next
        next() tells."""
        if self.idle:
            self.idle()
        if self._busy or not self._stream:
            return
        try:
            for _ in range(_PIECES):
                if self._queued > room or (self._unread and not self._unread.lost):
                    break
                msg = self._take()
                if msg is None:
                    self._pause(time.ticks_ms())
                    break
                if msg:
                    self._enqueue(msg)
            self._stream.post()
        except (OSError, ValueError) as e:
            self._drop(e)  # the next call connects again, or says that it can't

    def _pause(self, deadline):
        """Wait for something to read: False when `deadline` has passed. Raises OSError when the
        server does not answer two PINGs."""
        now = time.ticks_ms()
        if not 0 <= time.ticks_diff(now, self._seen) <= self._every:
            self._quiet = now  # nobody looked meanwhile
        due = time.ticks_add(self._quiet, self._every)
        if time.ticks_diff(due, now) <= 0:
            if self._pinged > self._ponged + 1:
                raise OSError("the server does not answer PING")
            self._stream.post(b"PING\r\n")
            self._pinged += 1
            self._quiet = due = now
        if self._dialer:  # moves to another server
            due = time.ticks_add(now, 2)
        if deadline is not None and time.ticks_diff(deadline, due) <= 0:
            due = deadline
        got = self._stream.wait(due)
        self._seen = time.ticks_ms()
        return got or not passed(deadline)

    def _enqueue(self, msg):
        cost = msg.cost()
        if self._queued + cost > _QUEUE:
            msg.lost = True
            if not msg.sub._dropped:
                self._trouble.append(msg.sub)
            msg.sub._dropped += 1
        else:
            self._queue.append(msg)
            self._queued += cost

    def _take(self):
        """The next message out of what has arrived; None if more must arrive first, False if more
        may be there. (Only after None may a socket be polled: TLS has what poll does not see.)

        Raises OSError when the connection has ended, Malformed.
        """
        reader = self._reader
        for _ in range(_PIECES):
            msg = self._unread
            if msg:
                msg.lost = True
                got = reader.skip(msg.left, False)
                if got:
                    msg.left -= got
                    if not msg.left:
                        self._unread = None
            elif self._head:
                msg = self._head
                got = msg.fill(reader)
                if got == -1:
                    self._head = None
                    if msg.left:  # its body stays where it is
                        self._unread = msg
                    if msg.sub:
                        return msg
            else:
                line = reader.line(MAX_LINE)
                if line is None:
                    got = reader.fill(False)
                    if got:
                        self._quiet = time.ticks_ms()
                else:
                    if not line.startswith(b"MSG ") and not self._control(line):
                        return False
                    self._head = msg = Msg(self, line)
                    sub = msg.sub
                    if sub:
                        sub._got += 1
                        if sub._got == sub._limit:
                            del self._subs[sub._sid]
                    continue
            if got is None:
                return None
            if got == 0:
                raise OSError("closed by the server")
        return False

    def _control(self, line):
        """Do what the server's control line says, or return True if it announces a message."""
        op = line[:4].upper()
        if op == b"HMSG" or op == b"MSG ":
            return True
        if op == b"PING":
            self._stream.post(b"PONG\r\n")
        elif op == b"PONG":
            self._ponged += 1
            while self._draining and self._draining[0][0] <= self._ponged:
                self._subs.pop(self._draining.pop(0)[1], None)
        elif op[:3] != b"+OK":
            from .news import told

            told(self, line)
            told = None
            drop("news")


class Subscription:
    """Messages on `subject`. Iterate over it, or call next()."""

    _got = 0  # messages that came
    _limit = 0  # messages after which it ends, 0 for never
    _dropped = 0
    _error = ""  # what the server says against it
    _over = False  # by unsubscribe()

    def __init__(self, connection, sid, subject, queue):
        self.subject = subject
        self.queue = queue
        self._nc = connection
        self._sid = sid

    def next(self, timeout=None):
        """The next message, or None after `timeout` s (None: for ever), or when the subscription
        has ended by itself; see Connection.next."""
        return self._nc._next(self, timeout)

    def unsubscribe(self, limit=0):
        """End the subscription; what waits for it in the queue is dropped. With `limit`, let it
        end by itself after so many messages in all, counted from its start."""
        from .calls import unsubscribe

        unsubscribe(self, limit)

    def drain(self):
        """Let the subscription end in order: what the server has sent can still be taken."""
        from .calls import drain

        drain(self._nc, (self._sid,), None)

    def __iter__(self):
        return self

    def __next__(self):
        msg = None if self._over or self._nc._closed else self.next()
        if msg is None:
            raise StopIteration
        return msg

    __enter__ = __iter__

    def __exit__(self, *exc):
        self.unsubscribe()


class Msg:
    """A message: subject, reply, data, and len() in bytes. With headers: headers (a dict), and
    status and description where the server sent it, as 503, nobody listens.

    A large one is still on the socket: use it (data, readinto, smartreceive) before anything else
    is asked of its connection.
    """

    headers = None
    status = 0
    description = ""
    lost = False  # another call read past the body, or the connection broke
    at = 0
    _data = None

    def __init__(self, connection, line):
        self.subject, sid, self.reply, self.header_size, size = parse_msg(line)
        self.connection = connection
        self.sub = connection._subs.get(sid)
        self.size = size - self.header_size
        # Bytes on the socket, with the line end, when it is delivered.
        self.left = self.size + 2 if size > _SMALL else 0

    def __len__(self):
        return self.size

    def __bool__(self):
        return True  # also when it is empty

    def cost(self):
        """Bytes of heap that it costs to have it wait."""
        return _OVERHEAD + len(self._data or b"")

    @property
    def data(self):
        """The whole payload, bytes-like.

        Raises INVALID_ARGUMENT if it is no longer there, PAYLOAD_TOO_LARGE if the heap can't
        hold it.
        """
        if self._data is None:
            size = self.size
            self.rewind()
            try:
                data = memoryview(bytearray(size))
            except MemoryError:
                raise fail(PAYLOAD_TOO_LARGE, "msg-heap", size, size=size)
            at = 0
            while at < size:
                at += self.readinto(data[at:], size - at)
            self._data = data
        return self._data

    def rewind(self):
        """Start readinto() at the first byte. Raises INVALID_ARGUMENT where that is gone."""
        self.at = 0
        if self._data is None and (self.lost or self.left != self.size + 2):
            raise fail(INVALID_ARGUMENT, "msg-gone", self.subject)

    def readinto(self, buf, n):
        """Read the next 1 to `n` bytes of the payload into `buf`: their number, 0 at its end."""
        if self._data is not None:
            n = min(n, self.size - self.at)
            buf[:n] = memoryview(self._data)[self.at : self.at + n]
            self.at += n
            return n
        if self.lost:
            self.rewind()  # raises
        if not self.left:
            return 0
        nc = self.connection
        reader = nc._reader
        n = min(n, self.left - 2)
        try:
            if n:
                n = reader.readinto(buf, n)
                if not n:
                    raise EOFError
                self.left -= n
            if self.left == 2:
                # The line end too, so that nothing half-read stays on the socket.
                if reader.readline(2):
                    raise Malformed("no line end")
                self.left = 0
                nc._unread = None
            return n
        except (OSError, EOFError, ValueError) as e:
            nc._fail(e, "a message was read")

    def fill(self, reader):
        """For the connection: take what has arrived of a small message, or of a large one's
        headers. -1 when that is all, else as Reader.readinto."""
        head = self.header_size
        body = self._data
        at = reader.pos
        end = at + self.size
        if body is None and not (head or self.left) and end + 1 < reader.end:
            reader.pos = end + 2
            self._data = bytes(reader.view[at:end])
            body = reader.view[end : end + 2]
        else:
            size = head if self.left else head + self.size + 2
            if size > _SMALL + 2:  # more headers than are kept
                n = reader.skip(size - self.at, False)
                body = b"\r\n"
            elif size:
                if body is None:
                    body = self._data = memoryview(bytearray(size))
                n = reader.readinto(body[self.at :], size - self.at, False)
            else:
                return -1
            if n:
                self.at += n
            if self.at < size:
                return n
            self.at = 0
            self._data = None if self.left else bytes(body[head:-2])
            if head and size <= _SMALL + 2:
                from .headers import unpack

                unpack(self, bytes(body[:head]))
            body = body[-2:]
        if not self.left and body != b"\r\n":
            raise Malformed("no line end")
        return -1
