"""What earlier runs left behind: temporary files of payloads that were not verified when the power
was cut. Loaded once for each folder, and dropped again.

A temporary name tells whose it is: nothing of another process that is running is removed.
"""

import os

from . import log
from .errors import drop


def clear(folder):
    """Remove from `folder` the temporary files of runs that are over."""
    run = log.run = log.run or start("self") or "0-" + log.uuid4()[:8]
    board = not hasattr(os, "getenv")  # where nothing else can be running
    found = []  # first: not every file system can be read on while something is removed
    for entry in os.ilistdir(folder) if board or run[0] != "0" else ():
        name = entry[0]
        if name[:4] == ".nb-" and name[-5:] == ".part":
            other, _, _ = name[4:].rpartition("-")
            if other != run and (board or start(other.split("-")[0]) != other):
                found.append(name)
    for name in found:
        os.remove(folder + "/" + name)
    log.cleared = folder
    drop("leftovers")


def start(pid):
    """``<process>-<its start>`` of a process that runs, None if there is none (or no Linux)."""
    try:
        with open("/proc/%s/stat" % pid, "rb") as f:
            text = f.read(256)
        pid = int(text[: text.find(b" ")])
        return "%d-%d" % (pid, int(text[text.rfind(b")") :].split(None, 21)[20]))  # see proc(5)
    except OSError:
        return None
