"""A connection through nats-server's MQTT listener (MQTT 3.1.1): a Connection that writes and reads
packets. Loaded with the first mqtt:// URL; mqttgreet has what is rare.

Not by umqtt.simple: its connect() waits for ever for a silent server, and its callback takes whole
messages.

What comes is taken as from NATS: a small message whole, the body of a larger one stays on the
socket. At QoS 1 it is acknowledged when its body has been taken; what was not comes again.
"""

import time

from micropython import const

from . import client
from .errors import INVALID_ARGUMENT, Malformed, fail
from .payload import check_subject
from .stream import Reader, passed, until

_SMALL = const(2048)  # as in client.py
_ROOM = const(6016)
_IDS = const(32767)  # packet ids of what is published; those of subscriptions have one bit more
_BIT = const(32768)


class Connection(client.Connection):
    """See client.Connection."""

    _pid = 0  # the packet id of what was published last
    _acked = 0  # of what was acknowledged last: that goes in order
    _asked = 0  # ticks_ms of the last PINGRESP

    def publish(self, subject, payload, reply="", headers=None):
        """See client.Connection.publish; at QoS 1 until the server has it, again in a new
        connection where this one is lost. Headers and a reply subject are INVALID_ARGUMENT.

        If something large comes before the PUBACK, that is taken when the large message has been
        read; if it never comes, flush() tells.
        """
        if headers or (reply and not hasattr(payload, "write_to")):  # smartsend's is also in there
            raise fail(INVALID_ARGUMENT, "mqtt", "headers and reply subjects")
        check_subject(subject)
        if not self._busy:  # else it is refused, and the other message goes on
            self._topic = string(to_topic(subject))
        super().publish(subject, payload)
        self._checked = ""  # not by the short way of NATS

    def send(self, stream, head, payload, end):
        size = int(head[head.rfind(b" ") :])
        head = self._topic
        if self._options["qos"]:
            self._pid = pid = self._pid % _IDS + 1
            head += pid.to_bytes(2, "big")
            dirty = self._dirty
            try:
                self.put(stream, packet(50, head, size), payload)
            except (OSError, ValueError) as e:
                from .mqttgreet import again

                self._dirty = dirty  # this message is not lost
                again(self, e, packet(58, head, size), payload)
        else:
            super().send(stream, packet(48, head, size), payload, b"")

    def put(self, stream, head, payload):
        """Write a message, and wait for its PUBACK. Raises OSError, Malformed."""
        self._busy = True
        super().send(stream, head, payload, b"")
        self._busy = False
        end = until(self._options["timeout"])
        if self.deadline is not None:
            if end is None or time.ticks_diff(self.deadline, end) < 0:
                end = self.deadline
        while self._acked != self._pid and not self._unread and self._queued <= _ROOM:
            msg = self._take()
            if msg:
                msg.keep()
            elif self._acked == self._pid:
                break
            elif msg is None:
                self._wait(end)
            if passed(end):
                self._fail("no PUBACK in time", "publish")

    def subscribe(self, subject, queue=""):
        """See client.Connection.subscribe. A queue, and another subscription to the same subject,
        are INVALID_ARGUMENT."""
        from .mqttgreet import subscribe

        return subscribe(self, subject, queue)

    def close(self):
        """See client.Connection.close."""
        if self._stream and not self._busy:
            try:
                self._stream.deadline = until(self._options["timeout"])
                self._stream.write(b"\xe0\0")  # without a will
            except OSError:
                pass
        super().close()

    def _obey(self, line):
        if not self._pings:
            self._quiet = self._asked  # the server wants to hear from us, whatever we hear
        reader = self._stream.reader
        op = reader.op
        if op & 0xF4 == 48:
            at = reader.topic
            try:
                subject = to_subject(str(line[:at], "utf-8"))
            except UnicodeError:  # as in subscription.py
                from .headers import text

                subject = to_subject(text(line[:at]))
            # The server sends one for each subscription that matches, one after the other.
            found = None
            last = False
            for sub in self._subs.values():
                if matches(sub.subject, subject):
                    if last or not found:
                        found = sub
                    last = sub is self._got and sub._head == subject
            sid = found._sid if found else 0
            msg = super()._obey(b"MSG %s %d %d" % (subject.encode(), sid, reader.size))
            reader.pid = line[at : at + (op & 2)] if found else b""
            if not msg.left:
                msg._data = line[at + (op & 2) :]
                msg.fill = whole
                if self._queued <= _ROOM:
                    reader.readline(2)  # else it may be dropped, and comes again
            if found and sid not in self._subs:
                from .mqttgreet import line

                self._stream.post(line(self, found, 0xA2))
            return msg
        size = len(line)
        pid = size > 1 and line[0] << 8 | line[1]
        if op == 64 and size == 2 and self._acked != self._pid and pid == self._acked % _IDS + 1:
            self._acked = pid
            if pid == self._pid:
                self._dirty = False
        elif op == 208 and not size and self._pings:
            super()._obey(b"PONG")
            self._asked = time.ticks_ms()
            if self._acked != self._pid:  # the server answers in order
                raise OSError("no PUBACK")
        elif op == 144 and size == 3:
            if line[2] > 1:
                from .mqttgreet import refuse

                refuse(self, pid & _IDS)
        elif op != 176:  # UNSUBACK
            raise Malformed("packet %d %r" % (op, line))


