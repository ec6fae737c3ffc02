"""TLS on top of a Stream. Loaded when a connection uses it.

Measured on 1.29: with ``do_handshake_on_connect=False`` a non-blocking socket's first read or write
shakes hands step by step and gives None in between. When it is over cannot be asked for (cipher()
before that crashes the port), but a read or write that succeeds tells.
"""

import gc
import select
from binascii import a2b_base64

from micropython import const

from .errors import INVALID_ARGUMENT, fail

_BAD_CERTIFICATE = const(-0x7A00)  # mbedtls': it is for something else, such as mail
_KEYS = ("ca", "cert", "key", "verify", "hostname", "handshake_first")


def context(options):
    """(the function that wraps sockets, its arguments, the server's name or None), as the options
    (True or a dict: see connect) say. The first read or write of what it gives shakes hands.

    Raises INVALID_ARGUMENT if they are not enough to verify the server, or can't be read.
    """
    if not isinstance(options, dict):
        options = {}
    for key in options:
        if key not in _KEYS:
            raise fail(INVALID_ARGUMENT, "tls-key", key, ", ".join(_KEYS))
    verify = options.get("verify", True)
    ca = options.get("ca")
    cert = options.get("cert")
    key = options.get("key")
    if verify and not ca:
        raise fail(INVALID_ARGUMENT, "tls-ca")
    try:
        import tls as ssl
    except ImportError:
        try:
            import ssl  # 1.22 and older
        except ImportError:
            raise fail(INVALID_ARGUMENT, "tls-none")
    how = {"do_handshake_on_connect": False}
    try:
        if cert or key:
            cert = _der(cert)
            key = _der(key)
        if hasattr(ssl, "SSLContext"):
            ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if not verify:
                ssl.verify_mode = 0
            for der in _ders(_read(ca)) if verify else ():
                ssl.load_verify_locations(der)
            if cert:
                ssl.load_cert_chain(cert, key)
        elif verify:
            raise fail(INVALID_ARGUMENT, "tls-verify")
        else:
            how = {"do_handshake": False}
            if cert:
                how.update({"cert": cert, "key": key})
    except (OSError, ValueError, TypeError) as e:
        raise fail(INVALID_ARGUMENT, "tls-file", e)
    return ssl.wrap_socket, how, options.get("hostname")


def _read(value):
    """The bytes of a certificate or key: a path, PEM as text, or bytes."""
    if not isinstance(value, str):
        return bytes(value)
    if value[:5] == "-----":
        return value.encode()
    with open(value, "rb") as f:
        return f.read()


def _ders(data):
    """The certificates or keys in `data` (PEM or DER), as DER: not every port has PEM."""
    found = []
    at = data.find(b"-----BEGIN ")
    while at >= 0:
        start = data.index(b"-----", at + 11)
        end = data.index(b"-----END ", start)
        if not data[at:start].endswith(b"PARAMETERS"):
            found.append(a2b_base64(data[start + 5 : end]))
        at = data.find(b"-----BEGIN ", end)
    return found or [data]


def _der(value):
    """Likewise, of one: a chain is left as it is, for ports that have PEM."""
    data = _read(value)
    found = _ders(data)
    return data if len(found) > 1 else found[0]


class Handshake:
    """What `stream` reads and writes until its first success: waits for the peer, and says what is
    wrong in words."""

    def __init__(self, stream, options, hostname):
        self.stream = stream
        wrap, how, name = context(options)
        gc.collect()  # mbedtls wants pieces of 17 KB, on some ports of this heap
        try:
            self.socket = wrap(stream.raw, server_hostname=name or hostname, **how)
        except (OSError, ValueError) as e:
            raise OSError("TLS can't begin: %s (%d bytes of heap are free)" % (e, gc.mem_free()))
        stream.socket = self
        stream.out = select.POLLIN

    def readinto(self, buf, n):
        return self._do(self.socket.readinto, buf, n)

    def write(self, buf, start=0, n=None):
        return self._do(self.socket.write, buf, start, len(buf) if n is None else n)

    def _do(self, do, *arguments):
        try:
            got = do(*arguments)
        except ValueError as e:
            self.stream.out = 0
            raise OSError(
                "the server's certificate was refused: %s Check ca, hostname and the clock"
                % str(e).strip().replace("\n", ". ")
            )
        except OSError as e:
            if e.errno == _BAD_CERTIFICATE:
                self.stream.out = 0
            raise OSError("TLS failed: %s" % e)
        if got == 0:
            raise OSError("the server hung up in the TLS handshake")
        if got is not None:
            self.stream.socket = self.socket
            self.stream.out = select.POLLOUT
        return got

    def close(self):
        self.socket.close()
