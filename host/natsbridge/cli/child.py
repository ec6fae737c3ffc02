"""Children that do not outlive who started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

__all__ = ["die_with"]


def die_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this child a signal if the process `parent` is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed before that
            os._exit(1)
