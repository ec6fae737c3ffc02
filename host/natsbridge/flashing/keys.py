"""What config.json may say: every key, with its rule, and by which ways a value of it is given.

boards/shared/board.py has short checks of its own: it is what reads the file, on the board.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from natsbridge.broker import check_server
from natsbridge.errors import NATSBridgeError
from natsbridge.urls import parse_server

__all__ = ["KEYS", "Key", "flat", "has_login", "is_ours", "with_login", "without_login"]


@dataclass(frozen=True)
class Key:
    """A key of config.json; "wifi.ssid" is one in a table."""

    name: str
    fits: Callable[[Any], bool]
    #: What it must be, after "must be".
    must: str
    #: How a person is asked for it.
    question: str = ""
    #: Whether it is text alone, so that a number given for it is meant as text.
    text: bool = True
    #: Whether nobody may read it on a screen, or in the list of processes.
    secret: bool = False
    #: Where it may also come from.
    variable: str = ""
    #: Whether its text is the URL of a server, which may hold a login.
    url: bool = False


def _text(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern, re.S)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0  # True is an int, too


def _ssid(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= 32


def _broker(value: Any) -> bool:
    servers = value if isinstance(value, list) and value else [value]
    try:
        return all(check_server(s).startswith(("nats://", "tls://")) for s in servers)
    except NATSBridgeError:
        return False


def _fileserver(value: Any) -> bool:
    try:
        return value == "" or bool(parse_server(value, "it"))
    except NATSBridgeError:
        return False


_TLS: dict[str, type] = {
    **dict.fromkeys(("ca", "cert", "key", "hostname"), str),
    **dict.fromkeys(("verify", "handshake_first"), bool),
}


def _tls(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None or value is True
    return all(k in _TLS and (v is None or type(v) is _TLS[k]) for k, v in value.items())


#: Of subjects it is a part: natsbridge.hello.NAME.
_SUBJECT = _text(r"([^\s*>.\x00-\x20\x7f]+(\.[^\s*>.\x00-\x20\x7f]+)*)?")
_IN_SUBJECTS = "text without spaces, * and >, with dots only in between"

KEYS = {
    key.name: key
    for key in (
        Key("wifi", lambda v: v is None, "null, or a table of ssid, password, country", text=False),
        Key("wifi.ssid", _ssid, "text of 1 to 32 bytes", "Name of the Wi-Fi", variable="WIFI_SSID"),
        Key(
            "wifi.password",
            _text(".{0,64}"),
            "text of at most 64 characters",
            "Its password (empty: it has none)",
            secret=True,
            variable="WIFI_PASSWORD",
        ),
        Key("wifi.country", _text("([A-Za-z]{2})?"), "a code of two letters, such as DE"),
        Key("name", _SUBJECT, _IN_SUBJECTS, "Name of this board, as in NAME.command"),
        Key("id", _SUBJECT, _IN_SUBJECTS),
        Key(
            "broker",
            _broker,
            "a URL such as nats://192.168.1.10:4222, or a list of them",
            "Broker's URL, as the board reaches it",
            text=False,
            url=True,
        ),
        Key("user", _text(".*"), "text", "User at the broker"),
        Key(
            "password",
            _text(".*"),
            "text",
            "Password of that user",
            secret=True,
            variable="DEVICE_PASSWORD",
        ),
        Key("token", _text(".*"), "text", secret=True, variable="DEVICE_TOKEN"),
        Key("tls", _tls, f"null, true, or a table of {', '.join(_TLS)}", text=False),
        Key(
            "fileserver_url",
            _fileserver,
            "a URL such as http://192.168.1.10:8080, or empty",
            "File server's URL, as the board reaches it",
            url=True,
        ),
        Key("size_threshold", lambda v: v is None or _whole(v), "a number of bytes", text=False),
        Key("watchdog", _whole, "a number of milliseconds, 0 for none", text=False),
        Key("ntp", _text(r"\S*"), "the name of a server, or empty"),
    )
}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the table `wifi`: its keys are "wifi.ssid" and so on."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inside = value if name == "wifi" and isinstance(value, dict) else None
        found.update({name: value} if inside is None else {f"wifi.{k}": inside[k] for k in inside})
    return found


def is_ours(text: str | None) -> bool:
    """Tell whether a file config.json is one of ours, as far as that shows: it names a broker, and
    nothing that no board reads."""
    try:
        said = json.loads(text or "")
    except ValueError:
        return False
    return isinstance(said, dict) and "broker" in said and flat(said).keys() <= KEYS.keys()


def _split(url: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the login of a URL, with its @."""
    scheme, there, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    login, at, host = host.rpartition("@")
    return scheme + there, login + at, host + slash + path


def has_login(urls: Any) -> bool:
    """Tell whether a URL, or one of a list, has a login."""
    listed = urls if isinstance(urls, list) else [urls]
    return any(isinstance(url, str) and _split(url)[1] for url in listed)


def without_login(url: str) -> str:
    """Return a URL as it may be shown."""
    start, _, rest = _split(url)
    return start + rest


def with_login(url: str, user: str, password: str) -> str:
    """Return a URL that has none with a login."""
    start, _, rest = _split(url)
    return f"{start}{quote(user, '')}:{quote(password, '')}@{rest}"
