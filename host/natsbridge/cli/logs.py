"""`natsbridge logs`: what a board prints, while its program goes on."""

from __future__ import annotations

import asyncio

import click

from natsbridge.cli.board import device_option, find_port
from natsbridge.cli.output import Output, clean
from natsbridge.cli.settings import output_options
from natsbridge.flashing import console
from natsbridge.flashing.link import check

__all__ = ["command"]

EPILOG = """\b
Example:
  natsbridge logs --device /dev/ttyACM0
"""


@click.command("logs", epilog=EPILOG)
@device_option
@output_options
def command(out: Output, port: str) -> None:
    """Follow what a board prints, over restarts of it, until Ctrl-C."""
    out.run(lambda: _logs(out, port))


async def _logs(out: Output, port: str) -> None:
    def show(line: str) -> None:
        out.record(line=line)
        out.line(clean(line))

    def away(is_so: bool) -> None:
        out.warn(f"{port} is away: waiting for it." if is_so else f"{port} is back.")

    port = await find_port(out, port)
    await check(port)
    out.line(f"Following {port} until Ctrl-C:")
    async with console.follow(port, show, away):
        await asyncio.Event().wait()
