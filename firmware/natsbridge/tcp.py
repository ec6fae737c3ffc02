"""Opening a TCP connection. Dropped again afterwards."""

import errno
import select
import socket

from .errors import drop


def connect(stream, host, port, tls):
    """Connect `stream`, within its deadline, and begin TLS if there are options for it."""
    try:
        for flag in open_connection(stream, host, port):
            stream._wait(flag)
        if tls:
            from .tls import Handshake

            Handshake(stream, tls, host)
    except BaseException:
        stream.close()
        raise
    finally:
        drop("tcp")


def open_connection(stream, host, port):
    """Connect `stream` to the first address of `host` that answers. Yields the poll events to wait
    for, as often as it must wait.

    Raises OSError.
    """
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    while True:
        info = found.pop(0)
        try:
            yield from start(stream, info)
            return
        except OSError:
            if not found:
                raise
            stream.close()


def start(stream, info):
    stream.socket = stream.raw = s = socket.socket(info[0], socket.SOCK_STREAM)
    s.setblocking(False)
    try:
        # TCP_NODELAY: a message's last piece must not wait for the ACK of the one before
        # (measured: 40 ms).
        s.setsockopt(6, 1, 1)
    except (OSError, ValueError, NotImplementedError):
        pass  # not on this port
    try:
        s.connect(info[-1])
    except OSError as e:
        # EINPROGRESS: 115 on Linux and ESP32's lwIP sockets, 119 in newlib; errno is the port's.
        if e.errno not in (errno.EINPROGRESS, errno.EALREADY, 115, 119):
            raise
    stream.poll.register(s, select.POLLOUT)
    while True:
        # A look for 0 ms first, so that whoever comes back too early is told again.
        for _, events in stream.poll.ipoll(0):
            if events & (select.POLLERR | select.POLLHUP):
                s.readinto(bytearray(1))  # raises the reason, where the port knows it
                raise OSError(errno.ECONNREFUSED)
            return
        yield select.POLLOUT
