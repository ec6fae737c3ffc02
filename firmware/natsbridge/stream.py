"""A TCP socket that is never waited for longer than allowed, and a buffered reader.

The socket is non-blocking: each operation is tried first and polled for only after it gave
None. (With ``settimeout`` a read that times out loses the bytes it had, and on 1.19 poll
reports nothing while decrypted TLS bytes wait: both measured.)
"""

import errno
import select
import time

from micropython import const

from .errors import check

_SLICE = const(50)  # ms: two calls of idle are at most twice as far apart
_STALL = const(10000)  # ms without a byte moved after which a peer counts as gone
_REST = const(16)  # short lines that may wait for the peer to take them
_EVER = const(1 << 18)  # s, 3 days: longer than some ports' ticks_ms can tell


def until(timeout):
    """The deadline (ticks_ms) of what may take `timeout` s, None for none. Raises
    INVALID_ARGUMENT."""
    if timeout is not None:
        check("timeout", timeout, 0, float)
        if timeout < _EVER:
            return time.ticks_add(time.ticks_ms(), int(timeout * 1000))


def passed(deadline):
    """Whether `deadline` is over."""
    return deadline is not None and time.ticks_diff(deadline, time.ticks_ms()) <= 0


class Stream:
    """A connection to `host`:`port`.

    Every wait ends with OSError(ETIMEDOUT) after 10 s in which no byte moved, or when
    `deadline` (a time.ticks_ms() value, None for none) has passed. `idle`, if not None, is
    called at least every 100 ms while something is waited for, read or written.
    tls: None, or connect's options for TLS: then the first write or read shakes hands, as part of
    its time, and raises OSError with what is wrong. A step of the handshake blocks while the port
    computes it (RP2040: seconds). Options that are not enough are INVALID_ARGUMENT here.

    The name look-up blocks as long as the port lets it: it cannot be bounded from here. Without a
    host nothing is connected yet: tcp.open_connection does that, step by step.
    """

    def __init__(self, host, port, deadline=None, idle=None, tls=None):
        self.deadline = deadline
        self.idle = idle
        self.socket = None  # what is read and written
        self.raw = None  # what is polled: the TCP socket below TLS
        # What a write waits for: in a TLS handshake the peer; 0 once its certificate was refused.
        self.out = select.POLLOUT
        self.poll = select.poll()
        self.rest = []  # what `post` could not write yet
        self.last = 0  # ticks_ms of the last call of idle
        if host:
            from .tcp import connect

            connect(self, host, port, tls)

    def tick(self):
        """Call idle, unless that was just done."""
        now = time.ticks_ms()
        if self.idle and not 0 <= time.ticks_diff(now, self.last) < _SLICE:
            self.last = now
            self.idle()

    def wait(self, deadline, flags=select.POLLIN):
        """Wait until `deadline` (ticks_ms; None: for ever) for something to read, or for the poll
        events `flags`: those that came, or 0."""
        self.poll.modify(self.raw, flags)
        while True:
            ms = _SLICE
            if deadline is not None:
                ms = min(ms, max(0, time.ticks_diff(deadline, time.ticks_ms())))
            for _, events in self.poll.ipoll(ms):
                self.tick()
                return events
            self.tick()
            if passed(deadline):
                return 0

    def _wait(self, flags, end=None):
        """Likewise, until `end`, at first for as long as any single wait may last: the end for the
        next wait, if the socket woke up for nothing. Raises OSError(ETIMEDOUT)."""
        if end is None:
            end = time.ticks_add(time.ticks_ms(), _STALL)
            if self.deadline is not None and time.ticks_diff(self.deadline, end) < 0:
                end = self.deadline
        if passed(end) or not self.wait(end, flags):
            raise OSError(errno.ETIMEDOUT)
        return end

    def readinto(self, buf, n, wait=True):
        """Read 1 to `n` bytes into `buf`: their number, 0 at the end of the stream, None if nothing
        is there yet and not `wait`."""
        end = None
        while True:
            got = self.socket.readinto(buf, n)
            if got is not None or not wait:
                return got
            end = self._wait(select.POLLIN, end)

    def write(self, buf, start=0, n=None):
        """Write `n` bytes of `buf` from `start`, all of them."""
        end = None
        while self.rest:
            self.post()
            if self.rest:
                end = self._wait(self.out, end)
        if n is None:
            n = len(buf) - start
        end = None
        while n:
            done = self.socket.write(buf, start, n)
            if done is None:
                end = self._wait(self.out, end)
            else:
                start += done
                n -= done
                end = None
        if self.idle:
            self.tick()

    def post(self, line=None):
        """Write a short line without waiting; what the peer does not take yet goes before the next
        write."""
        rest = self.rest
        if line:
            rest.append(line)
        while rest:
            # The same again after None: TLS has taken it already.
            done = self.socket.write(rest[0])
            if done is None:
                if len(rest) > _REST:
                    raise OSError(errno.ETIMEDOUT)
                return
            line = rest.pop(0)[done:]
            if line:
                rest.insert(0, line)

    def close(self):
        for s in (self.socket, self.raw):
            if s:
                s.close()


