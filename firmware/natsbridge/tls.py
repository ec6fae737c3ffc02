"""TLS on top of a Stream. Loaded when a connection uses it.

Measured on 1.29: with ``do_handshake_on_connect=False`` a non-blocking socket's first read or write
shakes hands step by step and gives None in between. When it is over cannot be asked for (cipher()
before that crashes the port), but a read or write that succeeds tells.
"""

import gc
import select
from binascii import a2b_base64

from .errors import INVALID_ARGUMENT, fail

_KEYS = ("ca", "cert", "key", "verify", "hostname", "handshake_first")


def options_of(tls):
    """The dict of options that `tls` is or stands for. Raises INVALID_ARGUMENT."""
    tls = tls if isinstance(tls, dict) else {}
    for key in tls:
        if key not in _KEYS:
            raise fail(INVALID_ARGUMENT, "tls-key", key, ", ".join(_KEYS))
    return tls


def context(options):
    """What wraps sockets as the options (True or a dict: see connect) say: ``wrap(sock, hostname)``
    gives the TLS socket, whose first read or write shakes hands.

    Raises INVALID_ARGUMENT if they are not enough to verify the server, or can't be read.
    """
    return Context(options)


class Context:
    def __init__(self, options):
        options = options_of(options)
        verify = options.get("verify", True)
        ca = options.get("ca")
        cert = options.get("cert")
        self.hostname = options.get("hostname")
        self.context = None
        if bool(cert) != bool(options.get("key")):
            raise fail(INVALID_ARGUMENT, "tls-file", "cert and key go together")
        if verify and not ca:
            raise fail(INVALID_ARGUMENT, "tls-ca")
        try:
            import tls as ssl
        except ImportError:
            try:
                import ssl  # 1.22 and older
            except ImportError:
                raise fail(INVALID_ARGUMENT, "tls-none")
        try:
            if cert:
                cert = _der(cert)
                key = _der(options.get("key"))
            if hasattr(ssl, "SSLContext"):
                self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                if verify:
                    for der in _ders(ca):
                        self.context.load_verify_locations(der)
                else:
                    self.context.verify_mode = ssl.CERT_NONE
                if cert:
                    self.context.load_cert_chain(cert, key)
            elif verify:
                raise fail(INVALID_ARGUMENT, "tls-verify")
            else:
                self.module = ssl
                self.options = {"cert": cert, "key": key} if cert else {}
        except (OSError, ValueError, TypeError) as e:
            raise fail(INVALID_ARGUMENT, "tls-file", e)

    def wrap(self, sock, hostname):
        """The TLS socket on top of `sock`, for the server `hostname` or as the options name it."""
        hostname = self.hostname or hostname
        gc.collect()  # mbedtls wants pieces of 17 KB, on some ports of this heap
        if self.context:
            return self.context.wrap_socket(
                sock, server_hostname=hostname, do_handshake_on_connect=False
            )
        return self.module.wrap_socket(
            sock, server_hostname=hostname, do_handshake=False, **self.options
        )


def _ders(value):
    """The certificates or keys in `value` (a path, or bytes: PEM or DER), as DER: not every port
    has PEM."""
    if isinstance(value, str):
        if value[:5] == "-----":
            value = value.encode()
        else:
            with open(value, "rb") as f:
                value = f.read()
    value = bytes(value)
    found = []
    at = value.find(b"-----BEGIN ")
    while at >= 0:
        start = value.index(b"-----", at + 11)
        end = value.index(b"-----END ", start)
        if not value[at:start].endswith(b"PARAMETERS"):
            found.append(a2b_base64(value[start + 5 : end]))
        at = value.find(b"-----BEGIN ", end)
    return found or [value]


def _der(value):
    """Likewise, of one: a chain is left as it is, for ports that have PEM."""
    found = _ders(value)
    if len(found) > 1:
        if isinstance(value, str) and value[:5] != "-----":
            with open(value, "rb") as f:
                return f.read()
        return value
    return found[0]


class Handshake:
    """What `stream` reads and writes until its first success: waits for the peer, and says what is
    wrong in words."""

    def __init__(self, stream, options, hostname):
        self.stream = stream
        try:
            self.socket = context(options).wrap(stream.raw, hostname)
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
            raise OSError(
                "the server's certificate was refused: %s Check ca, hostname and the clock"
                % str(e).strip().replace("\n", ". ")
            )
        except OSError as e:
            raise OSError("TLS failed: %s" % e)
        if got == 0:
            raise OSError("the server hung up in the TLS handshake")
        if got is not None:
            self.stream.socket = self.socket
            self.stream.out = select.POLLOUT
        return got

    def close(self):
        self.socket.close()
