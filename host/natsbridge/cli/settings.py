"""What a command was told: by arguments, else the environment, else natsbridge.toml."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

import natsbridge
from natsbridge.cli.output import Output
from natsbridge.errors import NATSBridgeError

if TYPE_CHECKING:
    from natsbridge.client import Connection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CONFIG",
    "DATA",
    "Settings",
    "complete_path",
    "known_servers",
    "output_options",
    "peer_options",
    "read_config",
]

#: Where defaults are looked for when nobody names a file.
CONFIG = "natsbridge.toml"
#: Where `natsbridge up` keeps what it has, if nobody names a folder, and such a file too.
DATA = Path("natsbridge-data")


def complete_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell complete a path, where no type of click's says that it is one."""
    return [CompletionItem(incomplete, type="file")]


@dataclass(frozen=True)
class Settings:
    """Whom to talk to, and as whom. Secrets do not show in its repr."""

    server: tuple[str, ...]
    fileserver: str | None
    name: str
    user: str
    password: str
    token: str
    ca: str

    def __repr__(self) -> str:
        return f"Settings(name={self.name!r})"

    async def connect(self, **options: Any) -> Connection:
        """Connect to the broker. Raises `NATS_CONNECTION_FAILED`, `INVALID_ARGUMENT`."""
        try:
            return await natsbridge.connect(
                list(self.server) or None,
                name=self.name,
                user=self.user,
                password=self.password,
                token=self.token,
                tls={"ca": self.ca} if self.ca else None,
                **options,
            )
        except NATSBridgeError as e:
            if not self.server and known_servers():
                e.message += f"; `natsbridge up` keeps its address here: --config {DATA / CONFIG}"
            raise


def known_servers() -> dict[str, Any]:
    """Return what `natsbridge up` has written down in this folder."""
    try:
        found: dict[str, Any] = tomllib.loads((DATA / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


_PEER = (
    click.option(
        "--server",
        multiple=True,
        envvar="NATS_URL",
        metavar="URL",
        help="The broker; several for a cluster.  [default: nats://localhost:4222]",
    ),
    click.option(
        "--fileserver",
        envvar="FILESERVER_URL",
        metavar="URL",
        help="The file server.  [default: http://localhost:8080]",
    ),
    click.option("--name", default="", envvar="NATS_NAME", help="Who this peer is."),
    click.option("--user", default="", envvar="NATS_USER", help="For the broker."),
    click.option(
        "--password", default="", envvar="NATS_PASSWORD", help="Better in $NATS_PASSWORD."
    ),
    click.option("--token", default="", envvar="NATS_TOKEN", help="Better in $NATS_TOKEN."),
    click.option(
        "--ca",
        default="",
        envvar="NATS_CA",
        metavar="FILE",
        shell_complete=complete_path,
        help="A PEM file to verify TLS with; it demands TLS.",
    ),
)

_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs."),
    click.option("-v", "--verbose", is_flag=True, help="Log every step to stderr."),
)

Command = Callable[..., Any]


def output_options(command: Command) -> Command:
    """Give a command the options of its output, as its first argument `out`."""

    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, verbose: bool, **rest: Any) -> Any:
        return command(Output(as_json, verbose), *args, **rest)

    for option in reversed(_OUTPUT):
        wrapped = option(wrapped)
    return wrapped


def peer_options(command: Command) -> Command:
    """Give a command the options of `Settings`, as its argument `settings`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **given: Any) -> Any:
        fields = {name: given.pop(name) for name in Settings.__dataclass_fields__}
        return command(*args, settings=Settings(**fields), **given)

    for option in reversed(_PEER):
        wrapped = option(wrapped)
    return wrapped


def read_config(
    path: str | None, commands: Iterable[str], group: click.Group
) -> dict[str, dict[str, Any]]:
    """Return the defaults of every command: the file's top level, and a table of its own name.

    Raises:
        click.UsageError: where the file cannot be read or has an unknown key.
    """
    if path is None and not Path(CONFIG).is_file():
        return {}
    path = path or CONFIG
    try:
        config = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        # Not the line itself: it may hold a password.
        raise click.UsageError(f"{path} cannot be read: {e}") from None
    own = {name: config.pop(name) for name in list(config) if name in commands}
    given = {key.replace("-", "_"): value for key, value in config.items()}
    ctx = click.Context(group)
    known: set[str] = set()
    defaults: dict[str, dict[str, Any]] = {}
    for name in commands:
        command = group.get_command(ctx, name)
        assert command is not None
        # Those of a group have its table in common.
        parts = command.commands if isinstance(command, click.Group) else {"": command}
        options = {part: _options(each) for part, each in parts.items()}
        every = set().union(*options.values())
        table = own.get(name, {})
        if not isinstance(table, dict):
            raise click.UsageError(f"{path}: [{name}] must be a table")
        table = {key.replace("-", "_"): value for key, value in table.items()}
        if unknown := table.keys() - every:
            raise click.UsageError(f"{path} has unknown keys in [{name}]: {', '.join(unknown)}")
        known |= given.keys() & every
        both = {**given, **table}
        found = {
            part: {
                str(known_here[k].name): _listed(v, known_here[k], f"{path}: {k}")
                for k, v in both.items()
                if k in known_here
            }
            for part, known_here in options.items()
        }
        defaults[name] = found if isinstance(command, click.Group) else found[""]
    if unknown := given.keys() - known:
        raise click.UsageError(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    return defaults


def _options(command: click.Command) -> dict[str, click.Parameter]:
    """Return a command's options, by their names in the file."""
    return {
        o.removeprefix("--").replace("-", "_"): p
        for p in command.params
        for o in p.opts
        if o.startswith("--") and p.name
    }


def _listed(value: Any, option: click.Parameter, where: str) -> Any:
    """Return an option's value; one of several may be written without a list."""
    if not isinstance(option, click.Option) or not option.multiple:
        if isinstance(value, (list, dict)):
            raise click.UsageError(f"{where} must be one value")
        return value
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) for v in values):
        raise click.UsageError(f"{where} must be text, or a list of it")
    return values
