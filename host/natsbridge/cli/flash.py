"""`natsbridge flash`: a program, its configuration and NATSBridge onto a board."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.text import Text

import natsbridge
from natsbridge._version import __version__
from natsbridge.cli.board import can_ask, device_option, find_port
from natsbridge.cli.configure import ask, ask_for_broker, likely
from natsbridge.cli.output import Output, clean, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.client import Connection, Subscription
from natsbridge.errors import NATS_CONNECTION_FAILED, NATSBridgeError
from natsbridge.flashing import console, image
from natsbridge.flashing.link import Link
from natsbridge.flashing.plan import (
    CONFIG,
    PROGRAM,
    Board,
    Found,
    Plan,
    Refused,
    check,
    check_flash,
    make_plan,
)
from natsbridge.flashing.values import (
    Values,
    from_environment,
    parse_settings,
    read_file,
    read_values,
)

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge flash rpi_pico_w
  natsbridge flash esp32 --device /dev/ttyUSB0 --program kiln.py --set ntp=
Values come from --set, else --config, else $WIFI_SSID, $WIFI_PASSWORD,
$DEVICE_PASSWORD and $DEVICE_TOKEN, else from the board; the rest is asked
for, passwords unseen. Logins in URLs, and several brokers, need --config.
"""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
#: Bytes of the largest program, where the board does not say how much flash it has.
LARGEST = 1 << 24
#: What board.py says of a Wi-Fi that it can't join.
_NO_WIFI = re.compile(
    "Wi-Fi .*: (the password is wrong|there is no such network here|it can't be joined"
    "|there is no answer)"
)


def _seconds(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 < value <= 86400:  # which NaN is not, either
        raise click.BadParameter("these must be more than 0 and at most 86400 seconds")
    return value


@dataclass(frozen=True)
class _Source:
    """What is to be on a board."""

    board: Board
    template: Mapping[str, Any]
    #: The files of a slot, but for the configuration; its program is the one that was named, or
    #: the default.
    files: Mapping[str, bytes]
    #: What that is called, "" for the default; None, where nobody named one.
    program: str | None
    main: bytes

    @property
    def mpy(self) -> int:
        """The version of our .mpy files, which is their second byte."""
        return next(data[1] for path, data in self.files.items() if path.endswith(".mpy"))


@click.command("flash", epilog=EPILOG)
@click.argument("board")
@device_option
@click.option("--config", type=FILE, help="Values of config.json, as JSON or TOML.")
@click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="One: wifi.ssid=lab")
@click.option(
    "--program", type=FILE, help="[default: the one on the board, else shared/program.py]"
)
@click.option(
    *("--boards", "folder"),
    type=FOLDER,
    default=Path("boards"),
    show_default=True,
    help="The folder of that name in a checkout, after make firmware.",
)
@click.option("--image", type=FILE, help="First install MicroPython, from a .uf2 or .bin.")
@click.option("--drive", type=FOLDER, help="That of an RP2 in its bootloader; else it is found.")
@click.option("--wait/--no-wait", default=True, help="For the board's hello over NATS.")
@click.option(
    "--timeout",
    type=float,
    default=60,
    show_default=True,
    callback=_seconds,
    help="Seconds for that.",
)
@peer_options
@output_options
def command(out: Output, settings: Settings, **options: Any) -> None:
    """Put NATSBridge, a program and its configuration on a board.

    Only what has changed goes over the cable. Until all of it is there the board keeps its old
    program; after an interruption, the same command goes on where it was. Its hello is waited for
    at --server, or else at the broker that the board is told.
    """
    if options["drive"] and not options["image"]:
        raise click.UsageError("--drive is for an --image")
    out.run(lambda: _Flash(out, settings, options).run())


