"""The device of test_killed.py: receives messages into a folder, and sends back what came.

It counts what it does with sockets and files, and kills itself before one of these operations.
"""

import builtins
import os
import sys

import natsbridge
from natsbridge import files, sink, stream

broker, server, folder, messages, last = sys.argv[1:]
left = int(last)  # operations; -1: no end of them
done = 0


def count():
    global done
    done += 1
    if done == left:
        os.system("kill -9 $PPID")
        while True:
            pass


def counted(function):
    def call(*arguments):
        count()
        return function(*arguments)

    return call


class Counted:
    """A socket or a file."""

    def __init__(self, it):
        for name in ("readinto", "write", "seek", "close"):
            if hasattr(it, name):
                setattr(self, name, counted(getattr(it, name)))


class Stream(stream.Stream):
    @property
    def socket(self):
        return self._socket

    @socket.setter
    def socket(self, it):
        self._socket = it and Counted(it)


class System:
    getenv = urandom = None
    ilistdir = counted(os.ilistdir)
    remove = counted(os.remove)
    rename = counted(os.rename)
    stat = counted(os.stat)


def opened(path, mode="r"):
    if mode != "wb":
        return plain_open(path, mode)
    count()
    return Counted(plain_open(path, mode))


plain_open = open
builtins.open = opened
stream.Stream = Stream
files.os = sink.os = System

nc = natsbridge.connect(broker)
sub = nc.subscribe("killed.there")
nc.flush()
print("ready")
for _ in range(int(messages)):
    env = natsbridge.smartreceive(sub.next(20), sink=folder, fileserver_url=server)
    for name, path, kind in env["payloads"]:
        f = plain_open(path, "rb")
        options = {"nats_connection": nc, "fileserver_url": server, "size_threshold": 20000}
        natsbridge.smartsend("killed.back", [(name, f, kind)], **options)
        f.close()
nc.flush()
nc.close()
print(done)
