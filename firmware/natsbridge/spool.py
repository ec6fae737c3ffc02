"""Messages that wait on flash until a stream has them: for devices that lose their network.

    spool = Spool("/spool", 200000)
    spool.send("bridge.readings", [("t", {"celsius": 21.5}, "dictionary")], nats_connection=nc)
    spool.flush(nc)

A message is a file: its payloads one after the other, JSON of what smartsend is told, the length of
that (4 bytes), and the SHA-256 of all before. It is written under another name and renamed,
so that a power cut leaves a message or none; it is removed when a stream has acknowledged it.
"""

import hashlib
import json
import os

from micropython import const

from .errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    UPLOAD_FAILED,
    NATSBridgeError,
    check,
    fail,
    make_room,
)
from .log import timestamp, uuid4

_CHUNK = const(512)


class Spool:
    """A folder of messages, which is made if it is not there.

    folder: for this alone. limit: bytes that all messages may take. drop: whether the oldest are
    dropped where there is no room; else a message is refused.
    len(spool): how many wait. size: their bytes. dropped, damaged: how many were dropped, and set
    aside as *.bad, because they were damaged or can never be sent.
    """

    def __init__(self, folder, limit, drop=False):
        check("limit", limit, 1)
        self.folder = folder
        self.limit = limit
        self.drop = drop
        self.size = self.dropped = self.damaged = 0
        try:
            os.mkdir(folder)
        except OSError:
            pass  # it is there
        numbers = []
        for name in os.listdir(folder):
            path = folder + "/" + name
            if name == "part":
                os.remove(path)
            elif name.isdigit():
                numbers.append(int(name))
                self.size += os.stat(path)[6]
        self.at = min(numbers or [0])  # the number of the first message
        self._next = max(numbers or [-1]) + 1

    def __len__(self):
        return self._next - self.at

    def send(self, subject, data, nats_connection=None, **options):
        """smartsend with durable=True; but where the broker or the file server can't be reached, or
        others wait already, the message waits too. Whether a stream has it now.

        options: smartsend's, values that JSON can carry. The message is sent with the same msg_id
        whenever that is, and if it waited with the time of this call as `spooled` in its metadata.

        Raises as smartsend, but for what may pass. Where the message would have to wait,
        PAYLOAD_TOO_LARGE if there is no room, OSError if the flash fails.
        """
        options["msg_id"] = options.get("msg_id") or uuid4()
        if nats_connection and not len(self):
            if _sent(subject, data, nats_connection, options):
                return True
        self._put(subject, data, options)
        return bool(nats_connection) and not self.flush(nats_connection)

    def _put(self, subject, data, options):
        make_room(12288, "compose", "envelope")
        from .compose import check_json, open_source

        if check_json(options):
            raise fail(INVALID_ARGUMENT, "metadata")
        options["metadata"] = dict(options.get("metadata") or {}, spooled=timestamp())
        part = self.folder + "/part"
        sha = hashlib.sha256()
        buf = memoryview(bytearray(_CHUNK))
        payloads = []
        done = 0
        try:
            with open(part, "wb") as f:
                for name, value, kind in data:
                    source = open_source(name, value, kind)
                    left = source.size
                    start = done
                    n = 1
                    while n:
                        n = _CHUNK if left is None else min(_CHUNK, start + left - done)
                        n = source.fill(buf[:n], n, name)
                        self._write(f, buf[:n], done, sha)
                        done += n
                    payloads.append([name, kind, done - start])
                text = json.dumps([subject, payloads, options]).encode()
                self._write(f, text + len(text).to_bytes(4, "little"), done, sha)
                f.write(sha.digest())
            size = os.stat(part)[6]
            os.rename(part, "%s/%d" % (self.folder, self._next))
        except BaseException:
            try:
                os.remove(part)
            except OSError:
                pass  # the flash did not even take its name
            raise
        self._next += 1
        self.size += size

    def _write(self, f, data, done, sha):
        total = done + len(data) + 32
        while self.size + total > self.limit:
            if not (self.drop and len(self)) or total > self.limit:
                raise fail(PAYLOAD_TOO_LARGE, "spool", total, self.limit, self.size, size=total)
            self._end()
            self.dropped += 1
        sha.update(data)
        f.write(data)

    def flush(self, nats_connection):
        """Send what waits, in its order, until all is sent, or the broker or the file server can't
        be reached: how many wait still.

        Raises as smartsend, but for what may pass; the message waits then. One that can never be
        sent is set aside.
        """
        while len(self):
            files = []
            bad = False
            try:
                subject, data, options = read("%s/%d" % (self.folder, self.at), files)
                if not _sent(subject, data, nats_connection, options):
                    break
            except (OSError, ValueError):  # damaged
                bad = True
            except NATSBridgeError as e:
                if e.code not in (INVALID_ARGUMENT, PAYLOAD_TOO_LARGE):
                    raise
                bad = True
            finally:
                for f in files:
                    f.close()
            self._end(bad)
        return len(self)

    def _end(self, bad=False):
        """Remove the first message, or set it aside."""
        path = "%s/%d" % (self.folder, self.at)
        self.at += 1
        try:
            self.size -= os.stat(path)[6]
            if bad:
                os.rename(path, path + ".bad")
                self.damaged += 1
            else:
                os.remove(path)
        except OSError:
            pass  # it is not there


def _sent(subject, data, nc, options):
    """Whether a stream has it."""
    from .send import smartsend

    try:
        smartsend(subject, data, nats_connection=nc, durable=True, **options)
        return True
    except NATSBridgeError as e:
        if e.code not in (NATS_CONNECTION_FAILED, UPLOAD_FAILED):
            raise


def read(path, files):
    """What stands in a message's file: subject, data, options. Raises ValueError if it is damaged,
    OSError. files: gets what has to be closed."""
    from .envelope import Source

    f = open(path, "rb")
    files.append(f)
    left = f.seek(0, 2) - 32
    f.seek(0)
    sha = hashlib.sha256()
    buf = memoryview(bytearray(_CHUNK))
    while left > 0:
        n = f.readinto(buf[: min(left, _CHUNK)])
        sha.update(buf[:n])
        left -= n
    if left or f.read() != sha.digest():
        raise ValueError
    f.seek(-36, 2)
    size = int.from_bytes(f.read(4), "little")
    f.seek(-36 - size, 2)
    subject, data, options = json.loads(f.read(size))
    at = 0
    for p in data:
        f = open(path, "rb")
        files.append(f)
        source = Source(f)
        source.at = at
        source.size = p[2]
        at += source.size
        p[1:] = source, p[1]
    return subject, data, options
