"""The configuration of a board: what is given, what the board has, and what must be asked for.

What is given later goes before: the template, the board, the environment, a file, --set, answers.
Nothing here prints a value: any of them may be a password.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from natsbridge.flashing.keys import KEYS, flat, has_login, is_ours
from natsbridge.flashing.plan import Refused

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Question", "Values", "from_environment", "parse_settings", "read_file", "read_values"]

#: Bytes of the largest file of values that is read.
LARGEST = 1 << 16


class Question:
    """A value that is missing."""

    def __init__(self, key: str, default: str = "", optional: bool = False) -> None:
        self.key = key
        self.text = KEYS[key].question
        self.hidden = KEYS[key].secret
        self.default = default
        #: Whether it can be done without, where nobody can be asked.
        self.optional = optional

    def __repr__(self) -> str:
        return f"Question({self.key!r})"


class Values:
    """What config.json is going to say.

    watchdog_max: milliseconds of the board's longest watchdog, where there is a longest.
    known: answers that are likely, by key.
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        on_board: str | None,
        watchdog_max: int | None = None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        self._order = list(template)
        self._values = flat(template)
        self._longest = watchdog_max
        self._known = known or {}
        #: Keys that somebody gave a value, and not just the template.
        self._given: set[str] = set()
        #: Keys that a person gave it, and those that are to be asked for once more.
        self._answered: set[str] = set()
        self._again: set[str] = set()
        #: Why values that the board has are not taken over.
        self.dropped: list[str] = []
        if is_ours(on_board):
            for key, value in flat(json.loads(on_board or "")).items():
                try:
                    self.set(key, value, "the board's config.json")
                except Refused as e:
                    self.dropped.append(e.message)

    def __repr__(self) -> str:
        return f"Values({sorted(self._values)})"

    def __getitem__(self, key: str) -> Any:
        return self._values.get(key)

    def update(self, values: Mapping[str, Any], where: str) -> None:
        """Take these values over.

        Raises:
            Refused: a key that no board reads, or a value that it has no use for.
        """
        for key, value in flat(values).items():
            self.set(key, value, where)

    def set(self, key: str, value: Any, where: str) -> None:
        """Give a key, "wifi.ssid" for one in a table, a value.

        Raises:
            Refused: as `update`.
        """
        if key not in KEYS:
            raise Refused(f"{where} has an unknown key {key!r}", f"there are {', '.join(KEYS)}")
        must = KEYS[key].must
        longest = self._longest if key == "watchdog" else None
        if longest is not None:
            must += f", at most {longest}"
        if not KEYS[key].fits(value) or (longest is not None and value > longest):
            raise Refused(f"{where}: {key} must be {must}")
        if key == "wifi":
            for inner in [k for k in self._values if k.startswith("wifi.")]:
                del self._values[inner]
        elif key.startswith("wifi."):
            self._values.pop("wifi", None)
        self._values[key] = value
        self._given.add(key)
        self._again.discard(key)

    def answer(self, key: str, value: str) -> None:
        """Give a key the value that a person gave.

        Raises:
            Refused: as `update`.
        """
        self.set(key, value, "the answer")
        self._answered.add(key)
        if key == "broker" and has_login(value):
            self.update({"user": "", "password": ""}, "the answer")

    def take(self, environment: Mapping[str, str]) -> None:
        """Take over what the environment has; not a Wi-Fi, where there is none.

        Raises:
            Refused: as `update`.
        """
        for key, value in environment.items():
            if not key.startswith("wifi.") or "wifi" not in self._values:
                self.set(key, value, f"${KEYS[key].variable}")

    def ask_again(self, *keys: str) -> None:
        """Have these asked for once more, with what they are as the default."""
        self._again.update(keys)

    def missing(self) -> list[Question]:
        """Return what has to be asked for. An answer can lead to another question."""
        wifi = "wifi" not in self._values
        login = bool(has_login(self["broker"]) or self["token"])
        may = {
            "wifi.ssid": wifi,
            "wifi.password": wifi,
            "name": wifi or not self["name"],
            "broker": True,
            "user": "broker" in self._answered and not login,
            "password": bool(self["user"]),
            "fileserver_url": True,
        }
        asked = [
            k for k, is_so in may.items() if is_so and (k not in self._given or k in self._again)
        ]
        return [
            Question(k, self._default(k), k in ("name", "user") and bool(self[k])) for k in asked
        ]

    def _default(self, key: str) -> str:
        """Return what an empty answer stands for: the template's servers are made up."""
        if KEYS[key].secret:
            return ""
        mine = key in self._given and (key in self._answered or key not in self._known)
        value = self[key] if mine or not KEYS[key].url else self._known.get(key)
        return value if isinstance(value, str) else ""

    def to_json(self) -> bytes:
        """Return config.json."""
        wifi = {k[5:]: v for k, v in self._values.items() if k.startswith("wifi.")}
        values = {**self._values, **({"wifi": wifi} if wifi else {})}
        ordered = {k: values[k] for k in dict.fromkeys((*self._order, *values)) if k in values}
        said = {k: v for k, v in ordered.items() if not k.startswith("wifi.")}
        return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the values that the environment has."""
    named = {name: environment.get(key.variable) for name, key in KEYS.items() if key.variable}
    return {name: value for name, value in named.items() if value}


def read_file(path: Path, most: int) -> bytes:
    """Return what is in a file of the user's.

    Raises:
        Refused: it cannot be read, or has more than `most` bytes, as /dev/zero has.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as e:
        raise Refused(f"{path} cannot be read ({e.strerror})") from None
    if len(data) > most:
        raise Refused(f"{path} has more than {most:,} bytes")
    return data


def read_values(path: Path) -> dict[str, Any]:
    """Return what a file of the user's says, JSON or TOML.

    Raises:
        Refused: it cannot be read.
    """
    data = read_file(path, LARGEST)
    try:
        text = data.decode()
        said = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as e:
        # Not the line itself: it may hold a password.
        why = f"{path} cannot be read ({type(e).__name__})"
        raise Refused(why, "it is JSON, or TOML if named so") from None
    if not isinstance(said, dict):
        raise Refused(f"{path} is no table of keys and values")
    return said


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return what --set KEY=VALUE says, flat: JSON where it is that, else text.

    Raises:
        Refused: it is a secret, or is not written so.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            what = "names no key" if not key else f"{key} has no value"
            raise Refused(f"--set {what}", "write --set KEY=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if key in KEYS and KEYS[key].text and type(value) in (int, float, bool):
            value = text  # a name can be a number
        for name, inner in flat({key: value}).items():
            _check_secret(name, inner)
            found[name] = inner
    return found


def _check_secret(name: str, value: Any) -> None:
    """Refuse what would show in the list of processes."""
    secret = next((k for k in KEYS if KEYS[k].secret and f"{name}.".startswith(f"{k}.")), "")
    if secret:
        why, ways = f"--set {secret}", f"${KEYS[secret].variable} or a --config file"
    elif name in KEYS and KEYS[name].url and has_login(value):
        why, ways = f"the login in --set {name}", "a --config file"
    else:
        return
    raise Refused(f"{why} would show in the list of processes", f"put it into {ways}, or be asked")
