"""`natsbridge watch`: what passes by on a subject, without fetching any file."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click
from rich.cells import cell_len
from rich.text import Text

from natsbridge import jsontext
from natsbridge.cli.breaks import breaks_told
from natsbridge.cli.output import NOTHING_CAME, Output, clean, column, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.client import Msg
from natsbridge.errors import NATSBridgeError
from natsbridge.payload import from_bytes, from_json
from natsbridge.reader import Envelope, Payload, check_payload, decode_direct, read_envelope

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge watch 'lab.>'
  natsbridge watch 'lab.>' --correlation-id 5f0e --rows 10
"""

#: Bytes of a table that are decoded for its head.
LIMIT = 64 << 20
#: Columns of a table, and characters of a cell, that are shown.
CELLS = 6
CELL = 16
#: Characters of a text or dictionary that are shown.
TEXT = 400
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "white")


@click.command("watch", epilog=EPILOG)
@click.argument("subject")
@click.option("--correlation-id", default="", metavar="ID", help="Only those that begin like this.")
@click.option("--rows", type=click.IntRange(0), default=5, show_default=True, help="Of a table.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N messages.")
@click.option("--timeout", type=float, metavar="S", help="End after S seconds without a message.")
@peer_options
@output_options
def command(out: Output, settings: Settings, subject: str, **options: Any) -> None:
    """Show every message on SUBJECT: who, what, and the beginning of texts and tables.

    Files are neither fetched nor deleted, and other receivers get everything as well. Messages
    of one correlation id have one colour.
    """
    out.run(lambda: _watch(out, settings, subject, **options))


async def _watch(
    out: Output,
    settings: Settings,
    subject: str,
    correlation_id: str,
    rows: int,
    count: int | None,
    timeout: float | None,
) -> int:
    shown = 0
    async with await settings.connect() as nc, breaks_told(out, nc):
        sub = await nc.subscribe(subject)
        await nc.flush()
        out.line(f"Watching {subject} at {nc.url}", "dim")
        out.record(watching=subject, server=nc.url)
        while count is None or shown < count:
            msg = await sub.next(timeout)
            if msg is None:
                return NOTHING_CAME if count else 0
            try:
                envelope = read_envelope(msg.data)
            except NATSBridgeError as e:
                if not correlation_id:
                    _odd(out, msg, e)
                    shown += 1
                continue
            if envelope.fields["correlation_id"].startswith(correlation_id):
                _show(out, msg, envelope, rows)
                shown += 1
    return 0


def _odd(out: Output, msg: Msg, e: NATSBridgeError) -> None:
    out.record(subject=msg.subject, size=len(msg.data), error=str(e))
    out.row(Text(f"{_now()}  {clean(msg.subject)}  {size(len(msg.data))}, no envelope", "dim"))


def _now() -> str:
    return datetime.now().strftime("%H:%M:%S")


def _show(out: Output, msg: Msg, envelope: Envelope, rows: int) -> None:
    env = envelope.fields
    payloads = []
    for i, raw in enumerate(envelope.payloads):
        try:
            payloads.append(_describe(check_payload(raw, i), envelope.size, rows))
        except NATSBridgeError as e:
            # Advice on receiving it is of no use here.
            payloads.append({"error": str(e).partition(": receive it into")[0]})
    out.record(subject=msg.subject, **env, payloads=payloads)
    if out.as_json:
        return
    style = COLOURS[sum(env["correlation_id"].encode()) % len(COLOURS)]
    who = env["sender_name"] or env["sender_id"][:8] or "?"
    to = env["receiver_name"] or env["receiver_id"][:8]
    head = Text(_now(), style="dim") + Text(f"  {clean(env['correlation_id'])[:8]}  ", style=style)
    arrow_ = f"{clean(who)} -> {clean(to)}" if to else clean(who)
    out.row(head + Text(f"{clean(msg.subject)}  {arrow_}  {clean(env['msg_purpose'])}"))
    if "error" in env:
        error = f"    {clean(env['error']['code'])}: {clean(env['error']['message'])}"
        out.line(out.wrap(error, 4), "red")
    for p in payloads:
        if "error" in p:
            out.line(out.wrap(f"    {clean(p['error'])}", 4), "red")
            continue
        name = clean(p["dataname"], 40)
        out.row(Text(f"    {name}  {p['payload_type']}  {size(p['size'])}  {p['transport']}"))
        for line in p["preview"].splitlines():
            if p["transport"] == "link":
                out.line(f"      {line}", style)  # whole, to be copied
            else:
                out.row(Text(f"      {line}", style))


def _describe(payload: Payload, message_size: int, rows: int) -> dict[str, Any]:
    described = {
        "dataname": payload.dataname,
        "payload_type": payload.payload_type,
        "transport": payload.transport,
        "size": payload.size,
        "preview": "",
    }
    if payload.transport == "link":
        described["preview"] = clean(payload.data)
        return described
    data, value = decode_direct(payload, message_size)
    if data is None:
        value = from_json(payload.dataname, value, payload.payload_type)
        described["size"] = len(jsontext.dumps(value).encode())
    else:
        described["size"] = len(data)
        if payload.payload_type in ("image", "audio", "video", "binary"):
            return described
        value = from_bytes(payload.dataname, data, payload.payload_type, LIMIT)
    described["preview"] = _preview(value, payload.payload_type, rows)
    return described


def _preview(value: Any, kind: str, rows: int) -> str:
    if kind == "text":
        return "\n".join(clean(line) for line in value[:TEXT].splitlines()[:rows])
    if kind == "arrowtable":
        head = value.slice(0, rows).to_pylist()
        return _table(head, value.column_names, value.num_rows)
    if kind == "jsontable":
        columns = list(dict.fromkeys(key for row in value[:rows] for key in row))
        return _table(value[:rows], columns, len(value))
    return clean(json.dumps(value, ensure_ascii=False), TEXT)


def _table(rows: list[dict[str, Any]], columns: list[str], total: int) -> str:
    shown = columns[:CELLS]
    cells = [shown, *([str(row.get(c, "")) for c in shown] for row in rows)]
    fixed = [[clean(cell, CELL) for cell in line] for line in cells]
    widths = [max(cell_len(line[i]) for line in fixed) for i in range(len(shown))]
    lines = ["  ".join(column(c, w) for c, w in zip(line, widths, strict=True)) for line in fixed]
    more = f"{total} rows, {len(columns)} columns"
    return "\n".join([*(line.rstrip() for line in lines), more])
