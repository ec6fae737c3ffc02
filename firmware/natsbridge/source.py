"""What payloads are read from on their way out."""

from .errors import INVALID_ARGUMENT, fail


def link(env, sources, index, value=None):
    """Make a payload a link whose URL is still to come: (source, data), which as `value` makes it
    direct again."""
    p = env["payloads"][index]
    before = sources[index], p["data"]
    sources[index], p["data"] = value or (None, "")
    p["transport"] = "direct" if value else "link"
    p["encoding"] = "base64" if value else "none"
    return before


class Source:
    """The bytes of `data`, which is bytes-like, or a binary stream from where it stands.

    size: bytes, None where it can't be known (a stream that can't seek).
    """

    def __init__(self, data):
        self.at = 0
        self.stream = None
        if hasattr(data, "readinto"):
            self.stream = data
            self.readinto = data.readinto
            try:
                self.at = data.seek(0, 1)
                self.size = data.seek(0, 2) - self.at
                data.seek(self.at)
            except (OSError, AttributeError, TypeError, ValueError):
                self.size = None
        else:
            self.data = memoryview(data)
            self.size = len(data)

    def readinto(self, buf, n=-1):
        """Read up to `n` bytes into `buf`: their number, 0 at the end."""
        part = self.data[self.at : self.at + (len(buf) if n < 0 else n)]
        buf[: len(part)] = part
        self.at += len(part)
        return len(part)

    def fill(self, buf, n, dataname):
        """Read `n` bytes, all that `buf` takes: their number, less only at the end of what has no
        known size. Raises INVALID_ARGUMENT where they can't be had."""
        at = 0
        while at < n:
            why = "it ended"
            try:
                got = self.readinto(buf[at:] if at else buf)
            except (OSError, ValueError) as e:
                got = None
                why = e
            if not got:
                if got == 0 and self.size is None:
                    break
                raise fail(INVALID_ARGUMENT, "source", dataname, why)
            at += got
        return at

    def rewind(self):
        """Go back to the first byte. Raises INVALID_ARGUMENT where the stream can't."""
        if not self.stream:
            self.at = 0
            return
        try:
            if self.size is None:
                raise OSError("it is not seekable")
            self.stream.seek(self.at)
        except (OSError, ValueError) as e:
            raise fail(INVALID_ARGUMENT, "rewind", e)
