"""The `tls` option of a connection, as Python's ssl wants it.

It holds for the broker, and for a file server with an https:// URL.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = ["Tls", "check_tls"]

_BEGIN = b"-----BEGIN"
_PEM = (str, bytes, os.PathLike)
#: What a dict may say, and of which types.
_KEYS: dict[str, tuple[type, ...]] = {
    "ca": _PEM,
    "cert": _PEM,
    "key": _PEM,
    "verify": (bool,),
    "hostname": (str,),
    "handshake_first": (bool,),
}


class Tls(NamedTuple):
    """What was asked for: a context, whom to expect ("": the URL's host), and when to begin."""

    context: ssl.SSLContext
    hostname: str
    handshake_first: bool


def check_tls(tls: object) -> Tls | None:
    """Return what `tls` asks for; None, where it demands nothing.

    Args:
        tls: None; True: TLS, with the system's certificate authorities; an `ssl.SSLContext`; or a
            dict with any of
            ca: whom to trust in the system's place (a PEM file's path, or what is in it);
            cert, key: who we are, likewise; the key may stand in the cert's file;
            verify: whether the server must prove who it is (True);
            hostname: who it must be, where that is not the URL's host;
            handshake_first: whether TLS begins before the server's first word (False).

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, also for files that do not hold what they should.
    """
    if tls is None:
        return None
    if isinstance(tls, ssl.SSLContext):
        return Tls(tls, "", False)
    if tls is True:
        tls = {}
    if not isinstance(tls, dict):
        raise NATSBridgeError(
            INVALID_ARGUMENT,
            f"tls must be None, True, a dict or an ssl.SSLContext, not {type(tls).__name__}",
        )
    for key, value in tls.items():
        if key not in _KEYS:
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"tls has no {key!r}; it may have {', '.join(_KEYS)}"
            )
        if value is not None and not isinstance(value, _KEYS[key]):
            names = " or ".join(kind.__name__ for kind in _KEYS[key])
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"tls[{key!r}] must be {names}, not {type(value).__name__}"
            )
        if key in ("ca", "cert", "key") and value in ("", b""):
            # An unset variable must not turn into "whoever the system trusts".
            raise NATSBridgeError(INVALID_ARGUMENT, f"tls[{key!r}] is empty")
    return Tls(_context(tls), tls.get("hostname") or "", bool(tls.get("handshake_first")))


def _context(tls: dict[str, Any]) -> ssl.SSLContext:
    ca, cert, key = (
        value.encode() if isinstance(value, str) and value.startswith("-----") else value
        for value in (tls.get("ca"), tls.get("cert"), tls.get("key"))
    )
    if key and not cert:
        raise NATSBridgeError(INVALID_ARGUMENT, "tls has a key without its cert")
    what = "ca"
    try:
        if isinstance(ca, bytes):
            pem = ca.decode("ascii") if _BEGIN in ca else ca
            context = ssl.create_default_context(cadata=pem)
        else:
            context = ssl.create_default_context(cafile=ca or None)
        what = "cert and key"
        if cert:
            with contextlib.ExitStack() as stack:
                # OpenSSL reads these from files alone; the folder is its owner's only.
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                if isinstance(cert, bytes):
                    (folder / "cert").write_bytes(cert)
                    cert = folder / "cert"
                if isinstance(key, bytes):
                    (folder / "key").write_bytes(key)
                    key = folder / "key"
                # Without a password here it would be asked for on the terminal.
                context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as e:
        raise NATSBridgeError(
            INVALID_ARGUMENT, f"tls: the {what} cannot be used: {e or type(e).__name__}"
        ) from e
    if tls.get("verify") is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
