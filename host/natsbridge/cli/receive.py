"""`natsbridge receive`: what arrives is saved in a folder, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

import natsbridge
from natsbridge.cli.breaks import breaks_told
from natsbridge.cli.files import TABLE_FORMATS, converted, received_name, save
from natsbridge.cli.output import FAILED, NOTHING_CAME, Bars, Output, column, rate, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.client import Msg, Subscription
from natsbridge.download import in_thread
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    DOWNLOAD_FAILED,
    INVALID_ARGUMENT,
    PAYLOAD_TOO_LARGE,
    URL_NOT_ALLOWED,
    NATSBridgeError,
)
from natsbridge.reader import Envelope, read_envelope
from natsbridge.sink import FileTarget

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge receive 'lab.>'
  natsbridge receive lab.camera --out pictures --count 1
  natsbridge receive lab.data --queue workers --tables csv
"""

#: Messages that are received at a time, so that a large file holds up nobody else's.
AT_ONCE = 8
#: Types whose files are what came.
PLAIN = ("image", "audio", "video", "binary")
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
        self._converting = threading.Lock()  # one value in memory at a time
        self._main: asyncio.Task[Any] | None = None
        self._unheard = False

    async def run(self, subject: str) -> int:
        """Receive until --count, --timeout or Ctrl-C: the exit code."""
        self._make_folder()
        async with await self.settings.connect() as nc, breaks_told(self.out, nc):
            sub = await nc.subscribe(subject, self.queue)
            await nc.flush()
            self.out.line(f"Listening on {subject} at {nc.url}, saving in {self.folder}/", "dim")
            self.out.record(listening=subject, server=nc.url, out=str(self.folder))
            self._row(TITLES, "bold")
            self._main = asyncio.current_task()
            try:
                await self._loop(sub)
            except asyncio.CancelledError:
                if not self._unheard:
                    raise
                return FAILED
        if self.failed:
            return FAILED
        return NOTHING_CAME if self.count and self.started < self.count else 0

    async def _loop(self, sub: Subscription) -> None:
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
            try:
                env = await natsbridge.smartreceive(
                    msg,
                    fileserver_url=self.settings.fileserver,
                    sink=self._sink,
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
                await in_thread(self._keep_links, e, msg.data)
            except Exception as e:  # whatever a stranger sends, the others' messages are received
                text = f"a message on {msg.subject}: {type(e).__name__}: {e}"
                self._failed(NATSBridgeError(DESERIALIZATION_ERROR, text))
        except SystemExit:  # whoever read our output has gone
            self._unheard = True
            assert self._main is not None
            self._main.cancel()
        finally:
            bars.close()

    def _failed(self, e: NATSBridgeError) -> None:
        self.failed += 1
        self.out.fail(e)

    def _sink(self, dataname: str, kind: str, size: int | None) -> FileTarget:
        """Take every payload as it came: what it claims to be is looked at when all are there."""
        return FileTarget(self.folder, received_name(dataname, kind))

    def _save(self, env: dict[str, Any], message: bytes) -> dict[str, Any]:
        """Make what came what it should be, and save the envelope, which is returned."""
        saved = [
            Path(path) if kind in PLAIN else self._convert(name, Path(path), kind)
            for name, path, kind in env["payloads"]
        ]
        record = _record(env, read_envelope(message), saved)
        self._save_envelope(record, "envelope")
        return record

    def _convert(self, dataname: str, came: Path, kind: str) -> Path:
        """Return the file that a value became; where it can't, the file as it came."""
        try:
            with self._converting:
                content = converted(came, kind, self.tables)
                if content is None:
                    return came
                name = received_name(dataname, kind, self.tables)
                path = save(self.folder, name, content)
        except NATSBridgeError as e:
            self.out.warn(f"{came.name} stays as it came: {e}")
            return came
        if name == received_name(dataname, kind):
            return path.replace(came)
        came.unlink()
        return path

    def _save_envelope(self, record: dict[str, Any], what: str) -> Path:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        text = json.dumps(record, ensure_ascii=False, indent=1)
        name = f"{stamp}-{record['msg_id'][:8]}.{what}.json"
        return save(self.folder, name, text.encode(errors="replace"))

    def _keep_links(self, e: NATSBridgeError, message: bytes) -> None:
        """Keep the envelope of a message whose files may be fetched later."""
        with contextlib.suppress(NATSBridgeError):  # it is none, or there is no room for it
            envelope = read_envelope(message)
            links = [p for p in envelope.payloads if isinstance(p, dict)]
            links = [p for p in links if p.get("transport") == "link"]
            if links and e.code in (DOWNLOAD_FAILED, URL_NOT_ALLOWED):
                error = {"code": e.code, "message": e.message}
                record = {**envelope.fields, "payloads": links, "error": error}
                path = self._save_envelope(record, "failed")
                self.out.warn(f"Its envelope, with the URLs, is kept in {path}")

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
