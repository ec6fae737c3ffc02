"""The names of received files: temporary until all is verified, then safe and unique.

A temporary name tells whose it is, so that what a power cut left behind can be removed, but
nothing of another process that is running.
"""

import os

from . import log

_cleaned = None  # the folder that was cleaned last


def temporary(folder):
    """A path in `folder` for a file that is not verified yet."""
    global _cleaned
    if not log.run:
        log.run = _run("self") or "0-" + log.uuid4()[:8]
    if folder != _cleaned:
        clear(folder)
        _cleaned = folder
    return "%s/.nb-%s-%s.part" % (folder, log.run, log.uuid4()[:8])


def _run(pid):
    """``<process>-<its start>`` of a process that runs, None if there is none (or no Linux)."""
    try:
        with open("/proc/%s/stat" % pid) as f:
            pid, _, rest = f.read().partition(" (")
        return "%s-%s" % (pid, rest.rpartition(")")[2].split()[19])  # proc(5): starttime
    except OSError:
        return None


def clear(folder):
    """Remove the temporary files of runs that are over."""
    board = not hasattr(os, "getenv")  # where nothing else can be running
    if not board and log.run[0] == "0":
        return
    found = []  # first: not every file system can be read on while something is removed
    for entry in os.ilistdir(folder):
        name = entry[0]
        if name[:4] == ".nb-" and name[-5:] == ".part":
            run, _, _ = name[4:].rpartition("-")
            if run != log.run and (board or _run(run.split("-")[0]) != run):
                found.append(name)
    for name in found:
        os.remove(folder + "/" + name)


def commit(folder, targets):
    """Give the files of `targets` names made of their payloads' names."""
    for target in targets:
        if target.path:
            path = unique(folder, safe_name(target.data))
            os.rename(target.path, path)
            target.data = target.path = path


def safe_name(dataname):
    """A file name made of `dataname`: of letters, digits and ``._-``, never hidden, never a
    device's, at most 100 bytes."""
    name = ""
    for i in range(len(dataname)):
        c = dataname[i : i + 1]  # not dataname[i], which would stay in the heap as a name
        good = "a" <= c <= "z" or "A" <= c <= "Z" or "0" <= c <= "9" or c in "._-"
        name += c if good else "_"
    stem, ext = split(name)
    if len(ext) > 50:  # no extension anyone means
        stem, ext = name, ""
    name = stem[: 100 - len(ext)] + ext
    if name[:1] == ".":
        name = "_" + name[1:]
    name = name.rstrip(".")
    word = name.split(".")[0].upper()
    if word in ("CON", "PRN", "AUX", "NUL") or (
        len(word) == 4 and word[:3] in ("COM", "LPT") and word[3].isdigit()
    ):
        name = "_" + name
    return name or "payload"


def unique(folder, name):
    """A path in `folder` that does not exist yet: name.ext, name-1.ext, name-2.ext, ...

    By doubling and halving: each look at a flash's folder reads it.
    """
    stem, ext = split(name)
    taken, free = -1, 1 << 29
    while free - taken > 1:
        n = min(2 * taken + 2, (taken + free) // 2)
        path = "%s/%s%s%s" % (folder, stem, "-%d" % n if n else "", ext)
        try:
            os.stat(path)
            taken = n
        except OSError:
            free, found = n, path
    return found


def split(name):
    """(stem, extension with its dot) of a file name."""
    at = name.rfind(".")
    return (name, "") if at <= 0 else (name[:at], name[at:])
