"""A TCP socket that is never waited for longer than allowed, and a buffered reader.

The socket is non-blocking: each operation is tried first and polled for only after it gave
None. (With ``settimeout`` a read that times out loses the bytes it had, and on 1.19 poll
reports nothing while decrypted TLS bytes wait: both measured.)
"""

import errno
import select
import socket
import time

from micropython import const

_SLICE = const(100)  # ms between two calls of idle
_STALL = const(10000)  # ms without a byte moved after which a peer counts as gone
# EINPROGRESS: 115 on Linux and ESP32's lwIP sockets, 119 in newlib; the errno module is the port's.
_CONNECTING = (errno.EINPROGRESS, errno.EALREADY, 115, 119)


def until(timeout):
    """The deadline (ticks_ms) of what may take `timeout` s, None for none."""
    if timeout is not None:
        return time.ticks_add(time.ticks_ms(), int(timeout * 1000))


class Stream:
    """A connection to `host`:`port`.

    Every wait ends with OSError(ETIMEDOUT) after 10 s in which no byte moved, or when
    `deadline` (a time.ticks_ms() value, None for none) has passed. `idle`, if not None, is
    called at least every 100 ms while something is waited for.
    The name look-up blocks as long as the port lets it: it cannot be bounded from here.
    """

    def __init__(self, host, port, deadline=None, idle=None):
        self.deadline = deadline
        self.idle = idle
        self._idled = time.ticks_ms()
        info = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        self.socket = socket.socket(info[0], socket.SOCK_STREAM)
        try:
            self.socket.setblocking(False)
            try:
                # TCP_NODELAY: a message's last piece must not wait for the ACK of the one before
                # (measured: 40 ms).
                self.socket.setsockopt(6, 1, 1)
            except (OSError, ValueError, NotImplementedError):
                pass  # not on this port
            self.poll = select.poll()
            try:
                self.socket.connect(info[-1])
            except OSError as e:
                if e.errno not in _CONNECTING:
                    raise
            self.poll.register(self.socket, select.POLLOUT)
            if self._wait(select.POLLOUT, self._end()) & (select.POLLERR | select.POLLHUP):
                self.socket.readinto(bytearray(1))  # raises the reason, where the port knows it
                raise OSError(errno.ECONNREFUSED)
        except BaseException:
            self.close()
            raise

    def wait(self, deadline, flag=select.POLLIN):
        """Wait until `deadline` (ticks_ms; None: for ever) for something to read, or for the poll
        events `flag`: the events, 0 if none came."""
        self.poll.modify(self.socket, flag)
        while True:
            ms = _SLICE
            if deadline is not None:
                ms = min(ms, max(0, time.ticks_diff(deadline, time.ticks_ms())))
            events = 0
            for _, found in self.poll.ipoll(ms):
                events = found
            # Also where the socket wakes up again and again for nothing.
            if self.idle and time.ticks_diff(time.ticks_ms(), self._idled) >= _SLICE:
                self.idle()
                self._idled = time.ticks_ms()
            if events:
                return events
            if deadline is not None and time.ticks_diff(deadline, time.ticks_ms()) <= 0:
                return 0

    def _end(self):
        """When a wait that begins now must have moved a byte (ticks_ms)."""
        end = time.ticks_add(time.ticks_ms(), _STALL)
        if self.deadline is not None and time.ticks_diff(self.deadline, end) < 0:
            end = self.deadline
        return end

    def _wait(self, flag, end):
        """Likewise, until `end`. Raises OSError(ETIMEDOUT)."""
        events = self.wait(end, flag)
        if not events:
            raise OSError(errno.ETIMEDOUT)
        return events

    def try_readinto(self, buf, n):
        """Read up to `n` bytes into `buf` without waiting: their number, 0 at the end, None if
        nothing is there yet."""
        return self.socket.readinto(buf, n)

    def readinto(self, buf, n):
        """Read 1 to `n` bytes into `buf`: their number, 0 at the end of the stream."""
        end = None
        while True:
            got = self.socket.readinto(buf, n)
            if got is not None:
                return got
            if end is None:
                end = self._end()
            self._wait(select.POLLIN, end)

    def write(self, buf, start=0, n=None):
        """Write `n` bytes of `buf` from `start`, all of them."""
        if n is None:
            n = len(buf) - start
        end = None
        while n:
            done = self.socket.write(buf, start, n)
            if done is not None:
                start += done
                n -= done
                end = None
            else:
                if end is None:
                    end = self._end()
                self._wait(select.POLLOUT, end)

    def close(self):
        self.socket.close()


class Reader:
    """Reads from `source` through a buffer of `size` bytes.

    `source` needs ``readinto(buf, n)`` (waits; 0 at the end) and, for `fill(False)`,
    ``try_readinto(buf, n)`` (None when nothing is there yet).
    """

    def __init__(self, source, size):
        self.source = source
        self.buf = bytearray(size)
        self.view = memoryview(self.buf)
        self.pos = 0
        self.end = 0
        self.head = b""  # of a line longer than the buffer

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
        got = self.source.readinto(buf, room) if wait else self.source.try_readinto(buf, room)
        if got:
            self.end += got
        return got

    def line(self, limit):
        """The next line without its line end, as bytes, or None if it has not all arrived.

        Raises ValueError if it has no end within `limit` bytes.
        """
        at = find(self.buf, b"\n", self.pos, self.end)
        stop = self.end if at < 0 else at
        if len(self.head) + stop - self.pos > limit:
            raise ValueError("a line of more than %d bytes" % limit)
        if at < 0:
            if self.end - self.pos == len(self.buf):
                try:
                    self.head += bytes(self.buf)
                except MemoryError:
                    raise ValueError("a line that does not fit the heap")
                self.pos = self.end
            return None
        line = bytes(self.view[self.pos : at])
        self.pos = at + 1
        if self.head:
            line = self.head + line
            self.head = b""
        return line[:-1] if line.endswith(b"\r") else line

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
            if wait:
                return self.source.readinto(buf, n)
            return self.source.try_readinto(buf, n)
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

    def find(buf, what, start, end):
        """Where `what` first is in buf[start:end], or -1."""
        return buf.find(what, start, end)

else:  # MicroPython 1.19

    def find(buf, what, start, end):
        at = bytes(memoryview(buf)[start:end]).find(what)
        return at if at < 0 else at + start
