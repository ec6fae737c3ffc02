"""Where received payloads go: memory, a folder, or a writable that the caller gives.

A target takes bytes in order, can often begin again (a download that was cut), and is finished
only when everything of its message was verified: a file then gets its final name. Until that it
has a temporary one, so that nothing half-received is ever found under a name that looks good. It is
locked as long as it is written: what a receiver left that was killed is not, and the next one
removes it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from natsbridge.errors import INVALID_ARGUMENT, NATSBridgeError

if sys.platform != "win32":  # where a file that is open can't be removed anyway
    import fcntl

__all__ = [
    "FileTarget",
    "MemoryTarget",
    "SinkFunction",
    "Target",
    "WritableTarget",
    "safe_name",
    "sink_failed",
]

#: sink(dataname, payload_type, size in bytes or None) -> an object with write(), or None: memory
SinkFunction = Callable[[str, str, int | None], Any]

#: UTF-8 bytes of a file name: with a number and a temporary suffix still within the 255 of
#: common file systems, and the 128 or so of embedded ones.
MAX_NAME = 100

_WINDOWS_DEVICES = frozenset(
    ("con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³"))
)


def safe_name(dataname: str) -> str:
    """Return a file name for a dataname, which came from a stranger and is never a path.

    Letters with their marks and digits of any script, ".", "_" and "-" stay; everything else
    becomes "_".
    """
    name = "".join(
        c if c.isalnum() or c in "._-" or unicodedata.category(c)[0] == "M" else "_"
        for c in unicodedata.normalize("NFC", dataname)  # macOS takes letters apart
    )
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    room = MAX_NAME - len((dot + extension).encode())
    if room < MAX_NAME // 2:  # no extension anyone means
        stem, dot, extension, room = name, "", "", MAX_NAME
    name = stem.encode()[:room].decode(errors="ignore") + dot + extension
    if name.startswith("."):
        name = "_" + name[1:]
    name = name.rstrip(".")  # Windows drops a final dot
    if name.partition(".")[0].lower() in _WINDOWS_DEVICES:
        name = "_" + name
    return name or "payload"


def sink_failed(dataname: str, e: Exception) -> NATSBridgeError:
    """Return the error for a sink that raised one, or whose writable did."""
    return NATSBridgeError(INVALID_ARGUMENT, f"writing {dataname!r} to its sink failed: {e}")


class Target:
    """What a payload is written to. Every method may block.

    Attributes:
        lasting: whether `commit` has to outlast a power cut: the original is deleted after it.
    """

    lasting = False

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        raise NotImplementedError

    def restart(self) -> bool:
        """Forget what was written; False where that is impossible."""
        raise NotImplementedError

    def commit(self) -> Any:
        """Finish, everything being verified; return what the caller gets as data."""
        raise NotImplementedError

    def discard(self) -> None:
        """Leave nothing behind. Also after `commit`, when a later one failed."""


class MemoryTarget(Target):
    """Bytes in memory. `BytesIO` hands its buffer over without copying it."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._buffer.write(data)

    def restart(self) -> bool:
        """Forget what was written."""
        self._buffer = io.BytesIO()
        return True

    def commit(self) -> bytes:
        """Return the bytes."""
        return self._buffer.getvalue()


