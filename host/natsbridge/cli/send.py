"""`natsbridge send`: text, files and tables in one message."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import click
from rich.table import Table
from rich.text import Text

import natsbridge
from natsbridge.cli.files import Item, read_file, read_table
from natsbridge.cli.output import Bars, Output, clean, size
from natsbridge.cli.settings import Settings, complete_path, output_options, peer_options
from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge send lab.hello 'Hello'
  natsbridge send lab.camera --file photo.jpg --dict '{"iso": 400}'
  natsbridge send lab.data --table readings.csv --table names.csv=jsontable
  date | natsbridge send lab.log -
"""


def _payloads(
    text: str | None, files: tuple[str, ...], tables: tuple[str, ...], dicts: tuple[str, ...]
) -> list[Item]:
    items: list[Item] = []
    if text is not None:
        items.append(("text", _standard_input() if text == "-" else text, "text"))
    items += map(read_file, files)
    items += map(read_table, tables)
    for i, value in enumerate(dicts):
        try:
            items.append(("dict" if not i else f"dict-{i}", json.loads(value), "dictionary"))
        except ValueError as e:
            raise NATSBridgeError(INVALID_ARGUMENT, f"--dict {value!r} is no JSON: {e}") from None
    if not items:
        raise click.UsageError("Nothing to send: give a TEXT, --file, --table or --dict.")
    return items


def _standard_input() -> str:
    if sys.stdin is None:
        raise NATSBridgeError(INVALID_ARGUMENT, "standard input is closed: there is no TEXT in it")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as e:
        fix = "send a file of it with --file"
        raise NATSBridgeError(INVALID_ARGUMENT, f"standard input is no text: {e}; {fix}") from None


@click.command("send", epilog=EPILOG)
@click.argument("subject")
@click.argument("text", required=False)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH[=TYPE]",
    shell_complete=complete_path,
    help="Its type is guessed: image, audio, video, text or binary.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="PATH[=TYPE]",
    shell_complete=complete_path,
    help="A .csv, .parquet or .arrow file becomes an arrowtable, .json a jsontable.",
)
@click.option("--dict", "dicts", multiple=True, metavar="JSON", help="A dictionary.")
@click.option("--to", "receiver", default="", help="Name of the one receiver that it is for.")
@click.option("--purpose", default="chat", show_default=True, help="The message's msg_purpose.")
@click.option("--reply-to", default="", metavar="SUBJECT", help="Where answers go.")
@click.option("--correlation-id", default="", metavar="ID", help="Of what this belongs to.")
@click.option(
    "--threshold",
    type=click.IntRange(0),
    envvar="SIZE_THRESHOLD",
    metavar="BYTES",
    help="From this size on a payload goes by the file server.  [default: 500000]",
)
@click.option("--durable", is_flag=True, help="Until a stream has stored it, once.")
@click.option("--timeout", type=float, metavar="S", help="Seconds for all of it.")
@peer_options
@output_options
def command(
    out: Output,
    settings: Settings,
    subject: str,
    text: str | None,
    files: tuple[str, ...],
    tables: tuple[str, ...],
    dicts: tuple[str, ...],
    **options: Any,
) -> None:
    """Send TEXT, files, tables and dictionaries to SUBJECT, as one message.

    TEXT is read from standard input if it is "-".
    """
    # Read before the event loop runs: Ctrl-C ends waiting for standard input.
    out.run(lambda: _send(out, settings, subject, _payloads(text, files, tables, dicts), **options))


async def _send(
    out: Output,
    settings: Settings,
    subject: str,
    items: list[Item],
    receiver: str,
    purpose: str,
    reply_to: str,
    correlation_id: str,
    threshold: int | None,
    durable: bool,
    timeout: float | None,
) -> None:
    with contextlib.ExitStack() as opened:
        for _, value, _ in items:
            if hasattr(value, "close"):
                opened.callback(value.close)
        async with await settings.connect(reconnect=False) as nc:
            with out.progress() as progress:
                env, _ = await natsbridge.smartsend(
                    subject,
                    items,
                    nats_connection=nc,
                    fileserver_url=settings.fileserver,
                    size_threshold=threshold,
                    correlation_id=correlation_id,
                    msg_purpose=purpose,
                    receiver_name=receiver,
                    reply_to=reply_to,
                    on_progress=Bars(progress),
                    durable=durable,
                    timeout=timeout,
                )
            await nc.flush()
    _show(out, env)


def _show(out: Output, env: dict[str, Any]) -> None:
    keys = ("dataname", "payload_type", "size", "transport")
    out.record(
        **{key: env[key] for key in ("send_to", "correlation_id", "msg_id")},
        payloads=[{key: p[key] for key in keys} for p in env["payloads"]],
    )
    if out.as_json:
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for p in env["payloads"]:
        cells = clean(p["dataname"], 40), p["payload_type"], size(p["size"]), p["transport"]
        table.add_row(*(Text(cell) for cell in cells))
    out.row(Text(f"Sent to {clean(env['send_to'])}", "bold"))
    out.console.print(table)
    out.line(f"correlation id  {env['correlation_id']}")
    out.line(f"message id      {env['msg_id']}")