class Reader:
    """Reads from `source` through a buffer of `size` bytes.

    `source` needs ``readinto(buf, n, wait)``, as Stream has it.
    """

    def __init__(self, source, size):
        self.source = source
        self.buf = bytearray(size)
        self.view = memoryview(self.buf)
        self.pos = 0
        self.end = 0
        self.head = b""  # of a line longer than the buffer
        self.more = 0  # buffers of it
        self.poll = b"PING\r\n"  # what asks the peer for a sign of life

    def fill(self, wait=True):
        """Read more: the number of bytes, 0 at the end, None if nothing is there and not `wait`."""
        buf = self.buf
        room = len(buf) - self.end
        if self.pos == self.end:
            self.pos = self.end = 0
            room = len(buf)
        elif not room:
            rest = self.end - self.pos
            self.view[:rest] = self.view[self.pos : self.end]
            self.pos = 0
            self.end = rest
            room = len(buf) - rest
        if self.end:
            buf = self.view[self.end :]
        got = self.source.readinto(buf, room, wait)
        if got:
            self.end += got
        return got

    def line(self, limit):
        """The next line without its line end, as bytes, or None if it has not all arrived.

        Raises ValueError if it has no end within `limit` bytes.
        """
        pos = self.pos
        at = find(self.buf, b"\n", pos, self.end)
        stop = self.end if at < 0 else at
        if len(self.head) + stop - pos > limit:
            raise ValueError("a line of more than %d bytes" % limit)
        if at < 0:
            if stop - pos == len(self.buf):
                self.pos = stop
                self.more += 1
                try:
                    self.head += bytes(self.buf)
                    if self.more & 3 == 0:
                        from .news import trunc

                        self.head = trunc(self.head, self.more)
                except MemoryError:
                    raise ValueError("a line that does not fit the heap")
            return None
        self.pos = at + 1
        if self.head:
            line = self.head + bytes(self.view[pos:at])
            self.head = b""
            self.more = 0
            return line[:-1] if line.endswith(b"\r") else line
        if at > pos and self.buf[at - 1] == 13:
            at -= 1
        return bytes(self.view[pos:at])

    def readline(self, limit):
        """Like `line`, but waits for it. Raises EOFError if the stream ends first."""
        while True:
            line = self.line(limit)
            if line is not None:
                return line
            if not self.fill():
                raise EOFError

    def readinto(self, buf, n, wait=True):
        """Read 1 to `n` bytes into `buf`: their number, 0 at the end, None if nothing is there and
        not `wait`."""
        have = self.end - self.pos
        if not have:
            return self.source.readinto(buf, n, wait)
        n = min(n, have)
        buf[:n] = self.view[self.pos : self.pos + n]
        self.pos += n
        return n

    def skip(self, n, wait=True):
        """Pass over up to `n` bytes: the number passed, 0 at the end, None if nothing is there and
        not `wait`."""
        if self.pos == self.end:
            got = self.fill(wait)
            if not got:
                return got
        n = min(n, self.end - self.pos)
        self.pos += n
        return n


if hasattr(bytearray, "find"):
    find = bytearray.find  # find(buf, sub, start, end): where `sub` first is, or -1

else:  # MicroPython 1.19

    def find(buf, sub, start, end):
        at = bytes(memoryview(buf)[start:end]).find(sub)
        return at if at < 0 else at + start
