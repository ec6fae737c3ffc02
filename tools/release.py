"""make firmware: what is published for mip, in build/release/ (or in the folder that is named).

`mpremote mip install` and `mip.install` on the device (MicroPython 1.25 and newer: URLs in
package.json are relative) take it from there, or from any web server that has these files.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from stage import BUILD, ROOT, ToolError

MODULES = BUILD / "firmware" / "natsbridge"


def version() -> str:
    """The firmware's __version__, as it stands in the source and in what was compiled of it."""
    source = (ROOT / "firmware/natsbridge/__init__.py").read_text(encoding="utf-8")
    [found] = re.findall(r'^__version__ = "([^"]+)"$', source, re.M)
    if found.encode() not in (MODULES / "__init__.mpy").read_bytes():
        raise ToolError(f"__init__.mpy is not of version {found}: make clean, make firmware")
    return str(found)


def check(name: str, head: bytes, board: str) -> None:
    """Raise ToolError if a .mpy file that begins so does not load on the board. The rules are those
    of 'MicroPython .mpy files' in MicroPython's documentation."""
    mpy = json.loads((ROOT / "boards" / board / "board.json").read_text(encoding="utf-8"))["mpy"]
    if head[:1] != b"M" or head[1] != mpy["version"]:
        why = f"its format is {head[1]}, and {mpy['version']} is loaded there"
    elif head[2] >> 2:
        why = "it has native code"
    elif head[3] > mpy["small_int_bits"]:
        why = f"its integers have {head[3]} bits, and {mpy['small_int_bits']} are had there"
    else:
        return
    raise ToolError(f"{name} does not load on {board}: {why}")


def release(folder: Path) -> str:
    """Make the folder: what is in it, in two lines."""
    boards = sorted(path.parent.name for path in ROOT.glob("boards/*/board.json"))
    sources = sorted(ROOT.glob("firmware/natsbridge/*.py"))
    modules = [MODULES / f"{source.stem}.mpy" for source in sources]
    stamp = version()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "natsbridge").mkdir(parents=True)
    urls = []
    size = 0
    for path in modules:
        data = path.read_bytes()
        for board in boards:
            check(path.name, data[:4], board)
        name = f"natsbridge/{path.name}"
        (folder / name).write_bytes(data)
        urls.append([name, name])
        size += len(data)
    package = {"urls": urls, "deps": [], "version": stamp}
    (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")
    return (
        f"natsbridge {stamp} for mip: {len(urls)} modules, {size} bytes, .mpy format {data[1]},\n"
        f"for {', '.join(boards)}"
    )


if __name__ == "__main__":
    try:
        print(release(Path(sys.argv[1]) if sys.argv[1:] else BUILD / "release"))
    except ToolError as e:
        sys.exit(f"release failed: {e}")
