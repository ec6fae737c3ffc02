"""Message headers: ``NATS/1.0``, and lines as in HTTP."""

from .errors import INVALID_ARGUMENT, NATS_CONNECTION_FAILED, fail


def pack(nc, subject, reply, headers, size):
    """(what is written before a payload of `size` bytes, the size of both)."""
    if not nc._options["headers"]:
        raise fail(NATS_CONNECTION_FAILED, "headers", nc.url)
    block = ("NATS/1.0\r\n" + join(headers) + "\r\n").encode()
    n = len(block)
    head = "HPUB %s %s %d %d\r\n" % (subject, reply or "", n, n + size)
    return head.encode() + block, n + size


def join(headers):
    """Their lines. Raises INVALID_ARGUMENT."""
    if not isinstance(headers, dict):
        raise fail(INVALID_ARGUMENT, "header", headers)
    lines = ""
    for name in headers:
        value = headers[name]
        good = isinstance(name, str) and isinstance(value, str) and name
        if good and not name.replace("-", "").encode().isalpha():
            for c in name.encode():
                # A token, as in RFC 9110.
                good = good and 33 <= c <= 126 and c not in b'"(),/:;<=>?@[\\]{}'
        data = (" " + value.replace("\t", " ")).encode() if good else b"\n"
        if min(data) < 32 or 127 in data:
            raise fail(INVALID_ARGUMENT, "header", name)
        lines += "%s: %s\r\n" % (name, value)
    return lines


def unpack(msg, block):
    """Give `msg` what is in its headers. Of a name that stands twice the last counts; what is
    malformed costs no message."""
    if not block.startswith(b"NATS/1.0"):
        return
    msg.headers = {}
    lines = text(block).split("\r\n")
    status = lines.pop(0)[8:].strip()
    if status[:3].isdigit() and not status[3:4].strip():
        msg.status = int(status[:3])
        msg.description = status[3:].strip()
    for line in lines:
        name, mark, value = line.partition(":")
        if mark:
            msg.headers[name.strip()] = value.strip()


def text(data):
    """What others sent, as str."""
    try:
        return str(data, "utf-8")
    except UnicodeError:
        return "".join(chr(c) if c < 128 else "\ufffd" for c in data)
