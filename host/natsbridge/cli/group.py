"""What stands before a subcommand: help, version, completion and the configuration file."""

from __future__ import annotations

import importlib

import click

from natsbridge._version import __version__
from natsbridge.cli.settings import read_config

__all__ = ["group"]

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it failed; the reason is on stderr
  2    wrong arguments
  3    --timeout was over before --count messages came
  130  ended by Ctrl-C (up: 0)
  143  ended by SIGTERM (up: 0)
"""

_COMMANDS = {
    "up": "Start a broker and a file server on this machine.",
    "send": "Send text, files and tables in one message.",
    "receive": "Save what arrives in a folder.",
    "stream": "Make streams, which keep what is sent durably.",
    "watch": "Follow messages without fetching their files.",
    "doctor": "Check broker and file server, and say how to mend them.",
    "flash": "Put a program and its configuration on a board.",
    "logs": "Follow what a board prints.",
    "unflash": "Remove from a board what flash put there.",
}


class _Commands(click.Group):
    """Imports a subcommand's module only when it is called or asked for its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which one meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"natsbridge.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="natsbridge")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Defaults for all options, by their names; else ./natsbridge.toml, if there is one.",
)
@click.pass_context
def group(ctx: click.Context, config: str | None) -> None:
    """Payloads of any size between microcontrollers and desktops, over NATS.

    \b
    Begin with:  natsbridge up
    then:        natsbridge receive 'lab.>'
    and:         natsbridge send lab.hello 'Hello'
    """
    ctx.default_map = read_config(config, _COMMANDS, group)
