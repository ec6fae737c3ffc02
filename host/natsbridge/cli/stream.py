"""`natsbridge stream`: the streams that keep what is sent durably."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click

from natsbridge.cli.board import at_prompt, can_ask
from natsbridge.cli.output import Output, clean, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.streams import DAY_S, Streams, StreamState

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge stream create LAB 'lab.>'
  natsbridge stream info
  natsbridge receive 'lab.>' --durable desk
"""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}


class _Age(click.ParamType):  # type: ignore[type-arg] # older click has none
    """Seconds, or 90s, 15m, 24h, 7d; 0 for ever."""

    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value)
        unit = UNITS.get(text[-1:], 1)
        digits = text[:-1] if text[-1:] in UNITS else text
        if not digits.isascii() or not digits.isdigit():
            self.fail(f"{text!r} is no time such as 90s, 15m, 24h or 7d", param, ctx)
        return int(digits) * unit


@click.group("stream", epilog=EPILOG)
def command() -> None:
    """Make and look after streams, which keep what is sent with durable=True."""


@command.command("create")
@click.argument("stream")
@click.argument("subjects", nargs=-1, required=True)
@click.option("--max-age", type=_Age(), help="Of a message; 0 for ever.  [default: 24h]")
@click.option(
    "--max-bytes", type=click.IntRange(0), metavar="N", help="Of all messages; 0 for no limit."
)
@click.option(
    "--when-full",
    type=click.Choice(("drop-oldest", "refuse")),
    help="[default: drop-oldest]",
)
@click.option("--replicas", type=click.IntRange(1, 5), help="In a cluster.  [default: 1]")
@peer_options
@output_options
def create(
    out: Output, settings: Settings, stream: str, subjects: tuple[str, ...], **options: Any
) -> None:
    """Make STREAM for SUBJECTS, or change it: what is not named stays as it is.

    A file that went by link is gone after the file server's time to live, 24 h: a stream that
    keeps messages for longer has some whose files are not there any more.
    """

    async def work(streams: Streams) -> None:
        state, new = await streams.create(stream, list(subjects), **options)
        out.record(stream=state.as_dict(), created=new)
        out.line(f"Stream {clean(stream)} {'is made' if new else 'is changed'}.")
        _show(out, state)

    _with_streams(out, settings, work)


@command.command("info")
@click.argument("stream", required=False)
@peer_options
@output_options
def info(out: Output, settings: Settings, stream: str | None) -> None:
    """Show STREAM, or all, and who has how much of it to fetch."""

    async def work(streams: Streams) -> None:
        found = [await streams.info(stream)] if stream else await streams.all()
        if not found:
            out.line("There is no stream. Make one: natsbridge stream create LAB 'lab.>'")
        for state in found:
            out.record(stream=state.as_dict())
            out.line(clean(state.name), "bold")
            _show(out, state)

    _with_streams(out, settings, work)


@command.command("purge")
@click.argument("stream")
@click.option("--yes", is_flag=True, help="Don't ask.")
@peer_options
@output_options
def purge(out: Output, settings: Settings, stream: str, yes: bool) -> None:
    """Remove all messages from STREAM, which stays."""

    async def work(streams: Streams) -> None:
        state = await streams.info(stream)
        if not yes:
            if not can_ask(out):
                raise NATSBridgeError(INVALID_ARGUMENT, "nobody is there to be asked: pass --yes")
            with at_prompt():
                question = f"Remove {state.messages:,} messages of {clean(stream)}"
                if not click.confirm(question, err=True):
                    out.line("Nothing is removed.")
                    return
        removed = await streams.purge(stream)
        out.record(purged=removed)
        out.line(f"{removed:,} messages are removed.")

    _with_streams(out, settings, work)


def _with_streams(
    out: Output, settings: Settings, work: Callable[[Streams], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with await settings.connect(reconnect=False) as nc:
            await work(Streams(nc))

    out.run(run)


def _age(seconds: float) -> str:
    if not seconds:
        return "for ever"
    for unit, length in reversed(UNITS.items()):
        if seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:g}s"


def _show(out: Output, state: StreamState) -> None:
    out.line(f"  subjects   {' '.join(clean(s) for s in state.subjects)}")
    out.line(f"  messages   {state.messages:,}, {size(state.bytes)}")
    limit = f", up to {size(state.max_bytes)}" if state.max_bytes else ""
    full = "refuses more" if state.refuses else "drops the oldest"
    out.line(f"  kept       {_age(state.max_age)}{limit}; when full it {full}")
    for consumer in state.consumers:
        out.line(
            f"  consumer   {clean(consumer.name)}: {consumer.waiting:,} wait,"
            f" {consumer.unacknowledged:,} not acknowledged"
        )
