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

from . import errors
from .errors import INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, fail


class Spool:
    """A folder of messages, which is made if it is not there.

    folder: for this alone. limit: bytes that all messages may take. drop: whether the oldest are
    dropped where there is no room; else a message is refused.
    len(spool): how many wait. size: their bytes. dropped, damaged: how many were dropped, and set
    aside as *.bad, because they were damaged or can never be sent.

    Raises INVALID_ARGUMENT.
    """

    def __init__(self, folder, limit, drop=False):
        errors.check("limit", limit, 1)
        self.folder = folder
        self.limit = limit
        self.drop = drop
        from .opening import scan

        scan(self)

    def __len__(self):
        return len(self._queue)

    def send(self, subject, data, nats_connection=None, **options):
        """smartsend with durable=True, after what waits; but where the broker or the file server
        can't be reached, or others wait still, the message waits too. Whether a stream has it now.

        options: smartsend's, values that JSON can carry. The message is sent with the same msg_id
        whenever that is, and if it waited with the time of this call as `spooled` in its metadata.
        A stream that can't seek is written to flash before it is sent. Inside a callback of the
        connection every message waits.

        Raises only where the message is not kept: as smartsend, but for what may pass. Where it
        would have to wait, PAYLOAD_TOO_LARGE if there is no room, OSError if the flash fails. What
        becomes of others is told by flush.
        """
        from .log import timestamp, uuid4

        options["msg_id"] = options.get("msg_id") or uuid4()
        metadata = options.get("metadata") or {}
        if isinstance(metadata, dict):
            metadata = dict(metadata, spooled=timestamp())
        later = dict(options, metadata=metadata)
        _sent(subject, data, later, False)
        from .urls import home

        home(options.get("fileserver_url"))  # raises, if that is no URL
        home = None
        nc = nats_connection
        ready = nc and not self.flush(nc, True) and not nc._busy
        errors.make_room(12288, "compose", "source")
        from .compose import check_json, open_source

        why = check_json(later)
        if why:
            raise fail(INVALID_ARGUMENT, "json", why)
        files = []
        payloads = []  # as they stand in the file
        unsized = False
        total = 4
        for name, value, kind in data:
            source = open_source(name, value, kind)
            files.append((name, source, kind))
            size = source.size
            if size is None:
                unsized = True
                size = 0
            payloads.append([name, kind, size])
            total += size
        check_json = open_source = None  # free to be dropped
        if ready and not unsized and _sent(subject, files, options, nc):
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
                        left = self.limit  # more than there is room for
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
            numbers.append(self._sid)
            os.rename(part, "%s/%d" % (self.folder, self._sid))
        except BaseException:
            if self._sid in numbers:
                numbers.remove(self._sid)
            try:
                os.remove(part)
            except OSError:
                pass  # the flash did not even take its name
            raise
        self._sid += 1
        self.size += total
        bad = self.damaged
        return bool(ready and unsized and not self.flush(nc, True) and bad == self.damaged)

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
        sent is set aside. INVALID_ARGUMENT over MQTT, and inside a callback of the connection.
        """
        nc = nats_connection
        errors.check_type(nc or 1)
        if nc._options["mqtt"]:
            raise fail(INVALID_ARGUMENT, "mqtt", "stream")
        if nc._busy and not wait:
            raise fail(INVALID_ARGUMENT, "write")
        while self._queue and not nc._busy:
            files = []
            bad = True
            first = self._queue[0]
            try:
                subject, data, options = read("%s/%d" % (self.folder, first), files)
                bad = False
                if not _sent(subject, data, options, nc):
                    break
            except MemoryError:
                break
            except (OSError, ValueError):
                if not bad:  # what the server answered was
                    break
            except errors.NATSBridgeError as e:
                if e.code not in (INVALID_ARGUMENT, PAYLOAD_TOO_LARGE):
                    if wait:
                        break
                    raise
                bad = True
            finally:
                for f in files:
                    f.close()
            if first in self._queue:  # a callback may have dropped it
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
    """Whether a stream has it; not, where what failed may pass. nc: False to have it checked only,
    which a heap that is full now does not prevent."""
    try:
        from .send import smartsend

        smartsend(subject, data, nats_connection=nc, durable=True, **options)
        return True
    except errors.NATSBridgeError as e:
        if e.code == PAYLOAD_TOO_LARGE:  # of the broker, or of a heap or queue that is full now
            if nc and e.details.get("size", 0) > nc.max_payload:
                raise
        elif e.code not in (errors.NATS_CONNECTION_FAILED, errors.UPLOAD_FAILED):
            raise


def read(path, files):
    """What stands in a message's file: subject, data, options. Raises ValueError if it is damaged,
    OSError. files: gets what has to be closed."""
    from .source import Source

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
