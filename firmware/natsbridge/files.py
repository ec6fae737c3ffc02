"""The final names of received files: safe and unique."""

import os


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
