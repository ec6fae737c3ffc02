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

from . import errors
from .errors import (
    INVALID_ARGUMENT,
    NATS_CONNECTION_FAILED,
    PAYLOAD_TOO_LARGE,
    Malformed,
    drop,
    fail,
)
from .payload import check_subject, flat
from .stream import passed, until

_SMALL = const(2048)  # bytes of a message that is taken whole
_OVERHEAD = const(128)  # bytes of heap that a queued message costs besides its data
_QUEUE = const(8192)  # bytes of messages that wait for their next()
_ROOM = const(_QUEUE - _SMALL - _OVERHEAD)  # queued bytes up to which any small message fits
_JOIN = const(1024)  # bytes of a payload up to which one write is cheaper than three
_SERVE = const(5000)  # ms without a look at the socket after which publish() takes one
_PIECES = const(64)  # pieces to take at a time, so that nothing but waiting takes long
_MAX_LINE = const(4096)  # bytes, as servers take themselves; an INFO is shortened while it comes
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

    def __init__(self, name, id):
        self.name = name
        self.id = id
        self.url = ""
        self.max_payload = 0
        self.connected = False
        self.pending = 0
        self.tls = None
        self.idle = None  # on_idle, kept from using the connection
        self._options = None  # connect's, and what greet keeps
        self._limit = 0  # ms without a word after which the server is asked for one
        self._stream = None
        self._dialer = None  # makes a connection, or another one
        self.deadline = None  # of what is done with the connection: see bound
        self._closed = False
        self._busy = False  # in the middle of a message that is being written, or in on_idle
        self._msg = None  # the class, once there is a subscription
        self._got = None  # the subscription that got the last message
        self._subs = {}
        self._sid = 0
        self._queue = []
        self._queued = 0
        self._head = None  # a message that has not all arrived
        self._unread = None  # a large message whose body is still on the socket
        self._pings = 0  # PINGs sent on this socket that wait for their PONG
        self._draining = []  # [PONGs until it ends, sid] of subscriptions; [0, 0] by drain()
        self._error = ""  # what was refused since the last flush, or why what was published is lost
        self._dirty = False  # published since the last flush
        self._why = ""  # the connection was lost
        self._trouble = []  # subscriptions that have something to raise
        self._checked = ""  # the subject that can be published to at once
        self._seen = 0  # ticks_ms of the last look at the socket
        self._quiet = 0  # ticks_ms since when nothing was heard while we looked
        self.scratch = bytearray(1032)  # what envelopes and files are read through

    # -- connecting

    def _drop(self, error):
        """Close the socket. What was half read or half written is gone with it."""
        if self._stream:
            self._why = str(error) or "close"
            self._stream.close()
        self._stream = self._head = None
        self.connected = False
        self._checked = ""
        if self._unread:
            self._unread.lost = True
            self._unread = None
        if self._dirty:
            self._error = self._why
            self._dirty = False

    def _ready(self, deadline, wait=True):
        """The stream; connects again if it was lost, until `deadline`. Without `wait` it takes a
        step towards that, and is None as long as that is not done."""
        if self._busy:
            raise fail(INVALID_ARGUMENT, "write")
        try:
            if self._stream is None or self._dialer:
                # What sends is kept while it does.
                used = ()
                if errors.working:
                    used = ("send", "source", "envelope", "jetstream", "headers")
                if not (self._dialer and used):
                    errors.make_room(16384, "greet", "news", "tcp", *used)
                if self._dialer:  # it has it, also where its module was dropped
                    connect = self._dialer.connect
                else:
                    from .greet import connect

                connect(self, deadline, wait)
            if self.pending:
                from .pending import flush

                flush(self, deadline, wait)
        except MemoryError:
            if not wait:
                return None  # it takes that step again
            raise fail(NATS_CONNECTION_FAILED, "connect", ": the heap is full", memory=True)
        return self._stream

    def _fail(self, error, name):
        """Drop the connection, and raise that, from the call of that name."""
        self._drop(error)
        raise fail(NATS_CONNECTION_FAILED, "connection", self.url, name, self._why)

    def bound(self, deadline):
        """Bound what is done next by `deadline` (ticks_ms), or by nothing (None)."""
        self.deadline = deadline
        if self._stream:
            self._stream.deadline = deadline

    def close(self):
        """Close the connection. It can be called twice.

        Raises NATS_CONNECTION_FAILED, when it is closed, if queued messages could not be sent.
        """
        self._closed = True
        if self.pending:
            from .pending import close

            close(self)
        self._drop("close")
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
        if subject and subject == self._checked and seen and isinstance(payload, bytes):
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
        payload = getattr(payload, "_data", None) or payload  # an envelope that is written already
        streams = hasattr(payload, "write_to")
        if not streams:
            try:
                payload = flat(payload)
            except TypeError:
                raise fail(INVALID_ARGUMENT, "payload", payload)
        size = len(payload)
        if headers:
            from .headers import pack

            head, size = pack(self, subject, reply, headers, size)
        else:
            head = ("PUB %s %s %d\r\n" % (subject, reply or "", size)).encode()
        deadline = until(self._options["timeout"])
        if self._options["pending_size"]:
            from .pending import publish

            if publish(self, head, payload, size):
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
                self.send(stream, head, payload, b"\r\n")
                if self.max_payload >= _JOIN:
                    self._checked = subject
                return
            except OSError as e:
                error = e
            except BaseException:
                if self._busy:  # MQTT also waits here
                    # A message was begun and can't be finished: only a new connection is clean.
                    # This one ends in order: what went before arrives, and no server has to be
                    # spared.
                    self._dirty = False
                    self._drop("source")
                    self._options["hold"] = time.ticks_ms()
                raise
            finally:
                self._busy = False
            self.serve()  # what the server said before it closed is a better reason
            if streams or not again:
                self._fail(error, "publish")
            self._drop(error)  # it can't have arrived whole: once again, in a new connection

    def send(self, stream, head, payload, end):
        """Write a message. (What MQTT does in another way.)"""
        if hasattr(payload, "write_to"):
            stream.write(head)
            payload.write_to(stream)
        elif len(payload) > _JOIN:
            stream.write(head)
            stream.write(payload)
        else:
            end = b"".join((head, payload, end))
        stream.write(end)
        self._dirty = True

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
            stream.write(stream.reader.poll)
            self._pings += 1
            while self._pings:
                msg = self._take()
                if msg:
                    msg.keep()
                elif not self._pings:
                    break
                if passed(deadline) or (msg is None and not self._wait(deadline)):
                    raise OSError("no PONG within %s s" % timeout)
            self._dirty = False
        except (OSError, ValueError) as e:
            self._dirty = False  # that is told now
            self._fail(e, "flush")
        stream.deadline = self.deadline
        if self._error:
            from .calls import flush

            flush(self)

    # -- receiving

    def subscribe(self, subject, queue=""):
        """Receive what is published to `subject` (wildcards allowed), shared within `queue`."""
        check_subject(subject, True)
        if queue != "":
            check_subject(queue, True)
        stream = self._ready(until(self._options["timeout"]))
        self._sid += 1
        from .subscription import Msg, Subscription

        self._msg = self._msg or Msg
        sub = Subscription(self, self._sid, subject, queue)
        try:
            stream.write(("SUB %s %s %d\r\n" % (subject, queue, self._sid)).encode())
        except OSError as e:
            self._fail(e, "subscribe")
        self._subs[self._sid] = sub
        return sub

    def next(self, timeout=None):
        """The next message of any subscription, or None after `timeout` s (None: wait for ever,
        also for a lost connection to come back). With 0 it never waits.

        Raises NATS_CONNECTION_FAILED if the connection is lost and does not come back within
        `timeout` (not with 0: then `connected` tells), or the server refused a subscription;
        PAYLOAD_TOO_LARGE once after messages were dropped because the queue was full.
        """
        from .subscription import next

        return next(self, None, timeout)

    def request(self, subject, payload, timeout=5, headers=None):
        """Publish `payload` and return the first answer, or None after `timeout` s.

        Raises NATS_CONNECTION_FAILED at once if nobody subscribes to `subject`, and if the
        connection is lost and does not come back within `timeout`.
        """
        from .calls import request

        return request(self, subject, payload, timeout, headers)

    def inbox(self, stream, name, subject="", ack_wait=30):
        """What the stream of that name keeps for this peer, under the name of a durable consumer,
        which is made if there is none.

        subject: only what was published to it (wildcards allowed).
        ack_wait: s after which a message comes again that was not acknowledged.

        Raises STREAM_FAILED, INVALID_ARGUMENT, NATS_CONNECTION_FAILED.
        """
        from .inbox import inbox

        return inbox(self, stream, name, subject, ack_wait)

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

    def serve(self, limit=1 << 29):
        """Likewise, while something else is done, and call on_idle. Messages that are more than
        `limit` bytes in all wait; small ones that do not fit the queue are dropped, which the next
        next() tells."""
        if self.idle:
            self.idle()
        if self._busy or not self._stream:
            return
        try:
            for _ in range(_PIECES):
                if self._queued > limit or (self._unread and not self._unread.lost):
                    break
                msg = self._take()
                if msg is None:
                    self._wait(time.ticks_ms())
                    break
                if msg:
                    msg.keep()
            self._stream.post()
        except (OSError, ValueError) as e:
            self._drop(e)  # the next call connects again, or says that it can't

    def _wait(self, deadline):
        """Wait for something to read: False when `deadline` has passed. Raises OSError when the
        server does not answer two PINGs."""
        now = time.ticks_ms()
        if not 0 <= time.ticks_diff(now, self._seen) <= self._limit:
            self._quiet = now  # nobody looked meanwhile
        due = time.ticks_add(self._quiet, self._limit)
        if time.ticks_diff(due, now) <= 0:
            if self._pings > 1:
                raise OSError("the server does not answer PING")
            self._stream.post(self._stream.reader.poll)
            self._pings += 1
            self._quiet = due = now
        if self._stream.rest:  # a PONG that the socket did not take
            self._stream.post()
        if self._dialer or self._stream.rest:  # moves to another server, or has to try again
            due = time.ticks_add(now, 2)
        if deadline is not None and time.ticks_diff(deadline, due) <= 0:
            due = deadline
        got = self._stream.wait(due)
        self._seen = time.ticks_ms()
        return got or not passed(deadline)

    def _take(self):
        """The next message out of what has arrived; None if more must arrive first, False if more
        may be there. (Only after None may a socket be polled: TLS has what poll does not see.)

        Raises OSError when the connection has ended, Malformed.
        """
        reader = self._stream.reader
        for _ in range(_PIECES):
            msg = self._unread
            if msg:
                msg.lost = True
                got = reader.skip(msg.left, False)
                if got:
                    msg.left -= got
                    if not msg.left:
                        self._unread = None
            else:
                msg = self._head
                if not msg:
                    line = reader.line(_MAX_LINE)
                    if line is None:
                        got = reader.fill(False)
                        if got:
                            self._quiet = time.ticks_ms()
                    else:
                        try:
                            msg = self._obey(line)
                        except MemoryError:
                            errors.keep_only()
                            try:
                                msg = self._obey(line)
                            except MemoryError:
                                raise Malformed("no heap")
                        if not msg:
                            return False
                if msg:
                    got = msg.fill(reader)
                    if got == -1:
                        self._head = None
                        if msg.left:  # its body stays where it is
                            self._unread = msg
                        if msg.sub:
                            return msg
            if got is None:
                return None
            if got == 0:
                raise OSError("closed by the server")
        return False

    def _obey(self, line):
        """Do what the server's control line says: the message that it announces, or None."""
        op = line.startswith(b"MSG ") or line[:4].upper()
        if op == b"PING":
            self._stream.post(b"PONG\r\n")
        elif op == b"PONG":
            self._pings -= 1
            for one in self._draining:
                one[0] -= 1
                if not one[0]:
                    self._subs.pop(one[1], None)
        elif op is True or op == b"HMSG" or op == b"MSG ":
            if not self._msg:
                raise Malformed("nobody asked")
            self._head = msg = self._msg(self, line)
            sub = msg.sub
            if sub:
                sub._got += 1
                if sub._got == sub._limit:
                    del self._subs[sub._sid]
            return msg
        elif op[:3] != b"+OK":
            from .news import read

            read(self, line)
            read = None
            drop("news")
