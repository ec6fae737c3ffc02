"""Names and sizes that lie: nothing outside the folder, nothing overwritten, hardly any heap."""

from __future__ import annotations

import asyncio
import base64
import collections
import hashlib
import itertools
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from figures import Figures
from hostile import NAMES, SIZES, size, thrown
from jobs import Device
from natsbridge import sync
from natsbridge.client import Msg
from natsbridge.errors import NATSBridgeError
from scale import dice, runs

#: Bytes of a file: a message of more than 2 KB is read while it is received.
LENGTH = 3000
#: Bytes that a lie may take of the heap, beside what a true message takes.
MOST = 4096
#: The same on the desktop.
MOST_DESKTOP = 1 << 20
KINDS = ("binary", "image", "audio", "video", "arrowtable")
#: What a receiver may say of a lying size or of a name.
DOCUMENTED = {"INVALID_ENVELOPE", "INTEGRITY_ERROR", "PAYLOAD_TOO_LARGE", "DESERIALIZATION_ERROR"}
#: The rest of the 200.
THROWN = "of the dice"


class Files:
    """The file server, where each content is uploaded once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._at: dict[bytes, str] = {}

    def at(self, data: bytes) -> str:
        if data not in self._at:
            self._at[data] = sync.plik_upload(self.url, "x", data)["url"]
        return self._at[data]

    def payload(self, name: str, data: bytes, kind: str, link: bool) -> dict[str, Any]:
        """A payload of a message."""
        item = {"dataname": name, "payload_type": kind, "size": len(data)}
        if link:
            metadata = {"sha256": hashlib.sha256(data).hexdigest()}
            return {**item, "transport": "link", "data": self.at(data), "metadata": metadata}
        return {**item, "transport": "direct", "data": base64.b64encode(data).decode()}


def message(item: dict[str, Any]) -> bytes:
    return json.dumps({"payloads": [item]}).encode()


class Sides:
    """The two receivers: each gives what came (paths, sizes, or an error's code), by how many bytes
    its heap has grown, and by how many at most meanwhile."""

    def __init__(self, broker: str, files: Files) -> None:
        self._device = Device(broker, "faults.hostile")
        self._files = files
        self._good: dict[tuple[str, bool], int] = {}
        #: Of names or sizes: what each took of the heap beside a true message, and how many of them
        #: did no harm.
        self.took: dict[tuple[str, str], list[int]] = {}
        self.harmless: collections.Counter[tuple[str, str]] = collections.Counter()

    def device(self, wire: bytes, folder: Path | None) -> tuple[Any, int, int]:
        place = str(folder) if folder else None
        job = {"folder": place, "files": self._files.url, "retries": 1, "timeout": 10}
        got = self._device.do(wire, do="measured", **job)
        assert not got["code"], got
        result, left, top = got["result"]
        return result, left, top

    def desktop(self, wire: bytes, folder: Path | None) -> tuple[Any, int, int]:
        async def receive() -> Any:
            options = {"fileserver_url": self._files.url, "max_retries": 1, "timeout": 10}
            env = await natsbridge.smartreceive(Msg("s", "", wire), sink=folder, **options)
            return [p[1] if folder else len(p[1]) for p in env["payloads"]]

        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            try:
                result = asyncio.run(receive())
            except NATSBridgeError as e:
                result = e.code
            now, top = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return result, now - before, top - before

    def take(self, side: str, what: str, wire: bytes, folder: Path | None, link: bool) -> Any:
        """Receive a message that lies: what came, if that took no more heap than it may."""
        receive = self.device if side == "device" else self.desktop
        key = side, link
        if key not in self._good:
            for _ in range(3):  # what is made once is there then
                true = self._files.payload("good", b"x" * LENGTH, "binary", link)
                got, _, top = receive(message(true), None)
                assert got == [LENGTH]
            self._good[key] = top
        got, left, top = receive(wire, folder)
        worst = max(left, top - self._good[key])
        self.took.setdefault((side, what), []).append(worst)
        assert worst <= (MOST if side == "device" else MOST_DESKTOP), (left, top)
        return got


@pytest.fixture(scope="module")
def files(file_url: str) -> Files:
    return Files(file_url)


@pytest.fixture(scope="module")
def sides(nats_url: str, files: Files, figures: Figures) -> Iterator[Sides]:
    both = Sides(nats_url, files)
    yield both
    both._device.close()
    for side in ("device", "desktop"):
        names, sizes = both.took.get((side, "name"), []), both.took.get((side, "size"), [])
        if names and sizes:
            good = [both.harmless[side, what] for what in ("name", "size")]
            most = max(0, *names, *sizes)
            figures.note(
                12,
                side,
                f"{side}: no harm by {good[0]} of {len(names)} names and {good[1]} of {len(sizes)}"
                f" sizes; heap +{most:,} bytes at most",
                met=good == [len(names), len(sizes)] and (most <= MOST or side == "desktop"),
            )


# ---------------------------------------------------------------- names


def furnished(root: Path) -> Path:
    """A folder with things in it, and around it."""
    folder = root / "deep" / "in"
    (folder / "folder").mkdir(parents=True)
    for path in (folder / "same", folder / "photo.jpg", root / "outside", root / "deep" / "x"):
        path.write_bytes(b"was here")
    (folder / "link").symlink_to(root / "outside")
    (folder / "dir").symlink_to(root, target_is_directory=True)
    (folder / "folder" / "x").write_bytes(b"was here")
    return folder


def tree(root: Path) -> dict[Path, bytes | str]:
    """All that there is."""
    found: dict[Path, bytes | str] = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            found[path] = f"to {path.readlink()}"
        else:
            found[path] = path.read_bytes() if path.is_file() else "a folder"
    return found


def good(path: Path) -> bool:
    """Whether a file name harms nobody who sees, copies or globs it."""
    name = path.name
    stem = name.partition(".")[0].upper()
    return (
        len(name.encode()) <= 120
        and name.isprintable()
        and not set(name) & set('/\\:*?"<>| \0')
        and not name.startswith(".")
        and not name.endswith(".")
        and stem not in ("CON", "PRN", "AUX", "NUL")
        and not (stem[:3] in ("COM", "LPT") and stem[3:].isdigit() and len(stem) == 4)
    )


def all_names(rng: random.Random, what: str) -> list[str]:
    if what == THROWN:
        return thrown(rng, max(20, 200 - sum(map(len, NAMES.values()))))
    return NAMES[what]


@pytest.mark.parametrize("side", ["device", "desktop"])
@pytest.mark.parametrize("what", [*NAMES, THROWN])
def test_names(what: str, side: str, sides: Sides, files: Files, tmp_path: Path) -> None:
    rng = dice(f"names {what}")
    names = all_names(rng, what)
    names = rng.sample(names, runs(5, len(names)))
    folder = furnished(tmp_path)
    before = tree(tmp_path)
    expected: dict[Path, bytes] = {}
    for i, name in enumerate(names):
        link = i % 4 == 0
        data = f"{i % 3}".encode() * LENGTH
        item = files.payload(name, data, rng.choice(KINDS), link)
        got = sides.take(side, "name", message(item), folder, link)
        if isinstance(got, str):
            surrogate = not name.isascii() and name.encode("utf-8", "replace").decode() != name
            assert got in DOCUMENTED
            assert len(name.encode("utf-8", "replace")) > 1024 or surrogate, (name, got)
            continue
        (path,) = map(Path, got)
        assert path.parent == folder
        assert path not in expected
        assert not path.is_symlink()
        assert good(path), path
        expected[path] = data
    assert tree(tmp_path) == {**before, **expected}
    sides.harmless[side, "name"] += len(names)


@pytest.mark.parametrize("side", ["device", "desktop"])
def test_a_link_to_what_is_not_there_is_not_followed(
    side: str, sides: Sides, files: Files, tmp_path: Path
) -> None:
    folder = furnished(tmp_path)
    (folder / "dangling").symlink_to(tmp_path / "new")
    item = files.payload("dangling", b"abc", "binary", False)
    (path,) = sides.take(side, "name", message(item), folder, False)
    assert Path(path).read_bytes() == b"abc"
    assert not Path(path).is_symlink()
    assert not (tmp_path / "new").exists()
    sides.harmless[side, "name"] += 1


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("side", ["device", "desktop"])
@pytest.mark.parametrize("lie", SIZES)
def test_a_size_that_is(lie: str, side: str, sides: Sides, files: Files, tmp_path: Path) -> None:
    data = b"x" * LENGTH
    # late: behind the data, when that is there already.
    ways = list(itertools.product((False, True), (False, True), (None, tmp_path)))
    for link, late, folder in dice(lie).sample(ways, runs(2, len(ways))):
        item = files.payload("a", data, "binary", link)
        if late:
            item["size"] = item.pop("size")
        said = size(lie, len(data))
        wire = message(item).replace(b'"size": %d' % LENGTH, b'"size": ' + said.encode())
        got = sides.take(side, "size", wire, folder, link)
        assert got in DOCUMENTED, (link, late, folder)
        assert list(tmp_path.iterdir()) == []
        sides.harmless[side, "size"] += 1


@pytest.mark.parametrize("side", ["device", "desktop"])
@pytest.mark.parametrize("link", [False, True], ids=["direct", "link"])
def test_a_size_that_is_not_told_is_no_lie(
    link: bool, side: str, sides: Sides, files: Files, tmp_path: Path
) -> None:
    data = b"x" * LENGTH
    for said in (None, "null"):
        item = files.payload("a", data, "binary", link)
        del item["size"]
        if said:
            item["size"] = None
        (path,) = sides.take(side, "size", message(item), tmp_path, link)
        assert Path(path).read_bytes() == data
        sides.harmless[side, "size"] += 1
