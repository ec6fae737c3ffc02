"""`natsbridge unflash`: a board without what `natsbridge flash` put there."""

from __future__ import annotations

import click

from natsbridge.cli.board import at_prompt, can_ask, device_option, find_port
from natsbridge.cli.output import Output
from natsbridge.cli.settings import output_options
from natsbridge.flashing.keys import is_ours
from natsbridge.flashing.link import Link
from natsbridge.flashing.plan import CONFIG, MAIN, OLD_MAIN, Found, Refused

__all__ = ["command"]

EPILOG = """\b
Example:
  natsbridge unflash --device /dev/ttyACM0
"""


@click.command("unflash", epilog=EPILOG)
@device_option
@click.option("--config", is_flag=True, help="Also config.json, with its passwords.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_options
def command(out: Output, port: str, config: bool, yes: bool) -> None:
    """Remove from a board what flash put there: main.py, slot and slots/.

    A main.py that the board had before is put back. MicroPython stays.
    """
    out.run(lambda: _unflash(out, port, config, yes))


async def _unflash(out: Output, port: str, config: bool, yes: bool) -> None:
    port = await find_port(out, port)
    link = Link(port)
    try:
        found = await link.survey()
        files = _ours(found, config)
        if not files:
            out.record(removed=[])
            out.line("There is nothing to remove; the board is reset.")
            return
        if not yes:
            if not can_ask(out):
                raise Refused("nobody can be asked whether to remove the program", "pass --yes")
            with at_prompt():
                if not click.confirm(f"Remove {', '.join(files)} from {port}?", err=True):
                    out.line("Nothing is removed; the board is reset.")
                    return
        kept = "" if config else _config(found)
        await link.remove([name for name in files if name != "slots"], kept)
        out.record(removed=files)
        restored = MAIN in files and OLD_MAIN in found.files
        back = f"; the {MAIN} from before is back" if restored else ""
        out.text(f"Removed {', '.join(files)}{back}. The board is reset.")
        if kept or (not config and CONFIG in found.files and is_ours(found.root_config)):
            out.text(f"{CONFIG}, with its passwords, stays on the board: --config removes it, too.")
        elif not config and CONFIG in found.files:
            out.text(f"{CONFIG} is none of ours, and stays.")
    finally:
        await link.release()


def _ours(found: Found, config: bool) -> list[str]:
    """Return what is removed, in this order: the loader first, so that it finds no half."""
    files = []
    if MAIN in found.files and found.loader:
        files.append(MAIN)
    if found.slot is not None:
        files.append("slot")
    if any(path.startswith("slots/") for path in found.files):
        files.append("slots")
    if config:
        names = (CONFIG, f"{CONFIG}.new") if is_ours(found.root_config) else (f"{CONFIG}.new",)
        files += [name for name in names if name in found.files]
    return files


def _config(found: Found) -> str:
    """Return the path of the configuration that the board reads (`Found.config`), if in a slot.

    Once the loader is gone, as where this was interrupted, that is the one at the root. One there
    that is none of ours keeps its name, and ours goes with its slot.
    """
    path = f"slots/{found.running()}/{CONFIG}"
    read = CONFIG not in found.files or (found.loader and is_ours(found.root_config))
    return path if read and path in found.files else ""