class FileTarget(Target):
    """A file in a folder, under `safe_name`, numbered where that name is taken.

    Raises:
        NATSBridgeError: `INVALID_ARGUMENT` where the folder does not exist or cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], dataname: str) -> None:
        self._folder = Path(folder)
        self._name = safe_name(dataname)
        self._final: Path | None = None
        try:
            _clean(self._folder)
            self._part, self._file = _temporary(self._folder)
        except OSError as e:
            raise self._failed(e) from e

    def _failed(self, e: OSError) -> NATSBridgeError:
        return NATSBridgeError(
            INVALID_ARGUMENT,
            f"cannot write into the folder {str(self._folder)!r}: {e.strerror or e}."
            " It must exist, be writable and have room",
        )

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as e:
            raise self._failed(e) from e

    def restart(self) -> bool:
        """Empty the file."""
        self._file.seek(0)
        self._file.truncate()
        return True

    def commit(self) -> str:
        """Give the file its final name and return its path."""
        try:
            if self.lasting:
                os.fsync(self._file.fileno())
            with _still_locked(self._file):
                self._file.close()
                return self._rename()
        except OSError as e:
            raise self._failed(e) from e

    def _rename(self) -> str:
        stem, dot, extension = self._name.rpartition(".")
        if not stem:
            stem, dot, extension = self._name, "", ""

        def path(number: int) -> Path:
            return self._folder / f"{stem}{f'-{number}' if number else ''}{dot}{extension}"

        number = _first_free(lambda number: os.path.lexists(path(number)))
        while True:
            try:
                _rename_new(self._part, path(number))
            except FileExistsError:  # somebody else was faster
                number += 1
                continue
            self._final = path(number)
            if self.lasting and os.name == "posix":
                _sync_folder(self._folder)
            return str(self._final)

    def discard(self) -> None:
        """Remove the file."""
        self._file.close()
        (self._final or self._part).unlink(missing_ok=True)


def _temporary(folder: Path) -> tuple[Path, io.FileIO]:
    """Open a new file, and lock it."""
    while True:
        path = folder / f".natsbridge-{uuid.uuid4().hex}.part"
        file = path.open("xb", buffering=0)
        with contextlib.suppress(OSError):  # a file system without locks: nobody removes it there
            _lock(file)
        if path.exists():  # else somebody cleaned just before it was locked
            return path, file
        file.close()


def _lock(file: io.FileIO) -> None:
    """Lock a file until it is closed. Raises OSError where another process has."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _still_locked(file: io.FileIO) -> Iterator[None]:
    """Keep a file's lock though it is closed (Windows renames nothing that is open)."""
    if sys.platform == "win32":
        yield
        return
    same = os.dup(file.fileno())
    try:
        yield
    finally:
        os.close(same)


_cleaned: set[Path] = set()


def _clean(folder: Path) -> None:
    """Remove what receivers that were killed left in a folder: once, it may have many files."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    for path in folder.glob(".natsbridge-*.part"):
        with contextlib.suppress(OSError):  # it is being written, or gone
            if sys.platform == "win32":
                path.unlink()
                continue
            with path.open("r+b", buffering=0) as file:
                _lock(file)
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_free(taken: Callable[[int], bool]) -> int:
    """Return a number that is free; the first one, where none below it are.

    By doubling and halving: of a sensor's hundred thousandth file, not each one before it is asked
    for.
    """
    low, high = -1, sys.maxsize
    while high - low > 1:
        number = min(2 * low + 2, (low + high) // 2)
        if taken(number):
            low = number
        else:
            high = number
    return high


def _rename_new(old: Path, new: Path) -> None:
    """Rename a file to a name that must be free (FileExistsError), atomically where possible."""
    if os.name == "nt":
        old.rename(new)  # which refuses to replace, there
        return
    try:
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name, then replace it
        with new.open("xb"):
            pass
        old.replace(new)
    else:
        old.unlink()


class WritableTarget(Target):
    """An object with `write()` that the caller made, and closes."""

    def __init__(self, dataname: str, writable: Any) -> None:
        if not callable(getattr(writable, "write", None)):
            raise NATSBridgeError(
                INVALID_ARGUMENT,
                f"sink returned a {type(writable).__name__} for {dataname!r}:"
                " it must return None or an object with write()",
            )
        self._dataname = dataname
        self._writable = writable
        try:
            self._start: int | None = writable.tell() if writable.seekable() else None
        except (AttributeError, OSError):
            self._start = None

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        try:
            while view:
                count = self._writable.write(view)
                if isinstance(count, int) and count < 1:
                    raise OSError(f"write() took {count} of {len(view)} bytes")
                # Writables that are no files may return nothing, having taken all.
                view = view[count:] if isinstance(count, int) else view[:0]
        except (OSError, ValueError) as e:  # no room, or closed
            raise sink_failed(self._dataname, e) from e

    def restart(self) -> bool:
        """Go back to where writing began."""
        if self._start is None:
            return False
        try:
            self._writable.seek(self._start)
            self._writable.truncate()
        except (AttributeError, OSError, ValueError):
            return False
        return True

    def commit(self) -> Any:
        """Return the writable, with nothing left in its buffer: a full disk shows now."""
        try:
            if callable(getattr(self._writable, "flush", None)):
                self._writable.flush()
        except (OSError, ValueError) as e:  # no room, or closed
            raise sink_failed(self._dataname, e) from e
        return self._writable
