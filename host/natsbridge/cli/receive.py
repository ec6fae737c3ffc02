"""`natsbridge receive`: what arrives is saved in a folder, whole or not at all."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

import natsbridge
from natsbridge.cli.files import TABLE_FORMATS, arrow_file, save, value_file
from natsbridge.cli.output import FAILED, NOTHING_CAME, Bars, Output, column, rate, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.client import Msg
from natsbridge.download import MEMORY_LIMIT, in_thread
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INVALID_ARGUMENT,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)
from natsbridge.payload import BYTE_TYPES
from natsbridge.reader import Envelope, read_envelope

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge receive 'lab.>'
  natsbridge receive lab.camera --out pictures --count 1
  natsbridge receive lab.data --queue workers --tables csv
"""

#: Messages that are received at a time, so that a large file holds up nobody else's.
AT_ONCE = 8
#: Width of each column: with the rate and the spaces between, it makes 80.
COLUMNS = (8, 8, 7, 16, 10, 8, 6)
TITLES = ("time", "from", "purpose", "file", "type", "size", "via", "rate")


@click.command("receive", epilog=EPILOG)
@click.argument("subject")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("received"),
    show_default=True,
    metavar="DIR",
    help="Made if it is not there.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N messages.")
@click.option("--timeout", type=float, metavar="S", help="End after S seconds without a message.")
@click.option("--queue", default="", metavar="NAME", help="Share SUBJECT with others of that name.")
@click.option(
    "--tables",
    type=click.Choice(TABLE_FORMATS),
    default="parquet",
    show_default=True,
    help="What tables are saved as.",
)
@click.option("--max-size", type=click.IntRange(0), metavar="BYTES", help="Of any one payload.")
@click.option("--allow", multiple=True, metavar="URL", help="Another file server to fetch from.")
@click.option("--nack", is_flag=True, help="Answer what can't be received with an error response.")
@peer_options
@output_options
def command(out: Output, settings: Settings, subject: str, **options: Any) -> None:
    """Save the payloads of every message on SUBJECT, with its envelope as JSON beside them.

    Wildcards: * is one word, > at the end is any number of them; quote them for the shell.
    """
    out.run(lambda: _Receiver(out, settings, **options).run(subject))


