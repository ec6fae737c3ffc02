"""MicroPython itself, from an image file: with esptool on an ESP32, onto the drive of an RP2."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import string
import struct
import sys
from pathlib import Path

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError
from natsbridge.flashing.link import last_line, ports
from natsbridge.flashing.plan import Board, Refused
from natsbridge.flashing.values import read_file

__all__ = [
    "check_image",
    "copy_uf2",
    "esptool_line",
    "find_drive",
    "wait_for_drive",
    "wait_for_port",
    "write_esp32",
]

#: What a UF2 bootloader has on its drive.
INFO = "INFO_UF2.TXT"
#: A block of a UF2: how it begins (two magic numbers, flags, and then the family), and its end.
UF2_BLOCK = 512
UF2_HEAD = struct.Struct("<III16xI")
UF2_MAGIC = (0x0A324655, 0x9E5D5157)
UF2_END = struct.pack("<I", 0x0AB16F30)
UF2_HAS_FAMILY = 0x2000
#: How an image for an ESP32 begins: a magic number, and later the chip.
ESP_HEAD = struct.Struct("<B11xH")
ESP_MAGIC = 0xE9
#: Bytes of the largest image that is looked at.
LARGEST = 1 << 26
#: Seconds for an image to be written, and for a drive to appear.
WRITE_S = 300
DRIVE_S = 60


def check_image(board: Board, image: Path) -> None:
    """Refuse a file that is no image for this board.

    Raises:
        Refused: and why.
    """
    if board.port not in ("rp2", "esp32"):
        raise Refused(f"no image can be installed on {board.name}")
    data = read_file(image, LARGEST)
    where = f"micropython.org/download has that of the {board.title}"
    try:
        ids = _uf2_families(data) if board.port == "rp2" else {_esp_chip(data)}
    except ValueError as e:
        raise Refused(f"{image} is no image for {board.name}: {e}", where) from None
    if not ids & set(board.image_ids):
        said = ", ".join(map(hex, sorted(ids))) or "none"
        wanted = " or ".join(map(hex, board.image_ids))
        why = f"{image} is for another chip than that of {board.name} ({said}, not {wanted})"
        raise Refused(why, where)


def _uf2_families(data: bytes) -> set[int]:
    """Return for which chips a UF2 is. Raises ValueError, if it is none."""
    found = set()
    for start in range(0, len(data), UF2_BLOCK):
        block = data[start : start + UF2_BLOCK]
        if len(block) != UF2_BLOCK or not block.endswith(UF2_END):
            raise ValueError("what is in it is not UF2, or not all of it is there")
        *magic, flags, family = UF2_HEAD.unpack_from(block)
        if tuple(magic) != UF2_MAGIC:
            raise ValueError("what is in it is not UF2")
        if flags & UF2_HAS_FAMILY:
            found.add(family)
    return found


def _esp_chip(data: bytes) -> int:
    """Return for which chip an image of an ESP32 is. Raises ValueError, if it is none."""
    if len(data) < 256 or data[0] != ESP_MAGIC:
        raise ValueError("what is in it is no image of an ESP32")
    chip: int = ESP_HEAD.unpack_from(data)[1]
    return chip


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


def _is_drive(board: Board, path: Path) -> bool:
    """Tell whether a drive is that of such a board in its bootloader. Raises OSError."""
    text = (path / INFO).read_text(errors="replace")
    return re.search(rf"^Board-ID: *{re.escape(board.drive)}\s*$", text, re.M) is not None


def find_drive(board: Board) -> Path | None:
    """Return the drive of such a board in its bootloader, if one is mounted."""
    for path in _mounted():
        with contextlib.suppress(OSError):
            if _is_drive(board, path):
                return path
    return None


async def wait_for_drive(board: Board) -> Path:
    """Wait for the drive to be mounted.

    Raises:
        Refused: it is not.
    """
    for _ in range(DRIVE_S * 2):
        if drive := find_drive(board):
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


def copy_uf2(board: Board, image: Path, drive: Path) -> None:
    """Copy an image to a bootloader's drive (blocking).

    Raises:
        Refused: it is no such drive, or went away before it had all.
    """
    fix = "hold BOOTSEL while you plug the board in"
    try:
        if not _is_drive(board, drive):
            why = f"{drive} is the drive of another board: its {INFO} does not say {board.drive}"
            raise Refused(why, fix)
    except OSError:
        why = f"{drive} is no drive of a board in its bootloader: it has no {INFO}"
        raise Refused(why, fix) from None
    try:
        with image.open("rb") as source, (drive / image.name).open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            # It resets once it has the last block, and its drive is gone.
            with contextlib.suppress(OSError):
                os.fsync(target.fileno())
    except OSError as e:
        raise Refused(f"the image could not be copied to {drive}", str(e.strerror)) from None
