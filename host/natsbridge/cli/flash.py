"""`natsbridge flash`: a program, its configuration and NATSBridge onto a board."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.text import Text

import natsbridge
from natsbridge._version import __version__
from natsbridge.cli.board import at_prompt, can_ask, device_option, find_port
from natsbridge.cli.output import Output, clean, size
from natsbridge.cli.settings import Settings, output_options, peer_options
from natsbridge.client import Subscription
from natsbridge.errors import NATS_CONNECTION_FAILED, NATSBridgeError
from natsbridge.flashing import console, image
from natsbridge.flashing.link import Link
from natsbridge.flashing.plan import (
    CONFIG,
    Board,
    Found,
    Plan,
    Refused,
    check,
    check_flash,
    make_plan,
)
from natsbridge.flashing.values import (
    Question,
    Values,
    parse_settings,
    read_values,
    without_login,
)

__all__ = ["command"]

EPILOG = """\b
Examples:
  natsbridge flash rpi_pico_w
  natsbridge flash esp32 --device /dev/ttyUSB0 --set name=kiln --program kiln.py
Passwords are asked for, or come from $WIFI_PASSWORD, $DEVICE_PASSWORD, $DEVICE_TOKEN.
"""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@dataclass(frozen=True)
class _Source:
    """What is to be on a board."""

    board: Board
    template: Mapping[str, Any]
    #: The files of a slot, but for the configuration.
    program: Mapping[str, bytes]
    main: bytes

    @property
    def mpy(self) -> int:
        """The version of our .mpy files, which is their second byte."""
        return next(data[1] for path, data in self.program.items() if path.endswith(".mpy"))


@click.command("flash", epilog=EPILOG)
@click.argument("board")
@device_option
@click.option("--config", type=FILE, help="Values of config.json, as JSON or TOML.")
@click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="One of them: wifi.ssid=x")
@click.option("--program", type=FILE, help="What it runs.  [default: shared/program.py]")
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
@click.option("--timeout", type=float, default=60, show_default=True, help="Seconds for that.")
@peer_options
@output_options
def command(out: Output, settings: Settings, **options: Any) -> None:
    """Put NATSBridge, a program and its configuration on a board.

    Only what has changed goes over the cable. Until all of it is there the board keeps its old
    program; after an interruption, the same command goes on where it was. Its hello is waited for
    at --server, or else at the broker that the board is told.
    """
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
    files = {
        "program.py": _read(program or shared / "program.py", fix),
        "board.py": _read(shared / "board.py", fix),
    }
    built = folder.absolute().parent / "build" / "firmware" / "natsbridge"
    modules = sorted(built.glob("*.mpy"))
    if not modules:
        raise Refused(f"{built} has no modules", "make firmware")
    files.update({f"natsbridge/{path.name}": _read(path, "make firmware") for path in modules})
    return _Source(board, template, files, _read(shared / "main.py", fix))


class _Flash:
    def __init__(self, out: Output, settings: Settings, options: Mapping[str, Any]) -> None:
        self.out = out
        self.settings = settings
        self.options = options
        self.last = ""  # line that the board printed

    async def run(self) -> None:
        """Do all of it, or refuse to."""
        options = self.options
        source = _load(options["board"], options["folder"], options["program"])
        given = read_values(options["config"]) if options["config"] else {}
        sets = parse_settings(options["given"])
        if options["image"]:
            image.check_image(source.board, options["image"])
        port = await self._port(source.board)
        link = Link(port)
        try:
            found = await link.survey()
            check(source.board, found, source.mpy)
            self.out.line(
                f"{clean(found.machine or found.platform)}, MicroPython"
                f" {'.'.join(map(str, found.version))}, {found.heap:,} B of heap free,"
                f" {size(found.flash)} of flash free"
            )
            values = self._values(source, found, given, sets)
            program = {**source.program, CONFIG: values.to_json()}
            plan = make_plan(found, program, source.main, __version__)
            check_flash(found, plan)
            async with self._listening(values, found) as hello:
                begun = time.monotonic()
                await self._carry_out(link, plan)
                self._report(source, plan, time.monotonic() - begun)
                if hello:
                    await self._wait(hello, port, str(values["id"] or found.chip))
        finally:
            await link.release()

    # -- before

    async def _port(self, board: Board) -> str:
        """Return the board's port, with MicroPython there."""
        path = self.options["image"]
        if path is None:
            return await find_port(self.out, self.options["port"])
        if board.port == "esp32":
            port = await find_port(self.out, self.options["port"])
            self.out.line(f"Writing {path.name} to {port}")
            await image.write_esp32(board, port, path)
        else:
            drive = self.options["drive"]
            if drive is None:
                self.out.line("Hold BOOTSEL while you plug the board in.")
                drive = await image.wait_for_drive()
            self.out.line(f"Copying {path.name} to {drive}")
            image.copy_uf2(path, drive)
            port = self.options["port"]
        self.out.line("MicroPython is installed.")
        if port:
            await Link(port).back()
            return str(port)
        await image.wait_for_port()
        return await find_port(self.out, "")

    def _values(
        self, source: _Source, found: Found, given: Mapping[str, Any], sets: Mapping[str, Any]
    ) -> Values:
        values = Values(source.template, found.config)
        values.update(given, str(self.options["config"]))
        for key, value in sets.items():
            values.set(key, value)
        questions = values.missing(os.environ)
        if questions and not can_ask(self.out):
            keys = ", ".join(q.key for q in questions)
            raise Refused(f"the configuration lacks {keys}", "give them with --config or --set")
        for question in questions:
            values.set(question.key, self._ask(question))
        return values

    def _ask(self, question: Question) -> str:
        default, text = question.default, question.text
        if default:
            text += f" [{without_login(default)}]"
        with at_prompt():
            if question.hidden:
                return str(click.prompt(text, "", hide_input=True, show_default=False, err=True))
            return str(
                click.prompt(text, default or None, show_default=False, err=True)  # not its login
            )

    # -- the work

    async def _carry_out(self, link: Link, plan: Plan) -> None:
        total = sum(map(len, plan.send.values()))
        with self.out.progress() as bars:
            bar = bars.add_task("sending", total=total)
            await link.carry_out(plan, lambda done, _: bars.update(bar, completed=done))

    def _report(self, source: _Source, plan: Plan, took: float) -> None:
        sent = [p for p in plan.send if p.startswith("slots/") and not p.endswith(".new")]
        config = f"slots/{plan.slot}/{CONFIG}" in sent
        self.out.record(
            flashed={
                "board": source.board.name,
                "slot": plan.slot or None,
                "sent": sent,
                "kept": plan.kept,
                "bytes": sum(map(len, plan.send.values())),
                "config": config,
                "seconds": round(took, 2),
            }
        )
        if not plan.changes:
            self.out.line("Nothing has changed; the board is reset.")
            return
        files = f"{len(sent)} of {len(sent) + plan.kept} files sent"
        if not plan.slot:
            files = "the same program"
        total = size(sum(map(len, plan.send.values())))
        written = f", {CONFIG} written" if config else ""
        self.out.line(f"Flashed: {files}, {total} in {took:.1f} s{written}.")

    # -- after

    @contextlib.asynccontextmanager
    async def _listening(self, values: Values, found: Found) -> AsyncIterator[Subscription | None]:
        """Subscribe to the board's hello, before anything is changed."""
        if not self.options["wait"]:
            yield None
            return
        settings = self.settings
        if not settings.server:
            broker = values["broker"]
            servers = tuple(broker) if isinstance(broker, list) else (str(broker),)
            own = settings.user or settings.password or settings.token
            keys = () if own else ("user", "password", "token")
            settings = dataclasses.replace(
                settings, server=servers, **{key: str(values[key] or "") for key in keys}
            )
        try:
            nc = await settings.connect(reconnect=False)
        except NATSBridgeError as e:
            why = "the board's hello can't be heard here, and nothing was changed"
            fix = "start a broker with `natsbridge up --lan`, name it with --server, or --no-wait"
            raise NATSBridgeError(NATS_CONNECTION_FAILED, f"{why}: {e.message}; {fix}") from None
        async with nc:
            who = str(values["name"] or values["id"] or found.chip)
            sub = await nc.subscribe(f"natsbridge.hello.{who}")
            await nc.flush()
            yield sub

    async def _wait(self, hello: Subscription, port: str, who: str) -> None:
        timeout = self.options["timeout"]
        self.out.line("Waiting for its hello ...")
        end = time.monotonic() + timeout
        async with console.follow(port, self._said):
            while (left := end - time.monotonic()) > 0:
                msg = await hello.next(left)
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
                        return
        says = f"the last it printed is {clean(self.last, 300)!r}" if self.last else "it is silent"
        raise NATSBridgeError(
            NATS_CONNECTION_FAILED,
            f"the board is flashed, but said no hello within {timeout:g} s; {says}. `natsbridge"
            f" logs --device {port}` shows more",
        )

    def _said(self, line: str) -> None:
        if line.strip():
            self.last = line.strip()
            self.out.row(Text(f"  {clean(self.last)}", style="dim"))

    def _greeted(self, hello: Mapping[str, Any]) -> None:
        self.out.record(hello=hello)
        heap = hello.get("heap_free")
        free = f"{heap:,} B of heap free" if isinstance(heap, int) else "heap unknown"
        said = {
            key: clean(hello.get(key), 60) for key in ("board", "version", "micropython", "rtt_ms")
        }
        self.out.line(
            f"Hello from {said['board']}: NATSBridge {said['version']}, MicroPython"
            f" {said['micropython']}, {free}, round trip {said['rtt_ms']} ms"
        )
