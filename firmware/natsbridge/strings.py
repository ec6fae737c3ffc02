"""JSON strings that are not short and plain: escapes, UTF-8. Loaded when one comes."""

from json import dumps

from micropython import const

from .errors import Malformed

_QUOTE = const(34)
_BACKSLASH = const(92)
_U = const(117)


def string(pull, limit, keep):
    """See JsonPull.string."""
    out = bytearray()
    state = 0
    while True:
        pull.peek()
        stop = pull.plain_end()
        if stop > pull.pos:
            part = pull.view[pull.pos : stop]
            if min(part) < 32:
                raise Malformed("bad string")
            state = check_utf8(part, state)
            pull.pos = stop
        elif state:
            raise Malformed("not UTF-8")
        elif pull.buf[stop] == _QUOTE:
            pull.pos += 1
            return str(out, "utf-8")
        else:
            n = pull.tell()
            c = escape(pull)
            part = c.encode()
            # Counted is the shortest text: an escape only where JSON must have one.
            n -= pull.tell() - (2 if ord(c) in (8, 12) else len(dumps(c).encode()) - 2)
            pull._before += n
        if keep:
            out += part
            if len(out) > limit:
                raise Malformed("too long")


def escape(pull):
    """Consume an escape sequence at `pos`: the character it stands for."""
    pull.pos += 1
    c = pull.peek()
    pull.pos += 1
    if c != _U:
        at = b'"\\/bfnrt'.find(bytes((c,)))
        if at < 0:
            raise Malformed("bad escape")
        return '"\\/\b\f\n\r\t'[at]
    code = hex4(pull)
    if 0xD800 <= code < 0xE000:
        low = 0
        if pull.peek() == _BACKSLASH:
            pull.pos += 1
            if pull.peek() == _U:
                pull.pos += 1
                low = hex4(pull)
        if code >= 0xDC00 or not 0xDC00 <= low < 0xE000:
            raise Malformed("bad escape")
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
    return chr(code)


def hex4(pull):
    code = 0
    for _ in range(4):
        digit = b"0123456789abcdef".find(bytes((pull.peek(),)).lower())
        if digit < 0:
            raise Malformed("bad escape")
        code = code << 4 | digit
        pull.pos += 1
    return code


def fold_escape(pull, stop):
    """Replace the escape at `stop` by its character, joined to the up to 3 before it: False if
    that is not of the base64 alphabet."""
    if pull.end - stop < 6:
        stop -= pull.pos
        pull.fill()
    head = bytes(pull.view[pull.pos : stop])
    pull.pos = stop
    c = escape(pull)
    if not "!" <= c <= "z" or c in '"\\':
        return False
    head += c.encode()
    pull.pos -= len(head)
    pull.view[pull.pos : pull.pos + len(head)] = head
    return True


def check_utf8(part, state):
    """Raise Malformed if `part` of a text is not UTF-8 (RFC 3629; the port takes overlong forms
    and surrogates). `state`: what the part before returned; 0 at a character's end."""
    if not state and max(part) < 128:
        return 0
    for c in part:
        if state:
            # How many bytes are missing, and the range of the next.
            if not state >> 8 & 255 <= c <= state & 255:
                raise Malformed("not UTF-8")
            state -= 0x10000
            state = state & 0x30000 | 0x80BF if state >> 16 else 0
        elif c >= 128:
            if not 0xC2 <= c < 0xF5:
                raise Malformed("not UTF-8")
            low = 0xA0 if c == 0xE0 else 0x90 if c == 0xF0 else 0x80
            high = 0x9F if c == 0xED else 0x8F if c == 0xF4 else 0xBF
            state = (1 if c < 0xE0 else 2 if c < 0xF0 else 3) << 16 | low << 8 | high
    return state
