"""The names of received files: temporary until all is verified, then safe and unique."""

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
    name = "".join(
        c if "a" <= c <= "z" or "A" <= c <= "Z" or "0" <= c <= "9" or c in "._-" else "_"
        for c in dataname
    )
    stem, ext = _split(name)
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
    """A path in `folder` that does not exist yet: name.ext, name-1.ext, name-2.ext, ..."""
    stem, ext = _split(name)
    n = 0
    path = "%s/%s" % (folder, name)
    while True:
        try:
            os.stat(path)
        except OSError:
            return path
        n += 1
        path = "%s/%s-%d%s" % (folder, stem, n, ext)


def _split(name):
    """(stem, extension with its dot) of a file name."""
    at = name.rfind(".")
    return (name, "") if at <= 0 else (name[:at], name[at:])
