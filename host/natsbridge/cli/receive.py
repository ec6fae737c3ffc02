"""`natsbridge receive`: what arrives is saved in a folder, whole or not at all.

Ctrl-C and SIGTERM end it in order: what had come is saved, and the messages whose files are not
fetched any more are kept. A second one ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

import natsbridge
from natsbridge.cli.breaks import breaks_told
from natsbridge.cli.files import TABLE_FORMATS
from natsbridge.cli.folder import Folder
from natsbridge.cli.output import FAILED, NOTHING_CAME, Bars, Output, column, rate, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.cli.sources import open_source
from natsbridge.client import Msg, StoredMsg
from natsbridge.download import in_thread
from natsbridge.errors import (
    DESERIALIZATION_ERROR,
    INVALID_ARGUMENT,
    PAYLOAD_TOO_LARGE,
    NATSBridgeError,
)

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge receive 'lab.>'
  natsbridge receive lab.camera --out pictures --count 1
  natsbridge receive lab.data --queue workers --tables csv
"""

#: Messages with files to fetch, and without, that are received at a time.
AT_ONCE = 8
#: Messages that are in hand: those that wait for their turn, too. Of what a stream keeps only those
#: with files wait here: others who share it may have the rest.
IN_HAND = 64
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
    "--durable",
    default="",
    metavar="NAME",
    help="Fetch what a stream keeps for NAME, and acknowledge what is saved.",
)
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


@dataclass(eq=False)
class _InHand:
    """A message that is being received.

    files: whether something of it has to be fetched. saved: whether it is in the folder.
    """

    msg: Msg
    files: bool
    saved: bool = False


