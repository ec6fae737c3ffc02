"""Sockets as the boards have them, around the port's own: put first in MICROPYPATH.

Each operation may give None, move fewer bytes than asked, or be woken for nothing; errors have
the numbers of a board. $NATSBRIDGE_ROUGH is a seed (even: an ESP32, odd: an RP2), at random then,
or a seed and "bytes": one byte at a time, and None between any two. It allocates only for errors.

What is imitated was read in the ports' sources: a read gives one pbuf of what came, a write takes
what the send buffer has room for. ESP32 numbers errors as newlib does, shows an error as readable
and writable (never POLLERR), and refuses to write while it connects. RP2 calls a socket that
still connects writable, and a refused one hung up. Neither has ECONNREFUSED or EPIPE: lwIP says
ECONNRESET and ENOTCONN. A non-blocking connect() is in progress, whatever becomes of it.

An io.IOBase with an ioctl is a stream to the port, so poll() and TLS go through it too.
"""

import errno
import io
import os
import time

import usocket
from uselect import POLLHUP, POLLIN, POLLOUT
from uselect import poll as port_poll
from usocket import *

_rolled, _, _mode = os.getenv("NATSBRIDGE_ROUGH").partition(":")
_rolled = int(_rolled)
_esp32 = _rolled % 2 == 0
_bytes = _mode == "bytes"

# From Linux' number to the board's name.
_NAMES = {
    32: "ENOTCONN",  # EPIPE
    101: "EHOSTUNREACH",  # ENETUNREACH
    103: "ECONNABORTED",
    104: "ECONNRESET",
    107: "ENOTCONN",
    110: "ETIMEDOUT",
    111: "ECONNRESET",  # ECONNREFUSED
    113: "EHOSTUNREACH",
    114: "EALREADY",
    115: "EINPROGRESS",
}


def _roll(n):
    """A number from 0 to n - 1; it fits a small int on the way."""
    global _rolled
    _rolled = (_rolled * 69069 + 12345) & 0xFFFFFF
    return (_rolled >> 8) % n


def _board(e):
    """The error of the port as the board's."""
    return OSError(getattr(errno, _NAMES.get(e.errno, ""), e.errno))


def getaddrinfo(*arguments):
    try:
        return usocket.getaddrinfo(*arguments)
    except OSError:
        raise OSError(-202 if _esp32 else -2)


class socket(io.IOBase):
    def __init__(self, *arguments):
        self.port = usocket.socket(*arguments)
        self.poll = port_poll()
        self.poll.register(self.port)
        self.poll.ipoll(0)  # allocates its tuple
        self.waits = True  # it is blocking
        self.turn = False  # of the byte, not of the None
        self.turn_out = False  # likewise, of writing
        self.connecting = -1  # operations for which it still is; -1: it never was
        self.error = None  # what connecting came to

    def connect(self, address):
        try:
            self.port.connect(address)
        except OSError as e:
            if self.waits:
                raise _board(e)
            if e.errno != 115:
                self.error = _board(e)
        self.connecting = 0
        if not self.waits:
            self.connecting = _roll(4)
            raise OSError(errno.EINPROGRESS)

    def setblocking(self, flag):
        self.waits = bool(flag)
        self.port.setblocking(flag)

    def settimeout(self, s):
        self.waits = s != 0
        self.port.settimeout(s)

    def setsockopt(self, level, option, value):
        if _roll(2):
            raise OSError(errno.EINVAL)  # not on this board
        self.port.setsockopt(level, option, value)

    def _some(self, n, write):
        """How many of `n` bytes may be moved now; 0 for none."""
        if self.waits:
            return n
        if self.connecting:
            if self.connecting < 0:
                raise OSError(errno.ENOTCONN)
            self.connecting -= 1
            if write and _esp32:
                raise OSError(errno.EINPROGRESS)
            return 0
        if self.error:
            raise self.error
        if _bytes:
            # In turns of their own: in common ones, a read after each write would take them all.
            if write:
                self.turn_out = not self.turn_out
                return min(n, 1) if self.turn_out else 0
            self.turn = not self.turn
            return min(n, 1) if self.turn else 0
        if not _roll(4):
            return 0
        return n if n < 2 or _roll(2) else 1 + _roll(n)

    def readinto(self, buf, n=-1):
        if n < 0 or n > len(buf):
            n = len(buf)
        n = self._some(n, False)
        if not n:
            return None
        try:
            return self.port.readinto(buf, n)
        except OSError as e:
            raise _board(e)

    def read(self, n=-1):
        if n < 0 and not self.waits:
            n = 256
        elif n < 0 or self.waits:
            return self.port.read(n)
        buf = bytearray(n)
        n = self.readinto(buf)
        return None if n is None else bytes(buf[:n])

    def write(self, buf, start=0, n=-1):
        if n < 0:
            n = start or len(buf)  # write(buf, n), as the port has it
            start = 0
        n = self._some(min(n, len(buf) - start), True)
        if not n:
            return None
        try:
            return self.port.write(buf, start, n)
        except OSError as e:
            raise _board(e)

    def events(self, flags):
        """What poll() gives for `flags`."""
        asked = flags & (POLLIN | POLLOUT)
        if self.connecting:
            if self.connecting < 0:
                return POLLHUP
            self.connecting -= 1
            return 0 if _esp32 else asked & POLLOUT
        if self.error:
            return asked if _esp32 else asked & POLLOUT | POLLHUP
        if not _roll(8):
            return asked  # for nothing
        self.poll.modify(self.port, asked)
        for _, events in self.poll.ipoll(0):
            return events if events == events & asked or not _esp32 else asked
        return 0

    def sleep(self, ms):
        """Until there may be something, `ms` at most."""
        if self.connecting or self.error:
            time.sleep_ms(1)
        else:
            for _ in self.poll.ipoll(ms):
                break

    def ioctl(self, request, argument):
        if request == 4:
            self.close()
            return 0
        return self.events(argument) if request == 3 else -errno.EINVAL

    def close(self):
        self.port.close()

    send = write
    recv = read
