"""Subscriptions and their messages. Loaded with the first subscription."""

import gc
import time

from micropython import const

from .errors import INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, Malformed, fail, keep_only
from .stream import until

_SMALL = const(2048)  # bytes of a message that is taken whole
_OVERHEAD = const(128)  # bytes of heap that a queued message costs besides its data
_QUEUE = const(8192)  # bytes of messages that wait for their next()
_LEAVE = const(4096)  # bytes of heap that a large payload must leave free
_LATE = const(20)  # ms over its time that next() may go on through what has arrived


def next(nc, sub, timeout):
    """The next message of `sub`, or of any; see Connection.next."""
    deadline = until(timeout)
    while True:
        queue = nc._queue
        for i in range(len(queue)):
            if sub is None or queue[i].sub is sub:
                msg = queue.pop(i)
                nc._queued -= _OVERHEAD + len(msg._data or b"")
                return msg
        if nc._trouble or nc._draining or (sub and sub._sid not in nc._subs):
            from .calls import end

            if end(nc, sub):
                return None
        if nc._stream is None or nc._busy or nc._dialer or nc.pending:
            if nc._ready(deadline, timeout is None or timeout > 0) is None:
                return None
        try:
            msg = nc._take()
            if msg is None:
                if not nc._wait(deadline):
                    return None
                continue
        except (OSError, ValueError) as e:
            nc._drop(e)
            continue
        if msg:
            if sub is None or msg.sub is sub:
                return msg
            msg.keep()
        if deadline is not None and time.ticks_diff(time.ticks_ms(), deadline) > _LATE:
            return None