class Packets(Reader):
    """Reads packets: `line` gives all that is in them, but not the payload of a large PUBLISH.

    op: the packet's first byte. topic: bytes of a PUBLISH's topic. size: of its payload.
    pid: of the message whose body is read, the packet id, if it is to be acknowledged.
    """

    need = -1  # bytes of a line that has begun

    def line(self, limit):
        if self.need < 0:
            buf = self.buf
            at = self.pos
            n = shift = 0
            more = 128
            while more & 128:
                at += 1
                if at >= self.end:
                    return None
                if shift > 21:
                    raise Malformed("length")
                more = buf[at]
                n |= (more & 127) << shift
                shift += 7
            at += 1
            self.op = op = buf[self.pos]
            self.size = 0
            if op & 0xF4 != 48:
                limit = 4
            elif n < 2:
                limit = -1
            elif at + 2 > self.end:
                return None
            else:
                self.topic = buf[at] << 8 | buf[at + 1]
                at += 2
                n -= 2
                self.size = n - self.topic - (op & 2)
                if self.size > _SMALL:
                    n -= self.size
            if self.size < 0 or n > limit:
                raise Malformed("packet %d" % op)
            self.need = n
            self.pos = at
        n = min(self.need, self.end - self.pos)
        self.head += bytes(self.view[self.pos : self.pos + n])
        self.pos += n
        self.need -= n
        if self.need:
            return None
        self.need = -1
        line = self.head
        self.head = b""
        return line

    def readline(self, limit):
        """The end of a body, where NATS has a line end: its PUBACK."""
        if self.pid:
            self.source.post(b"\x40\2" + self.pid)
        return b""

    def skip(self, n, wait=True):
        """See Reader.skip; the last 2 bytes are those of the line end."""
        if n == self.size + 2:
            self.pid = b""  # nobody began to read it: it comes again
        if n > 2:
            return super().skip(n - 2, wait)
        self.readline(n)
        return n


def whole(reader):
    """What fills a message that is whole."""
    return -1


def matches(pattern, subject):
    """As nack.matches, which is not to be loaded for every message."""
    words = subject.split(".")
    wanted = pattern.split(".")
    for word, want in zip(words, wanted):
        if want == ">":
            return True
        if want not in ("*", word):
            return False
    return len(words) == len(wanted)


def to_topic(subject):
    """The topic for `subject`, in UTF-8. Raises INVALID_ARGUMENT where there is none.

    A word of a subject is a level of a topic, where an empty level is the word "/" and a dot "//"
    (nats-server 2.15.1, measured). Words with other slashes come as topics without these, which
    lead nowhere.
    """
    levels = []
    for word in subject.split("."):
        level = "" if word == "/" else word.replace("//", ".")
        if word == "*":
            level = "+"
        elif word == ">":
            level = "+/#"  # "#" alone would also be the level above
        elif "/" in level or "+" in word or "#" in word:
            levels = [""]
            break
        levels.append(level)
    if levels == [""]:
        raise fail(INVALID_ARGUMENT, "topic", subject)
    return "/".join(levels).encode()


def to_subject(topic):
    """The subject for `topic`."""
    return ".".join([level.replace(".", "//") or "/" for level in topic.split("/")])


def string(data):
    """`data` with its length before it."""
    return len(data).to_bytes(2, "big") + data


def packet(op, data, more=0):
    """A packet that begins with `data`, and has `more` bytes still to come."""
    n = len(data) + more
    head = bytes((op,))
    while n > 127:
        head += bytes((n & 127 | 128,))
        n >>= 7
    return head + bytes((n,)) + data


# For mqttgreet, which must not load this module again where errors.drop has dropped it.
Connection.source = Packets, packet, string, to_topic
