"""Where the bytes of a payload to send come from: memory or a binary stream."""

from __future__ import annotations

import io
from typing import Any

from natsbridge.errors import INVALID_ARGUMENT, INVALID_PAYLOAD_TYPE, NATSBridgeError

__all__ = ["CHUNK", "Source", "bytes_view", "is_stream"]

#: Bytes read, hashed and written at a time: large enough that a hop to a worker thread
#: (about 0.1 ms) does not count, small enough to hold a few.
CHUNK = 1 << 20


def bytes_view(value: object) -> memoryview | None:
    """Return the bytes of a bytes-like object, or None for anything else."""
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def is_stream(value: object) -> bool:
    """Tell whether `value` can be read like a file."""
    return hasattr(value, "readinto") or hasattr(value, "read")


def _only_written(stream: Any) -> bool:
    """Tell whether a stream is open, but not for reading."""
    readable = getattr(stream, "readable", None)
    if getattr(stream, "closed", False) or not callable(readable) or readable() is not False:
        return False
    try:
        stream.read(0)  # a class of the caller's may have left `readable` as it inherits it
    except io.UnsupportedOperation:
        return True
    except AttributeError:
        pass
    return False


def _failed(name: str, e: Exception) -> NATSBridgeError:
    return NATSBridgeError(INVALID_ARGUMENT, f"the stream of {name!r} failed: {e}")


class Source:
    """A payload's bytes, read in pieces, more than once where the stream can seek.

    Attributes:
        name: the dataname, for messages.
        size: bytes, or None for a stream that cannot seek.
    """

    def __init__(self, name: str, stream: Any, size: int | None, start: int, owned: bool) -> None:
        self.name = name
        self.size = size
        self._stream = stream
        self._start = start
        self._owned = owned
        self._done = 0

    @classmethod
    def of_bytes(cls, name: str, data: bytes | memoryview) -> Source:
        """Make a source of bytes in memory (not copied)."""
        return cls(name, memoryview(data), len(data), 0, True)

    @classmethod
    def of_stream(cls, name: str, stream: Any, owned: bool = False) -> Source:
        """Make a source of what a binary stream holds from its position to its end.

        Args:
            name: the dataname.
            stream: has `readinto` or `read`.
            owned: whether `close` closes it.

        Raises:
            NATSBridgeError: `INVALID_PAYLOAD_TYPE` for a stream of text, or one not open for
                reading; `INVALID_ARGUMENT` for one that is closed.
        """
        text = isinstance(stream, io.TextIOBase)
        if not text and not hasattr(stream, "readinto"):
            text = isinstance(stream.read(0), str)
        if text:
            raise NATSBridgeError(
                INVALID_PAYLOAD_TYPE,
                f'the stream of {name!r} returns text: open the file with mode "rb"',
            )
        try:
            if _only_written(stream):
                raise NATSBridgeError(
                    INVALID_PAYLOAD_TYPE,
                    f"the stream of {name!r} cannot be sent: it is not open for reading."
                    ' Open the file with mode "rb"',
                )
            start = stream.seek(0, io.SEEK_CUR)
            size = stream.seek(0, io.SEEK_END) - start
            stream.seek(start)
        except (AttributeError, OSError, TypeError):
            return cls(name, stream, None, 0, owned)
        except ValueError as e:  # it is closed
            raise _failed(name, e) from e
        return cls(name, stream, max(size, 0), start, owned)

    @property
    def rewindable(self) -> bool:
        """Whether `rewind` works."""
        return self.size is not None

    @property
    def in_memory(self) -> bool:
        """Whether reading cannot block."""
        return isinstance(self._stream, memoryview)

    def rewind(self) -> None:
        """Go back to the first byte.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT` where the stream cannot seek, or not any more.
        """
        self._done = 0
        if isinstance(self._stream, memoryview):
            return
        if self.size is None:
            raise NATSBridgeError(
                INVALID_ARGUMENT, f"the stream of {self.name!r} cannot seek: it is read once"
            )
        try:
            self._stream.seek(self._start)
        except (OSError, ValueError) as e:
            raise _failed(self.name, e) from e

    def read(self, limit: int = CHUNK) -> bytes | memoryview:
        """Return the next at most `limit` bytes, b"" at the end (blocking).

        A stream of known size is read to that size: what it grew by meanwhile is left.

        Raises:
            NATSBridgeError: `INVALID_ARGUMENT` where the stream fails or ends early.
        """
        if isinstance(self._stream, memoryview):
            piece: bytes | memoryview = self._stream[self._done : self._done + limit]
        else:
            if self.size is not None:
                limit = min(limit, self.size - self._done)
            piece = self._read_stream(limit)
            if self.size is not None and len(piece) < limit:
                raise NATSBridgeError(
                    INVALID_ARGUMENT,
                    f"the stream of {self.name!r} ended after {self._done + len(piece)} of"
                    f" {self.size} bytes: was the file cut while it was sent?",
                )
        self._done += len(piece)
        return piece

    def _read_stream(self, limit: int) -> memoryview:
        pieces: list[bytes | bytearray] = []
        missing = limit
        while missing:
            try:
                if hasattr(self._stream, "readinto"):
                    piece = bytearray(missing)
                    count = self._stream.readinto(piece)
                    piece = piece if count is None else piece[:count]
                else:
                    piece = self._stream.read(missing)
                    count = None if piece is None else len(piece)
            except (OSError, ValueError) as e:
                raise _failed(self.name, e) from e
            if count is None:
                raise NATSBridgeError(
                    INVALID_ARGUMENT, f"the stream of {self.name!r} is non-blocking and has no data"
                )
            if not count:
                break
            pieces.append(piece)
            missing -= count
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def read_all(self) -> bytes | memoryview:
        """Return every byte from the first (blocking). Raises as `rewind` and `read`."""
        if isinstance(self._stream, memoryview):
            return self._stream
        if self.rewindable:
            self.rewind()
        return b"".join(iter(self.read, b""))

    def close(self) -> None:
        """Close a stream that this package opened itself."""
        if self._owned and not isinstance(self._stream, memoryview):
            self._stream.close()