class Subscription:
    """Messages on `subject`. Iterate over it, or call next()."""

    _got = 0  # messages that came
    _limit = 0  # messages after which it ends, 0 for never, -1 after unsubscribe()
    _dropped = 0
    _error = ""  # what the server says against it
    # _data, _head: of its last message's control line, all but the size, and the subject

    def __init__(self, connection, id, subject, queue):
        self.subject = subject
        self.queue = queue
        self._nc = connection
        self._sid = id

    def next(self, timeout=None):
        """The next message, or None after `timeout` s (None: for ever), or when the subscription
        has ended by itself; see Connection.next."""
        return next(self._nc, self, timeout)

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
        msg = None if self._limit < 0 or self._nc._closed else self.next()
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
    reply = ""
    head = 0  # bytes of headers
    left = 0  # bytes on the socket of a large one, with the line end, once it is delivered
    lost = False  # another call read past the body, or the connection broke
    at = 0
    _data = None

    def __init__(self, connection, line):
        """
        line: ``MSG <subject> <sid> [reply] <size>``, or
        ``HMSG <subject> <sid> [reply] <header size> <size>``; sizes in bytes, the last with the
        headers. Fields may be two spaces apart where the reply is empty. Raises Malformed.
        """
        self.connection = connection
        sub = connection._got
        if sub and line.startswith(sub._data):  # as the message before: only its size is new
            size = line[len(sub._data) :]
            if size.isdigit() and len(size) < 11 and sub._sid in connection._subs:
                self.sub = sub
                self.subject = sub._head
                self.size = size = int(size)
                if size > _SMALL:
                    self.left = size + 2
                return
        try:
            str(line, "utf-8")
        except UnicodeError:  # anybody may send that, and it costs nobody the connection
            from .headers import text

            line = text(line).encode()
        words = line.split(None, 6)
        more = len(words[0]) - 3  # 1 for HMSG
        n = len(words) - more
        if n == 4 or n == 5:
            head = words[-2] if more else b"0"
            sid = words[2]
            size = words[-1]
            # A size of more than 10 digits is a lie: the largest max_payload is 64 MiB.
            if head.isdigit() and sid.isdigit() and size.isdigit() and len(size) < 11 > len(sid):
                self.head = int(head)
                self.size = int(size) - self.head
                if self.size >= 0:
                    self.sub = sub = connection._subs.get(int(sid))
                    self.subject = str(words[1], "utf-8")
                    if n == 5:
                        self.reply = str(words[3], "utf-8")
                    elif sub and not more:
                        connection._got = sub
                        sub._data = line[: -len(size)]
                        sub._head = self.subject
                    if int(size) > _SMALL:
                        self.left = self.size + 2
                    return
        raise Malformed("malformed %r" % line[:64])

    def __len__(self):
        return self.size

    def __bool__(self):
        return True  # also when it is empty

    @property
    def data(self):
        """The whole payload, bytes-like.

        Raises INVALID_ARGUMENT if it is no longer there, PAYLOAD_TOO_LARGE if the heap can't
        hold it.
        """
        if self._data is None:
            size = self.size
            self.rewind()
            data = memoryview(allocate(size))
            at = 0
            while at < size:
                at += self.readinto(data[at:], size - at)
            self._data = data
        return self._data

    def rewind(self):
        """Start readinto() at the first byte. Raises INVALID_ARGUMENT where that is gone."""
        self.at = 0
        if self._data is None and (self.lost or self.left != self.size + 2):
            raise fail(INVALID_ARGUMENT, "read", self.subject)

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
        reader = nc._stream.reader
        n = min(n, self.left - 2)
        try:
            if n:
                got = None
                if reader.pos == reader.end:  # straight from the socket
                    got = reader.source.socket.readinto(buf, n)
                n = got or reader.readinto(buf, n)
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
            nc._fail(e, "read")

    def keep(self):
        """For the connection: have it wait in the queue, or drop it where that is full."""
        nc = self.connection
        cost = _OVERHEAD + len(self._data or b"")
        if nc._queued + cost > _QUEUE:
            self.lost = True
            if not self.sub._dropped:
                nc._trouble.append(self.sub)
            self.sub._dropped += 1
        else:
            nc._queue.append(self)
            nc._queued += cost

    def fill(self, reader):
        """For the connection: take what has arrived of a small message, or of a large one's
        headers. -1 when that is all, else as Reader.readinto."""
        head = self.head
        body = self._data
        at = reader.pos
        end = at + self.size
        if body is None and not (head or self.left) and end + 1 < reader.end:
            if reader.buf[end] != 13 or reader.buf[end + 1] != 10:
                raise Malformed("no line end")
            self._data = allocate(self.size, reader.view[at:end])
            reader.pos = end + 2
        else:
            size = head if self.left else head + self.size + 2
            if size > _SMALL + 2:  # more headers than are kept
                n = reader.skip(size - self.at, False)
                body = b"\r\n"
            elif size:
                if body is None:
                    body = self._data = memoryview(allocate(size))
                n = self.at < size and reader.readinto(body[self.at :], size - self.at, False)
            else:
                return -1
            if n:
                self.at += n
            if self.at < size:
                return n
            # Where the heap has no room for it, it is tried again the next time.
            self._data = None if self.left else allocate(size, body[head:-2])
            self.at = 0
            if head and size <= _SMALL + 2:
                try:
                    from .headers import unpack

                    unpack(self, bytes(body[:head]))
                except MemoryError:
                    pass  # a message comes all the same
            if not self.left and body[-2:] != b"\r\n":
                raise Malformed("no line end")
        return -1


def allocate(size, data=None):
    """`size` bytes of heap, or `data`, which has so many at most, as bytes. Raises
    PAYLOAD_TOO_LARGE if they are not to be had even without the code that can be loaded again."""
    for last in (False, True):
        try:
            if size > _SMALL and gc.mem_free() - size < _LEAVE:
                gc.collect()
                if gc.mem_free() - size < _LEAVE:
                    raise MemoryError
            return bytearray(size) if data is None else bytes(data)
        except MemoryError:
            if last:
                raise fail(PAYLOAD_TOO_LARGE, "heap", size, gc.mem_free(), size=size)
            keep_only("receive", "reader", "jsonpull", "sink", "download", "http")
