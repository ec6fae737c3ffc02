"""The configuration of a board: what is given, what the board has, and what must be asked for.

Nothing here prints a value: any of them may be a password.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from natsbridge.flashing.plan import Refused

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ENVIRONMENT", "Question", "Values", "parse_settings", "read_values", "without_login"]

#: Where a value may also come from, so that it stands in no command line.
ENVIRONMENT = {
    "wifi.ssid": "WIFI_SSID",
    "wifi.password": "WIFI_PASSWORD",
    "password": "DEVICE_PASSWORD",
    "token": "DEVICE_TOKEN",
}
SECRETS = {"wifi.password", "password", "token"}


class Question:
    """A value that is missing."""

    def __init__(self, key: str, text: str, default: str = "") -> None:
        self.key = key
        self.text = text
        self.default = default
        self.hidden = key in SECRETS

    def __repr__(self) -> str:
        return f"Question({self.key!r})"


class Values:
    """What config.json is going to say."""

    def __init__(self, template: Mapping[str, Any], on_board: str | None) -> None:
        self._template = template
        self._values = deepcopy(dict(template))
        #: Keys that somebody gave a value, and not just the template.
        self._given: set[str] = set()
        try:
            before = json.loads(on_board) if on_board else {}
        except ValueError:
            before = {}  # damaged: as if it were not there
        if isinstance(before, dict):
            self._merge({k: v for k, v in before.items() if k in template})

    def __repr__(self) -> str:
        return f"Values({sorted(self._values)})"

    def __getitem__(self, key: str) -> Any:
        value: Any = self._values
        for word in key.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        return value

    def _merge(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                before = self._values.get(key)
                self._values[key] = {**(before if isinstance(before, dict) else {}), **value}
                self._given.update(f"{key}.{inner}" for inner in value)
            else:
                self._values[key] = deepcopy(value)
            self._given.add(key)

    def update(self, values: Mapping[str, Any], where: str) -> None:
        """Take these values over.

        Raises:
            Refused: a key that no board reads.
        """
        if unknown := sorted(values.keys() - self._template.keys()):
            known = ", ".join(self._template)
            raise Refused(f"{where} has unknown keys: {', '.join(unknown)}", f"there are {known}")
        self._merge(values)

    def set(self, key: str, value: Any) -> None:
        """Give a key, "wifi.ssid" for one in a table, a value.

        Raises:
            Refused: no board reads it.
        """
        first, _, rest = key.partition(".")
        if isinstance(self[key], str) and type(value) in (int, float):
            value = str(value)  # a name can be a number
        self.update({first: {rest: value} if rest else value}, "--set")

    def missing(self, environment: Mapping[str, str]) -> list[Question]:
        """Return what has to be asked for, once the environment has given what it has."""
        for key, name in ENVIRONMENT.items():
            first = key.partition(".")[0]
            if environment.get(name) and (first == key or isinstance(self._values[first], dict)):
                self.set(key, environment[name])
        asked: list[Question] = []
        if isinstance(self["wifi"], dict):
            if not self["wifi.ssid"]:
                asked.append(Question("wifi.ssid", "Name of the Wi-Fi"))
            if "wifi.password" not in self._given:
                asked.append(Question("wifi.password", "Its password (empty: it has none)"))
        for key, text in (
            ("broker", "The broker's URL, as the board reaches it"),
            ("fileserver_url", "The file server's URL, as the board reaches it"),
        ):
            if key not in self._given and key in self._values:
                asked.append(Question(key, text, self[key] or ""))
        if not self["name"]:
            asked.append(Question("name", "Name of this board, as in natsbridge.hello.NAME"))
        return asked

    def to_json(self) -> bytes:
        """Return config.json."""
        return (json.dumps(self._values, indent=1, ensure_ascii=False) + "\n").encode()


def read_values(path: Path) -> dict[str, Any]:
    """Return what a file of the user's says, JSON or TOML.

    Raises:
        Refused: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        said = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as e:
        # Not the line itself: it may hold a password.
        reason = e.strerror if isinstance(e, OSError) else type(e).__name__
        raise Refused(
            f"{path} cannot be read ({reason})", "it is JSON, or TOML if named so"
        ) from None
    if not isinstance(said, dict):
        raise Refused(f"{path} is no table of keys and values")
    return said


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return what --set KEY=VALUE says: JSON where it is that, else text.

    Raises:
        Refused: it is a secret, or has no `=`.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise Refused(f"--set {key} has no value", "write KEY=VALUE")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
        inner = found[key] if isinstance(found[key], dict) else {}
        for secret in {key, *(f"{key}.{name}" for name in inner)} & SECRETS:
            why = f"--set {secret} would show in the list of processes"
            fix = f"put it into ${ENVIRONMENT[secret]} or a --config file, or be asked"
            raise Refused(why, fix)
    return found


def without_login(url: str) -> str:
    """Return a URL as it may be shown."""
    parts = urlsplit(url)
    return url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)
