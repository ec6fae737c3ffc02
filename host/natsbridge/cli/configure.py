"""What a board is told: from options, the environment and the board itself, else by asking."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from natsbridge.cli.board import at_prompt, can_ask
from natsbridge.cli.output import Output
from natsbridge.cli.settings import Settings, known_servers
from natsbridge.flashing.keys import KEYS, has_login, with_login, without_login
from natsbridge.flashing.plan import Refused
from natsbridge.flashing.values import Question, Values
from natsbridge.urls import is_loopback

__all__ = ["ask", "ask_for_broker", "likely"]


def likely(settings: Settings, wifi: bool) -> dict[str, str]:
    """Return the servers that a board is probably told: those that this command is told, else those
    that `natsbridge up` has started here.

    wifi: whether it is on a network, where servers for this machine alone are of no use.
    """
    up = known_servers()
    found: dict[str, str] = {}
    for key, urls in (
        ("broker", (*settings.server, up.get("server"))),
        ("fileserver_url", (settings.fileserver, up.get("fileserver"))),
    ):
        for url in urls:
            if isinstance(url, str) and KEYS[key].fits(url) and not (wifi and _is_local(url)):
                found.setdefault(key, url)
    return found


def _host(url: object) -> str:
    text = str(url)
    return urlsplit(text if "://" in text else f"//{text}").hostname or ""


def _is_local(url: str) -> bool:
    """Tell a server of `up` from one of `up --lan`, which has a login."""
    return is_loopback(_host(url)) and not has_login(url)


def ask(out: Output, values: Values) -> None:
    """Ask for what is missing.

    Raises:
        Refused: something is, and there is nobody to ask.
    """
    if not can_ask(out):
        if missing := [q.key for q in values.missing() if not q.optional]:
            raise Refused(f"the configuration lacks {', '.join(missing)}", _ways(missing))
        return
    while questions := values.missing():
        question = questions[0]
        if question.key == "broker" and not question.default:
            out.text("Broker and file server: `natsbridge up --lan` starts them, for the network.")
        answer = _prompt(question)
        try:
            values.answer(question.key, answer)
            if question.key == "fileserver_url" and answer not in ("", question.default):
                values.answer(question.key, _with_login(answer))
        except Refused as e:
            out.warn(e.message)
            values.ask_again(question.key)


def _ways(keys: list[str]) -> str:
    """Say how values are given where nobody can be asked."""
    secret = [f"${KEYS[key].variable}" for key in keys if KEYS[key].secret]
    ways = "give them with --set or --config"
    return f"{ways}, but secrets in {', '.join(secret)} or with --config" if secret else ways


def _prompt(question: Question) -> str:
    key, text, default = KEYS[question.key], question.text, question.default
    if default:
        text += f" [{without_login(default)}]"  # which is why click shows none
    elif key.fits("") and not key.secret:
        text += " (empty: none)"
    with at_prompt():
        preset = default or ("" if key.fits("") else None)
        return str(click.prompt(text, preset, show_default=False, hide_input=key.secret, err=True))


def _with_login(url: str) -> str:
    """Return the file server's URL with the login that a person gives."""
    if has_login(url):
        return url
    with at_prompt():
        words = "User at the file server (empty: none)"
        user = click.prompt(words, "", show_default=False, err=True)
        if not user:
            return url
        words = "Password of that user"
        password = click.prompt(words, "", show_default=False, hide_input=True, err=True)
    return with_login(url, user, password)


def ask_for_broker(out: Output, values: Values) -> None:
    """Ask for the broker once more, and for a file server that was at the same place.

    Raises:
        Refused: as `ask`.
    """
    before = _host(values["broker"])
    values.ask_again("broker", "user", "password")
    ask(out, values)
    if before != _host(values["broker"]) and _host(values["fileserver_url"]) == before:
        values.ask_again("fileserver_url")
        ask(out, values)
