"""A JSON reader that pulls: it never holds more of the text than its buffer.

(RFC 8259, strictly. The port's own json module accepts ``[1 2}``, mangles escaped emoji and dies
of deep nesting: measured.) Errors are Malformed with a reason of at most 10 characters, which costs
the heap a quarter of a longer one.
"""

from micropython import const

from .errors import Malformed
from .stream import find

_MAX_DEPTH = const(32)  # levels of nesting
_MAX_NUMBER = const(64)  # characters of a number
_MAX_KEY = const(1024)  # bytes of an envelope's key
_QUOTE = const(34)
_COMMA = const(44)
_COLON = const(58)
_LBRACKET = const(91)
_RBRACKET = const(93)
_LBRACE = const(123)
_RBRACE = const(125)


class JsonPull:
    """Reads JSON from `source` (``readinto(buf, n)``, 0 at the end) through `buf` (a bytearray)."""

    def __init__(self, source, buf):
        self.buf = buf
        self.view = memoryview(buf)
        self.pos = 0
        self.end = 0
        self.source = source
        self.overflow = False  # a number was too large for this port's floats
        self._before = 0  # bytes of the text before buf[0], without what could be shorter

    def tell(self):
        """Bytes of the text consumed so far, were it written in the shortest form."""
        return self._before + self.pos

    def fill(self):
        """Fill the buffer, from `pos` on, as far as the source goes: False if nothing came."""
        self._before += self.pos
        rest = self.end - self.pos
        if rest and self.pos:
            self.view[:rest] = self.view[self.pos : self.end]
        self.pos = 0
        size = len(self.buf)
        at = rest
        while at < size:
            n = self.source.readinto(self.view[at:] if at else self.buf, size - at)
            if not n:
                break
            at += n
        self.end = at
        return at > rest

    def at_end(self):
        """Whether nothing follows."""
        return self.pos == self.end and not self.fill()

    def peek(self):
        """The next byte, not consumed."""
        if self.at_end():
            raise Malformed("cut off")
        return self.buf[self.pos]

    def token(self):
        """The first byte that is not white space, not consumed."""
        while True:
            c = self.buf[self.pos] if self.pos < self.end else self.peek()
            if c > 32 or c not in b" \t\r\n":
                return c
            self.pos += 1
            self._before -= 1

    def expect(self, c):
        """Consume the byte `c`, after white space."""
        if self.token() != c:
            raise Malformed("bad syntax")
        self.pos += 1

    def finish(self):
        """Only white space may follow."""
        while not self.at_end():
            if self.buf[self.pos] not in b" \t\r\n":
                raise Malformed("extra text")
            self.pos += 1

    def string(self, limit, keep=True):
        """The rest of a string whose opening quote is consumed: at most `limit` bytes of UTF-8.

        With keep=False it is passed over, whatever its length.
        """
        self.peek()
        stop = self.plain_end()
        if stop == self.end:
            self.fill()
            stop = self.plain_end()
        # Nearly all are whole in the buffer, without escapes, and ASCII.
        part = self.view[self.pos : stop]
        if stop < self.end and self.buf[stop] == _QUOTE and len(part) <= limit:
            if not part or (min(part) >= 32 and max(part) < 128):
                self.pos = stop + 1
                return str(part, "utf-8")
        from .strings import string

        return string(self, limit, keep)

    def plain_end(self):
        """Where, in the buffer, the run of a string without quote or backslash ends."""
        stop = find(self.buf, b'"', self.pos, self.end)
        if stop < 0:
            stop = self.end
        slash = find(self.buf, b"\\", self.pos, stop)
        return stop if slash < 0 else slash

    def value(self, limit, depth=0, keep=True, member=None):
        """One JSON value of at most `limit` bytes of text, inside `depth` containers, as a Python
        value.

        With keep=False it is passed over, whatever its length.
        member: called as member(containers, keys) behind each key, outermost first; it returns
            True if it has consumed the key's value.
        """
        path = []  # the containers that are open, outermost first
        keys = []  # the key at which each of them is being filled, None in a list
        limit += self.tell()
        while True:
            consumed = False
            if path and type(path[-1]) is dict:
                self.expect(_QUOTE)
                keys[-1] = self.string(_MAX_KEY if member else limit - self.tell(), keep)
                self.expect(_COLON)
                consumed = member is not None and member(path, keys)
            if not consumed:
                c = self.token()
                if c == _LBRACE or c == _LBRACKET:
                    if depth + len(path) == _MAX_DEPTH:
                        raise Malformed("too deep")
                    v = {} if c == _LBRACE else []
                    self.pos += 1
                    if self.token() != c + 2:  # the closing one
                        path.append(v)
                        keys.append(None)
                        continue
                    self.pos += 1
                elif c == _QUOTE:
                    self.pos += 1
                    v = self.string(limit - self.tell(), keep)
                else:
                    v = self._scalar(keep)
            # The value is whole: put it into its container, and close what ends here.
            while path:
                key = keys[-1]
                if keep and not consumed:
                    if self.tell() > limit:
                        raise Malformed("too long")
                    if key is None:
                        path[-1].append(v)
                    else:
                        path[-1][key] = v
                consumed = False
                c = self.token()
                self.pos += 1
                if c == _COMMA:
                    break
                if c != (_RBRACKET if key is None else _RBRACE):
                    raise Malformed("bad syntax")
                keys.pop()
                v = path.pop()
            else:
                if keep and self.tell() > limit:
                    raise Malformed("too long")
                return v

    def _scalar(self, keep):
        """true, false, null or a number."""
        text = ""
        while not self.at_end():
            c = self.buf[self.pos]
            if c in b",]} \t\r\n":
                break
            text += chr(c)
            self.pos += 1
            if len(text) > _MAX_NUMBER:
                raise Malformed("bad number")
        if text == "true":
            return True
        if text == "false":
            return False
        if text == "null":
            return None
        mantissa, e, power = text.lower().partition("e")
        whole, dot, fraction = mantissa.partition(".")
        if whole[:1] == "-":
            whole = whole[1:]
        if power[:1] in ("+", "-"):
            power = power[1:]
        if len(whole) > 1 and whole[0] == "0":
            whole = ""
        for digits in (whole, fraction if dot else "0", power if e else "0"):
            if not digits.isdigit():
                raise Malformed("bad value")
        if not keep:
            return None
        v = float(text) if dot or e else int(text)
        self.overflow = self.overflow or v - v != 0
        return v
