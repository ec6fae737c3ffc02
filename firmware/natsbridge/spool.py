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

from . import log
from .errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    UPLOAD_FAILED,
    NATSBridgeError,
    check,
    check_type,
    fail,
)


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
        self._queue = numbers = []  # with gaps where a stray file was
        for name in os.listdir(folder):
            path = folder + "/" + name
            if name == "part":
                os.remove(path)
            elif name.isdigit():
                numbers.append(int(name))
                self.size += os.stat(path)[6]
        numbers.sort()

    def __len__(self):
        return len(self._queue)

    def send(self, subject, data, nats_connection=None, **options):
        """smartsend with durable=True, after what waits; but where the broker or the file server
        can't be reached, or others wait still, the message waits too. Whether a stream has it now.

        options: smartsend's, values that JSON can carry. The message is sent with the same msg_id
        whenever that is, and if it waited with the time of this call as `spooled` in its metadata.
        A stream that can't seek is written to flash before it is sent.

        Raises only where the message is not kept: as smartsend, but for what may pass. Where it
        would have to wait, PAYLOAD_TOO_LARGE if there is no room, OSError if the flash fails. What
        becomes of others is told by flush.
        """
        options["msg_id"] = options.get("msg_id") or log.uuid4()
        later = dict(options, metadata=dict(options.get("metadata") or {}, spooled=log.timestamp()))
        try:
            _sent(subject, data, later, self)
        except AttributeError:
            pass  # all that it checks before it needs a connection is right
        ready = nats_connection and not self.flush(nats_connection, True)
        from .compose import check_json, open_source

        if check_json(later):
            raise fail(INVALID_ARGUMENT, "metadata")
        files = []
        payloads = []  # as they stand in the file
        unsized = False
        total = 4
        for name, value, kind in data:
            source = open_source(name, value, kind)
            files.append((name, source, kind))
            unsized = unsized or source.size is None
            payloads.append([name, kind, source.size or 0])
            total += source.size or 0
        check_json = open_source = None  # free to be dropped
        if ready and not unsized and _sent(subject, files, options, nats_connection):
            return True
        message = subject, payloads, later
        self._room(total + len(json.dumps(message).encode()))  # before any is dropped in vain
        numbers = self._queue
        part = self.folder + "/part"
        sha = hashlib.sha256()
        buf = memoryview(bytearray(512))
        total = 0
        try:
            with open(part, "wb") as f:
                for p in payloads:
                    source = files.pop(0)[1]
                    left = source.size
                    if left is None:
                        left = 1 << 29
                    else:
                        source.rewind()  # it may have been sent in vain
                    p[2] = 0
                    n = 1
                    while n:
                        n = min(512, left - p[2])
                        n = source.fill(buf[:n], n, p[0])
                        p[2] += n
                        total += n
                        self._room(total)
                        sha.update(buf[:n])
                        f.write(buf[:n])
                text = json.dumps(message).encode()
                text += len(text).to_bytes(4, "little")
                total += len(text)
                self._room(total)
                total += 32
                sha.update(text)
                f.write(text)
                f.write(sha.digest())
            numbers.append(numbers[-1] + 1 if numbers else 0)
            os.rename(part, "%s/%d" % (self.folder, numbers[-1]))
        except BaseException:
            try:
                os.remove(part)
            except OSError:
                pass  # the flash did not even take its name
            raise
        self.size += total
        bad = self.damaged
        return bool(
            ready and unsized and not self.flush(nats_connection, True) and bad == self.damaged
        )

    bound = scratch = bool  # as a connection has, for smartsend to check arguments without one

    def _room(self, total):
        """Make room for a message, and its digest."""
        total += 32
        while self.size + total > self.limit:
            if not (self.drop and self._queue) or total > self.limit:
                raise fail(PAYLOAD_TOO_LARGE, "spool", total, self.limit, self.size, size=total)
            self._end()
            self.dropped += 1

    def flush(self, nats_connection, wait=False):
        """Send what waits, in its order, until all is sent, or the broker or the file server can't
        be reached, or the heap is short: how many wait still. wait: what else is in the way is not
        raised either.

        Raises as smartsend, but for what may pass; the message waits then. One that can never be
        sent is set aside.
        """
        check_type(nats_connection or 1)
        while self._queue:
            files = []
            bad = True
            try:
                subject, data, options = read("%s/%d" % (self.folder, self._queue[0]), files)
                bad = False
                if not _sent(subject, data, options, nats_connection):
                    break
            except MemoryError:
                break
            except (OSError, ValueError):
                if not bad:  # what the server answered was
                    break
            except NATSBridgeError as e:
                if e.code not in (INVALID_ARGUMENT, PAYLOAD_TOO_LARGE):
                    if wait:
                        break
                    raise
                bad = True
            finally:
                for f in files:
                    f.close()
            self._end(bad)
        return len(self._queue)

    def _end(self, bad=False):
        """Remove the first message, or set it aside."""
        path = "%s/%d" % (self.folder, self._queue.pop(0))
        try:
            self.size -= os.stat(path)[6]
            if bad:
                os.rename(path, path + ".bad")
                self.damaged += 1
            else:
                os.remove(path)
        except OSError:
            pass  # it is not there


def _sent(subject, data, options, nc):
    """Whether a stream has it; not, where what failed may pass."""
    try:
        from .send import smartsend

        smartsend(subject, data, nats_connection=nc, durable=True, **options)
        return True
    except NATSBridgeError as e:
        if e.code == PAYLOAD_TOO_LARGE:  # of the broker, or of a heap or queue that is full now
            if e.details.get("size", 0) > nc.max_payload:
                raise
        elif e.code not in (NATS_CONNECTION_FAILED, UPLOAD_FAILED):
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
    buf = memoryview(bytearray(512))
    while left > 0:
        n = f.readinto(buf[: min(left, 512)])
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