class _Receiver:
    def __init__(
        self,
        out: Output,
        settings: Settings,
        folder: Path,
        count: int | None,
        timeout: float | None,
        queue: str,
        tables: str,
        max_size: int | None,
        allow: tuple[str, ...],
        nack: bool,
    ) -> None:
        self.out = out
        self.settings = settings
        self.folder = folder
        self.count = count
        self.timeout = timeout
        self.queue = queue
        self.tables = tables
        self.limit = max_size
        self.allow = allow
        self.nack = nack
        self.failed = 0
        self.started = 0
        self._converting = threading.Lock()  # one table in memory at a time

    async def run(self, subject: str) -> int:
        """Receive until --count, --timeout or Ctrl-C: the exit code."""
        self._make_folder()
        async with await self.settings.connect() as nc:
            sub = await nc.subscribe(subject, self.queue)
            self.out.line(f"Listening on {subject} at {nc.url}, saving in {self.folder}/", "dim")
            self._row(TITLES, "bold")
            room = asyncio.Semaphore(AT_ONCE)
            tasks: set[asyncio.Task[None]] = set()
            with self.out.progress() as progress:
                try:
                    while self.count is None or self.started < self.count:
                        await room.acquire()
                        try:
                            msg = await sub.next(self.timeout)
                        except NATSBridgeError as e:
                            if e.code != PAYLOAD_TOO_LARGE:
                                raise
                            self._failed(e)  # messages were dropped: on with the next ones
                            room.release()
                            continue
                        if msg is None:
                            break
                        self.started += 1
                        task = asyncio.create_task(self._receive(msg, Bars(progress)))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                        task.add_done_callback(lambda _: room.release())
                    if tasks:
                        await asyncio.wait(tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        if self.failed:
            return FAILED
        return NOTHING_CAME if self.count and self.started < self.count else 0

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"{self.folder} cannot be made ({e.strerror}): choose another --out",
            ) from None

    async def _receive(self, msg: Msg, bars: Bars) -> None:
        begun = time.monotonic()
        try:
            env = await natsbridge.smartreceive(
                msg,
                fileserver_url=self.settings.fileserver,
                sink=self.folder,
                max_payload_size=self.limit,
                allowed_urls=self.allow,
                nack=self.nack,
                on_progress=bars,
            )
            record = await in_thread(self._save, env, msg.data)
            self._show(msg, record, time.monotonic() - begun)
        except NATSBridgeError as e:
            e.message = f"{_as_options(e.message)} (a message on {msg.subject})"
            self._failed(e)
        except Exception as e:  # whatever a stranger sends, the others' messages are received
            text = f"a message on {msg.subject}: {type(e).__name__}: {e}"
            self._failed(NATSBridgeError(DESERIALIZATION_ERROR, text))
        finally:
            bars.close()

    def _failed(self, e: NATSBridgeError) -> None:
        self.failed += 1
        self.out.fail(e)

    def _save(self, env: dict[str, Any], message: bytes) -> dict[str, Any]:
        """Save what is not in the folder yet, and the envelope, which is returned."""
        saved: list[Path] = []
        for name, data, kind in env["payloads"]:
            if kind == "arrowtable":
                saved.append(self._convert(name, Path(data)))
            elif kind in BYTE_TYPES:
                saved.append(Path(data))
            else:
                saved.append(save(self.folder, *value_file(name, data, kind, self.tables)))
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        record = _record(env, read_envelope(message), saved)
        text = json.dumps(record, ensure_ascii=False, indent=1)
        name = f"{stamp}-{env['msg_id'][:8]}.envelope.json"
        save(self.folder, name, text.encode(errors="replace"))
        return record

    def _convert(self, name: str, raw: Path) -> Path:
        """Return the file that a received table became; where it can't, the table as it came."""
        try:
            if raw.stat().st_size > MEMORY_LIMIT:
                raise NATSBridgeError(PAYLOAD_TOO_LARGE, "it is more than memory should hold")
            with self._converting:
                path = save(self.folder, *arrow_file(name, raw.read_bytes(), self.tables))
        except NATSBridgeError as e:
            self.out.warn(f"{raw.name} stays as it came: {e}")
            return raw
        raw.unlink()
        return path

    def _show(self, msg: Msg, env: dict[str, Any], seconds: float) -> None:
        self.out.record(subject=msg.subject, seconds=round(seconds, 3), **env)
        who = env["sender_name"] or env["sender_id"][:8]
        first = [datetime.now().strftime("%H:%M:%S"), who, env["msg_purpose"]]
        if "error" in env:
            self._row([*first, f"{env['error']['code']}: {env['error']['message']}"], "red")
        elif not env["payloads"]:
            self._row([*first, "(no payload)"])
        for p in env["payloads"]:
            speed = rate(p["size"], seconds) if p["transport"] == "link" and p["size"] else ""
            cells = p["file"], p["payload_type"], size(p["size"]), p["transport"], speed
            self._row([*first, *cells])
            first = [""] * 3

    def _row(self, cells: list[str] | tuple[str, ...], style: str = "") -> None:
        widths = COLUMNS[: len(cells)] if len(cells) > 4 else (*COLUMNS[: len(cells) - 1], 50)
        fixed = [column(c, w) for c, w in zip(cells, widths, strict=False)]
        self.out.line(" ".join([*fixed, *cells[len(widths) :]]).rstrip(), style)


def _as_options(advice: str) -> str:
    """Return an error's advice in terms of this command."""
    advice = re.sub(r'allowed_urls=\["(.*?)"\]', r"--allow \1", advice)
    advice = advice.replace(", or receive into a folder (sink=...)", "")
    return advice.replace("max_payload_size", "--max-size")


def _record(env: dict[str, Any], envelope: Envelope, saved: list[Path]) -> dict[str, Any]:
    """Return an envelope for a person or a program: its payloads are files."""
    fields = {key: value for key, value in env.items() if key != "payloads"}
    payloads = [
        {
            "dataname": name,
            "payload_type": kind,
            "transport": raw.get("transport"),
            "size": raw.get("size"),
            "file": path.name,
            "metadata": raw.get("metadata") or {},
        }
        for (name, _, kind), raw, path in zip(
            env["payloads"], envelope.payloads, saved, strict=False
        )
    ]
    return {**fields, "payloads": payloads}
