"""URLs that messages name, and which of them may be opened.

A receiver opens only what the caller named: an origin and a path prefix of whole segments
(DESIGN, "Security"). Two parsers that disagree about one URL are how such lists are passed by,
so there is one parser here, it refuses what is odd, and the request is made to the URL that it
puts together again.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote, unquote, urljoin

from natsbridge.arguments import MAX_FIELD
from natsbridge.errors import INVALID_ARGUMENT, URL_NOT_ALLOWED, NATSBridgeError

__all__ = [
    "Server",
    "Url",
    "allows",
    "check_url",
    "is_loopback",
    "not_allowed",
    "parse_base",
    "parse_server",
    "parse_url",
    "resolve",
    "shown",
]

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!-~]*?)?(?P<query>\?[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
#: Printable ASCII that is no part of a path or query (RFC 3986, section 3.3).
_ODD = re.compile(r'[#\\"<>^`{|}]|%(?![0-9A-Fa-f]{2})')
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: user:password in front of a host.
_LOGIN = re.compile(r"(?P<start>https?://)(?P<login>[^/?#]*)@", re.IGNORECASE)
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Url:
    """A parsed http(s) URL; `path` begins with "/" and has its dot segments resolved."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def origin(self) -> str:
        """Scheme, host and, where it is not the default, port."""
        port = "" if self.port == _DEFAULT_PORT[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    def __str__(self) -> str:
        return self.origin + self.path + self.query


@dataclass(frozen=True)
class Server:
    """The caller's own file server.

    Attributes:
        base: where it is; paths are added to it.
        login: user:password, %-escaped, or "". It is for the server's origin, and in no message.
    """

    base: Url
    login: str = field(default="", repr=False)

    @property
    def authorization(self) -> str:
        """The value of the header that logs in, "" for none (RFC 7617)."""
        if not self.login:
            return ""
        user, _, password = self.login.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        return f"Basic {b64encode(pair).decode()}"

    @property
    def full(self) -> str:
        """The URL with the login: for a handler of the caller's."""
        url = str(self.base)
        return url.replace("://", f"://{self.login}@", 1) if self.login else url


def _segments(path: str) -> list[str]:
    """Return a path's segments, dots resolved. Raises ValueError for smuggled separators."""
    result: list[str] = []
    parts = path.split("/")[1:]
    for i, segment in enumerate(parts):
        plain = unquote(segment)
        if any(c in "/\\" or c < " " or c == "\x7f" for c in plain):
            raise ValueError("it has an encoded slash, backslash or control character")
        if plain == "..":
            if result:
                result.pop()
        elif plain != ".":
            result.append(segment)
            continue
        if i == len(parts) - 1:
            result.append("")
    return result


def parse_url(text: str) -> Url:
    """Parse an http(s) URL. Letters beyond ASCII are percent-encoded, as a browser does it.

    Raises:
        ValueError: what is wrong with it, as "it ...".
    """
    if len(text.encode("utf-8", "replace")) > MAX_FIELD:
        raise ValueError(f"it is longer than {MAX_FIELD} bytes")
    if "@" in "".join(text.split("/", 3)[2:3]):
        raise ValueError("it has a user name or password, which a URL here must not")
    text = "".join(c if c.isascii() or not c.isprintable() else quote(c) for c in text)
    found = _URL.fullmatch(text)
    if not found or _ODD.search(text):
        raise ValueError("it is not of the form http(s)://host[:port]/path")
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else _DEFAULT_PORT[scheme]
    if not 0 < port < 65536:
        raise ValueError(f"it has the impossible port {port}")
    path = "/" + "/".join(_segments(found["path"] or "/"))
    query = found["query"] or ""
    # An empty query is none, also to what makes the request.
    return Url(scheme, found["host"].lower(), port, path, "" if query == "?" else query)


def shown(text: str) -> str:
    """Return a URL that may be no URL for a message: in ASCII, cut short, without a login."""
    return repr(text.rpartition("@")[2]).encode("ascii", "backslashreplace").decode()[:200]


def check_url(text: object, what: str) -> Url:
    """Parse a URL that the caller gave.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`, naming the argument `what`.
    """
    if not isinstance(text, str):
        raise NATSBridgeError(INVALID_ARGUMENT, f"{what} must be a str, not {type(text).__name__}")
    try:
        return parse_url(text)
    except ValueError as e:
        raise NATSBridgeError(INVALID_ARGUMENT, f"{what} {shown(text)}: {e}") from None


def parse_base(text: object, what: str) -> Url:
    """Parse a URL to which paths are added: as `check_url`, without a final slash or query."""
    url = check_url(text, what)
    return Url(url.scheme, url.host, url.port, url.path.rstrip("/"))


def parse_server(text: object, what: str) -> Server:
    """Parse the URL of the caller's own file server: as `parse_base`, but it may have a login."""
    if not isinstance(text, str):
        return Server(parse_base(text, what))  # which refuses it
    return _server(text, what)


@lru_cache(maxsize=16)  # each call of a program names the same one
def _server(text: str, what: str) -> Server:
    login = ""
    if found := _LOGIN.match(text):
        login = found["login"]
        if _BAD_ESCAPE.search(login) or not login.isprintable() or not login.strip(":"):
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{what} has a login that is not user:password, with %40 for @ and %2F for /",
            )
        text = found["start"] + text[found.end() :]
    return Server(parse_base(text, what), login)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allows(base: Url, url: Url) -> bool:
    """Tell whether `url` has the origin of `base` and lies under its path, by whole segments."""
    prefix = base.path.rstrip("/")
    return base.origin == url.origin and (url.path == prefix or url.path.startswith(prefix + "/"))


def not_allowed(url: Url | str, allowed: Iterable[Url]) -> NATSBridgeError:
    """Return the error for a URL outside what the caller allowed; it tells the argument to add."""
    named = shown(str(url))[1:-1]
    known = ", ".join(map(str, allowed)) or "nothing"
    if isinstance(url, Url):
        advice = f'if you trust it, pass allowed_urls=["{url.origin}"]'
    else:
        advice = "the sender must give an http or https URL"
    return NATSBridgeError(
        URL_NOT_ALLOWED,
        f"the message names {named}, and allowed is {known}: {advice}",
        {"url": named},
    )


def resolve(url: Url, location: str) -> Url:
    """Return where a redirect from `url` leads. Raises ValueError as `parse_url`."""
    return parse_url(urljoin(str(url), location))
