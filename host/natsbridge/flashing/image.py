"""MicroPython itself, from an image file: with esptool on an ESP32, onto the drive of an RP2."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import string
import sys
from pathlib import Path

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.flashing.link import last_line, ports
from natsbridge.flashing.plan import Board, Refused

__all__ = [
    "check_image",
    "copy_uf2",
    "esptool_line",
    "find_drive",
    "wait_for_drive",
    "wait_for_port",
    "write_esp32",
]

#: What a UF2 bootloader has on its drive, and what an image begins with.
INFO = "INFO_UF2.TXT"
UF2_MAGIC = b"UF2\n"
ESP_MAGIC = b"\xe9"
#: Seconds for an image to be written, and for a drive to appear.
WRITE_S = 300
DRIVE_S = 60


def check_image(board: Board, image: Path) -> None:
    """Refuse a file that is no image for this board.

    Raises:
        Refused: and why.
    """
    try:
        with image.open("rb") as file:
            start = file.read(4)
    except OSError as e:
        raise Refused(f"{image} cannot be read", str(e.strerror)) from None
    if board.port == "rp2":
        wanted, kind, there = UF2_MAGIC, ".uf2", start[:4]
    elif board.port == "esp32":
        wanted, kind, there = ESP_MAGIC, ".bin", start[:1]
    else:
        raise Refused(f"no image can be installed on {board.name}")
    if there != wanted:
        fix = "micropython.org/download has it"
        raise Refused(f"{image} is no image for {board.name}, which takes a {kind}", fix)


def esptool_line(board: Board, port: str, image: Path) -> list[str]:
    """Return the command that writes an image to an ESP32."""
    words = [sys.executable, "-m", "esptool", "--port", port, "--baud", "460800", "write_flash"]
    return [*words, "-z", str(board.flash_offset), str(image)]


async def write_esp32(board: Board, port: str, image: Path) -> None:
    """Write an image with esptool.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT`: it is not there, or failed.
    """
    child = await asyncio.create_subprocess_exec(
        *esptool_line(board, port, image),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        raw, _ = await asyncio.wait_for(child.communicate(), WRITE_S)
    except asyncio.TimeoutError:
        raise NATSBridgeError(INVALID_ARGUMENT, f"esptool took over {WRITE_S} s") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    said = raw.decode(errors="replace")
    if "No module named esptool" in said:
        raise NATSBridgeError(INVALID_ARGUMENT, "esptool is not installed: pip install esptool")
    if child.returncode:
        last = last_line(said)
        why = f"esptool failed: {last}; hold the button BOOT while it connects"
        raise NATSBridgeError(INVALID_ARGUMENT, why)


def _mounted() -> list[Path]:
    """Return where drives are, on Linux, macOS and Windows."""
    if os.name == "nt":
        return [Path(f"{letter}:\\") for letter in string.ascii_uppercase]
    user = os.environ.get("USER", "")
    roots = [f"/media/{user}", f"/run/media/{user}", "/media", "/Volumes", "/mnt"]
    return [path for root in roots if Path(root).is_dir() for path in sorted(Path(root).iterdir())]


def find_drive() -> Path | None:
    """Return the drive of an RP2 in its bootloader, if one is mounted."""
    for path in _mounted():
        with contextlib.suppress(OSError):
            if "RP2" in (path / INFO).read_text(errors="replace"):
                return path
    return None


async def wait_for_drive() -> Path:
    """Wait for the drive to be mounted.

    Raises:
        Refused: it is not.
    """
    for _ in range(DRIVE_S * 2):
        if drive := find_drive():
            return drive
        await asyncio.sleep(0.5)
    fix = "hold BOOTSEL while you plug the board in, or name the drive with --drive"
    raise Refused("no drive of a board in its bootloader is mounted", fix)


async def wait_for_port() -> None:
    """Wait for a board to appear, within reason."""
    for _ in range(DRIVE_S * 2):
        if await ports():
            return
        await asyncio.sleep(0.5)


def copy_uf2(image: Path, drive: Path) -> None:
    """Copy an image to a bootloader's drive (blocking).

    Raises:
        Refused: it is no such drive, or went away before it had all.
    """
    if not (drive / INFO).is_file():
        fix = "hold BOOTSEL while you plug the board in"
        raise Refused(f"{drive} is no drive of a board in its bootloader: it has no {INFO}", fix)
    try:
        with image.open("rb") as source, (drive / image.name).open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            # It resets once it has the last block, and its drive is gone.
            with contextlib.suppress(OSError):
                os.fsync(target.fileno())
    except OSError as e:
        raise Refused(f"the image could not be copied to {drive}", str(e.strerror)) from None