def _read(path: Path, fix: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise Refused(f"{path} cannot be read ({e.strerror})", fix) from None


def _load(name: str, folder: Path, program: Path | None) -> _Source:
    """Return what is to be on a board.

    Raises:
        Refused: there is no such board, or nothing was built.
    """
    known = sorted(path.parent.name for path in folder.glob("*/board.json"))
    if not known:
        fix = "call it in a checkout of NATSBridge, or name its folder boards with --boards"
        raise Refused(f"{folder} has no boards", fix)
    if name not in known:
        raise Refused(f"there is no board {name!r}", f"there are {', '.join(known)}")
    fix = "the checkout is not whole"
    try:
        board = Board.parse(name, _read(folder / name / "board.json", fix).decode())
        template = json.loads(_read(folder / name / "config.json", fix))
    except ValueError as e:
        raise Refused(f"{folder / name} has a damaged file: {e}") from None
    shared = folder / "shared"
    default = shared / "program.py"
    named = None
    if program:
        named = "" if default.exists() and program.samefile(default) else program.name
    files = {
        PROGRAM: read_file(program or default, board.flash or LARGEST),
        "board.py": _read(shared / "board.py", fix),
    }
    built = folder.absolute().parent / "build" / "firmware" / "natsbridge"
    modules = sorted(built.glob("*.mpy"))
    if not modules:
        raise Refused(f"{built} has no modules", "make firmware")
    files.update({f"natsbridge/{path.name}": _read(path, "make firmware") for path in modules})
    return _Source(board, template, files, named, _read(shared / "main.py", fix))


class _Flash:
    def __init__(self, out: Output, settings: Settings, options: Mapping[str, Any]) -> None:
        self.out = out
        self.settings = settings
        self.options = options
        self.last = ""  # line that the board printed
        self.no_wifi = asyncio.Event()  # it printed that, and somebody can be asked about it
        self.has_wifi = False
        self.told_of_trouble = False

    async def run(self) -> None:
        """Do all of it, or refuse to."""
        options = self.options
        self.source = source = _load(options["board"], options["folder"], options["program"])
        self.given = read_values(options["config"]) if options["config"] else {}
        self.sets = parse_settings(options["given"])
        self._values(None)  # which refuses what is wrong with them
        if options["image"]:
            image.check_image(source.board, options["image"])
        port = await self._port(source.board)
        link = Link(port, self._no_answer)
        ended = False
        try:
            found = await link.survey()
            check(source.board, found, source.mpy)
            called = clean(found.machine or found.platform)
            version = ".".join(map(str, found.version))
            free = f"free: {found.heap:,} B of heap, {size(found.flash)} of flash"
            self.out.text(f"{called}, MicroPython {version}; {free}")
            values = self._values(found.config)
            for why in values.dropped:
                self.out.warn(f"{why}; what it has is not taken over")
            ask(self.out, values)
            async with self._connected(values) as nc:
                while not await self._flash(link, found, values, nc):
                    self.out.text("The board can't join the Wi-Fi. Once more, then:")
                    values.ask_again("wifi.ssid", "wifi.password")
                    ask(self.out, values)
                    found = await link.survey()
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            ended = True
            raise
        finally:
            await link.release()
            if ended:
                has = "the new program" if link.switched else "what it had before, and goes on"
                self.out.warn(f"Interrupted: the board has {has}.")

    # -- before

    def _no_answer(self) -> None:
        if not self.told_of_trouble:
            self.told_of_trouble = True
            self.out.text(
                "The board does not answer. If its program ignores Ctrl-C, press its reset button"
                " now; it is tried again."
            )

    async def _port(self, board: Board) -> str:
        """Return the board's port, with MicroPython there."""
        path = self.options["image"]
        if path is None:
            return await find_port(self.out, self.options["port"])
        if board.port == "esp32":
            port = await find_port(self.out, self.options["port"])
            self.out.text(f"Writing {path.name} to {port}")
            await image.write_esp32(board, port, path)
        else:
            drive = self.options["drive"]
            if drive is None:
                self.out.line("Hold BOOTSEL while you plug the board in.")
                drive = await image.wait_for_drive(board)
            self.out.text(f"Copying {path.name} to {drive}")
            image.copy_uf2(board, path, drive)
            port = self.options["port"]
        self.out.line("MicroPython is installed.")
        if port:
            await Link(port).back()
            return str(port)
        await image.wait_for_port()
        return await find_port(self.out, "")

    def _values(self, on_board: str | None) -> Values:
        template, board = self.source.template, self.source.board
        known = likely(self.settings, bool(template["wifi"]))
        values = Values(template, on_board, board.watchdog_max, known)
        values.take(from_environment(os.environ))
        values.update(self.given, str(self.options["config"]))
        values.update(self.sets, "--set")
        return values

    @contextlib.asynccontextmanager
    async def _connected(self, values: Values) -> AsyncIterator[Connection | None]:
        """Connect to where the board's hello is heard, before anything is changed."""
        nc = None
        while self.options["wait"] and nc is None:
            try:
                nc = await self._as_the_board(values).connect(reconnect=False)
            except NATSBridgeError as e:
                why = f"the board's hello can't be heard here, and nothing was changed: {e.message}"
                start = "start a broker with `natsbridge up --lan`, or "
                fix = start if re.search("was refused|no answer within", e.message) else ""
                if self.settings.server or not can_ask(self.out):
                    fix += "name another with --server, or --no-wait"
                    raise NATSBridgeError(NATS_CONNECTION_FAILED, f"{why}; {fix}") from None
                self.out.warn(f"{why}; {fix}give it once more:")
                ask_for_broker(self.out, values)
        async with nc or contextlib.nullcontext():
            yield nc

    def _as_the_board(self, values: Values) -> Settings:
        """Return the settings with which to listen: at --server, or else as the board does."""
        settings = self.settings
        if settings.server:
            return settings
        broker = values["broker"]
        servers = tuple(broker) if isinstance(broker, list) else (str(broker),)
        own = settings.user or settings.password or settings.token
        keys = () if own else ("user", "password", "token")
        login = {key: str(values[key] or "") for key in keys}
        return dataclasses.replace(settings, server=servers, **login)

    # -- the work

    async def _flash(self, link: Link, found: Found, values: Values, nc: Connection | None) -> bool:
        """Put everything on the board: False, if it can't join the Wi-Fi then."""
        files: dict[str, bytes | None] = {**self.source.files, CONFIG: values.to_json()}
        running = found.running()
        program = self.source.program
        if program is None and running and found.program != "" and found.has_program():
            program = found.program or PROGRAM
            files[PROGRAM] = None
        plan = make_plan(found, files, self.source.main, __version__, program or "")
        check_flash(found, plan)
        what = clean(program, 40) if program else f"the default one, shared/{PROGRAM}"
        self.out.text(f"Program: {what}{'' if files[PROGRAM] else ', which is on the board'}")
        if nc is None:
            await self._carry_out(link, plan, program)
            return True
        self.has_wifi = values["wifi.ssid"] is not None
        who = str(values["id"] or found.chip)
        async with await nc.subscribe(f"natsbridge.hello.{values['name'] or who}") as hello:
            await nc.flush()
            await self._carry_out(link, plan, program)
            return await self._wait(hello, link.port, who)

    async def _carry_out(self, link: Link, plan: Plan, program: str | None) -> None:
        begun = time.monotonic()
        total = sum(map(len, plan.send.values()))
        with self.out.progress() as bars:
            bar = bars.add_task("sending", total=total)
            await link.carry_out(plan, lambda done, _: bars.update(bar, completed=done))
        took = time.monotonic() - begun
        sent = [p for p in plan.send if p.startswith("slots/") and not p.endswith(".new")]
        config = f"slots/{plan.slot}/{CONFIG}" in sent
        self.out.record(
            flashed={
                "board": self.source.board.name,
                "program": program or "",
                "slot": plan.slot or None,
                "sent": sent,
                "kept": plan.kept,
                "bytes": total,
                "config": config,
                "seconds": round(took, 2),
            }
        )
        if not plan.changes:
            self.out.line("Nothing has changed; the board is reset.")
            return
        files = f"{len(sent)} of {len(sent) + plan.kept} files sent, {size(total)}"
        if not sent:
            files = "the same program" if not plan.slot else f"all {plan.kept} files were there"
        written = f", {CONFIG} written" if config else ""
        self.out.text(f"Flashed: {files} in {took:.1f} s{written}.")

    # -- after

    async def _wait(self, hello: Subscription, port: str, who: str) -> bool:
        """Wait for its hello: False, if it can't join the Wi-Fi and somebody can be asked."""
        timeout = self.options["timeout"]
        self.out.line("Waiting for its hello ...")
        self.no_wifi.clear()
        self.last = ""
        end = time.monotonic() + timeout
        async with console.follow(port, self._said):
            while (left := end - time.monotonic()) > 0:
                broken = asyncio.ensure_future(self.no_wifi.wait())
                heard = asyncio.ensure_future(hello.next(left))
                try:
                    await asyncio.wait({broken, heard}, return_when=asyncio.FIRST_COMPLETED)
                    if not heard.done():
                        return False
                    msg = await heard
                finally:
                    broken.cancel()
                    heard.cancel()
                if msg is None:
                    break
                try:
                    env = await natsbridge.smartreceive(msg)
                except NATSBridgeError:
                    continue  # no board says that
                if env["msg_purpose"] != "hello" or (who and env["sender_id"] != who):
                    continue  # somebody else of that name
                for _, value, kind in env["payloads"]:
                    if kind == "dictionary" and isinstance(value, dict):
                        self._greeted(value)
                        return True
        says = "nothing that it printed came here"
        if self.last:
            says = f"the last it printed is {clean(self.last, 300)!r}"
        if _NO_WIFI.search(self.last):
            says += ": give it in $WIFI_SSID and $WIFI_PASSWORD, or with --config"
        raise NATSBridgeError(
            NATS_CONNECTION_FAILED,
            f"the board is flashed, but said no hello within {timeout:g} s; {says}. `natsbridge"
            f" logs --device {port}` shows more",
        )

    def _said(self, line: str) -> None:
        if line.strip():
            self.last = line.strip()
            self.out.row(Text(f"  {clean(self.last)}", style="dim"))
        if self.has_wifi and _NO_WIFI.search(line) and can_ask(self.out):
            self.no_wifi.set()

    def _greeted(self, hello: Mapping[str, Any]) -> None:
        self.out.record(hello=hello)
        heap = hello.get("heap_free")
        free = f"{heap:,} B of heap free" if isinstance(heap, int) else "heap unknown"
        said = {
            key: clean(hello.get(key), 60) for key in ("board", "version", "micropython", "rtt_ms")
        }
        self.out.text(
            f"Hello from {said['board']}: NATSBridge {said['version']}, MicroPython"
            f" {said['micropython']}, {free}, round trip {said['rtt_ms']} ms"
        )