class _Receiver:
    def __init__(
        self,
        out: Output,
        settings: Settings,
        folder: Path,
        count: int | None,
        timeout: float | None,
        queue: str,
        durable: str,
        tables: str,
        max_size: int | None,
        allow: tuple[str, ...],
        nack: bool,
    ) -> None:
        self.out = out
        self.settings = settings
        self.folder = Folder(folder, tables, out.warn)
        self.count = count
        self.timeout = timeout
        self.queue = queue
        self.durable = durable
        self.limit = max_size
        self.allow = allow
        self.nack = nack
        self.failed = 0
        self.started = 0
        # A file that takes long holds up nobody who sends none.
        self._turns = {has: asyncio.Semaphore(AT_ONCE) for has in (False, True)}
        self._tasks: dict[asyncio.Task[None], _InHand] = {}
        self._done = asyncio.Event()  # with one of them
        self._main: asyncio.Task[Any] | None = None
        self._unwritable: BaseException | None = None

    async def run(self, subject: str) -> int:
        """Receive until --count, --timeout or a signal: the exit code."""
        self.folder.check()
        self._main = asyncio.current_task()
        kept = bool(self.durable)
        async with await self.settings.connect() as nc, breaks_told(self.out, nc, kept):
            count = self.count or 0
            self.source = await open_source(nc, subject, self.queue, count, self.durable)
            where = self.folder.path
            self.out.line(f"Listening on {subject} at {nc.url}, saving in {where}/", "dim")
            self.out.record(listening=subject, server=nc.url, out=str(where))
            self._row(TITLES, "bold")
            with self.out.progress() as progress:
                try:
                    await self._loop(progress)
                except asyncio.CancelledError:
                    if self._unwritable is None:
                        await self._finish(progress)
                        raise
                finally:
                    await self._abandon()
                    await self.source.close()
        if isinstance(self._unwritable, OSError):
            raise self._unwritable
        if self.failed or self._unwritable:
            return FAILED
        return NOTHING_CAME if self.count and self.started < self.count else 0

    async def _loop(self, progress: Progress) -> None:
        while self.count is None or self.started < self.count:
            await self._until_room()
            try:
                msg = await self.source.next(self.timeout)
            except NATSBridgeError as e:
                if e.code != PAYLOAD_TOO_LARGE:
                    raise
                self._failed(e)  # messages were dropped: on with the next ones
                continue
            if msg is None:
                break
            self._start(msg, progress)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, msg: Msg, progress: Progress) -> None:
        self.started += 1
        it = _InHand(msg, _has_links(msg))
        task = asyncio.create_task(self._receive(it, Bars(progress)))
        self._tasks[task] = it
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(lambda _: self._done.set())

    async def _until_room(self) -> None:
        """Wait until another message can be taken in hand."""
        while len(self._tasks) >= IN_HAND or (
            self.durable and sum(not it.files for it in self._tasks.values()) >= AT_ONCE
        ):
            self._done.clear()
            await self._done.wait()

    async def _finish(self, progress: Progress) -> None:
        """Save what has come; of what would have to be fetched first, keep the message."""
        for task, it in self._tasks.items():
            if it.files and not it.saved:  # else it is nearly done
                task.cancel()
        try:
            async for came in self.source.rest():
                if _has_links(came):
                    await self._keep(came)
                    continue
                await self._until_room()
                self._start(came, progress)
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            lost = len(self._tasks) + self.source.waiting
            if lost:
                self.out.warn(f"{lost} messages that had come are not saved.")
            raise

    async def _abandon(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _receive(self, it: _InHand, bars: Bars) -> None:
        msg, begun = it.msg, time.monotonic()
        try:
            try:
                # To wait for its turn, and to convert a table, takes time too.
                kept = msg._kept() if isinstance(msg, StoredMsg) else contextlib.nullcontext()
                async with kept, self._turns[it.files]:
                    record = await self._saved(msg, bars)
            except NATSBridgeError as e:
                e.message = f"{_as_options(e.message)} (a message on {msg.subject})"
                await self._keep(msg, e)
            except asyncio.CancelledError:
                await self._keep(msg)
                raise
            except Exception as e:  # whatever a stranger sends, the others' messages are received
                text = f"a message on {msg.subject}: {type(e).__name__}: {e}"
                await self._keep(msg, NATSBridgeError(DESERIALIZATION_ERROR, text))
            else:
                it.saved = True
                self._show(msg, record, time.monotonic() - begun)
                await self._acknowledge(msg)
        except (OSError, SystemExit) as e:  # of stdout: it is full, or whoever reads it has gone
            self._stop(e)
        finally:
            bars.close()

    def _stop(self, e: BaseException) -> bool:
        """End at once, as nothing can be written any more: whether this is the first to say so."""
        if self._unwritable is not None:
            return False
        self._unwritable = e
        assert self._main is not None
        self._main.cancel()
        return True

    async def _saved(self, msg: Msg, bars: Bars) -> dict[str, Any]:
        """Receive a message into the folder; return its envelope."""
        env = await natsbridge.smartreceive(
            msg,
            fileserver_url=self.settings.fileserver,
            sink=self.folder.sink,
            max_payload_size=self.limit,
            allowed_urls=self.allow,
            nack=self.nack,
            on_progress=bars,
        )
        # All is there, and may have been deleted from the server: from here on it can't be stopped.
        work = asyncio.ensure_future(in_thread(self.folder.save, env, msg.data))
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(work)
        record: dict[str, Any] = work.result()
        return record

    def _failed(self, e: NATSBridgeError, msg: Msg | None = None, kept: Path | None = None) -> None:
        self.failed += 1
        more: dict[str, Any] = {} if msg is None else {"subject": msg.subject}
        if kept is not None:
            more["kept"] = str(kept)
        self.out.fail(e, **more)

    async def _acknowledge(self, msg: Msg) -> None:
        try:
            await self.source.done(msg)
        except NATSBridgeError as e:
            self.out.warn(f"{e.message}")

    async def _keep(self, msg: Msg, e: NATSBridgeError | None = None) -> None:
        """Keep a message that was not received, unless it comes again."""
        kept = None
        try:
            if await self.source.failed(msg, e):
                kept = await in_thread(self.folder.keep, msg.data, self.source.last)
                await self.source.kept(msg)
        except NATSBridgeError as full:  # of the folder: the stream has it still
            e = full
            await self.source.failed(msg, e)
        if e is not None and e.code == INVALID_ARGUMENT and self.source.last:
            # So it would be with every other one: they stay in the stream until it is mended.
            if self._stop(e):
                self._failed(e, msg)
            return
        if e is not None:
            self._failed(e, msg, kept)
        if kept is not None:
            self.out.warn(f"The message is kept in {kept}")

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


def _has_links(msg: Msg) -> bool:
    """Tell whether something of a message has to be fetched: a guess that is cheap."""
    return b'"link"' in msg.data


def _as_options(advice: str) -> str:
    """Return an error's advice in terms of this command."""
    advice = re.sub(r'allowed_urls=\["(.*?)"\]', r"--allow \1", advice)
    advice = advice.replace(", or receive into a folder (sink=...)", "")
    return advice.replace("max_payload_size", "--max-size")
