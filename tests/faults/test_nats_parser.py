"""What a broker sends means the same in whatever pieces it comes, and the same as to nats-py."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nats_corpus as corpus
import parsers_device as parsers
from device import printed
from figures import Figures
from nats_corpus import ALL, LAST, OPERATIONS
from scale import SCALE, dice, runs

#: Bytes up to which a sequence is taken in every three pieces.
SHORT = runs(24, 130, 60)
#: Of a longer one, so many of its cuts into two, if not all of them.
CUTS = runs(60, 10_000, 500)
DEVICE = Path(__file__).with_name("chunks_device.py")

#: Ways in which sequences were taken, and those of them in which they meant something else.
tried: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def noted(figures: Figures) -> Iterator[None]:
    """Listen to all that is said; the figure of all the tests."""
    parsers.listen()
    yield
    figures.note(
        1,
        "parser",
        f"{len(ALL)} operations and sequences of them, in {tried['ways']:,} ways: other events, or"
        f" other than nats-py's, in {tried['differ']}",
        met=not tried["differ"],
    )


def same(data: bytes, ways: Iterable[list[int]]) -> None:
    """Take `data` whole and in these ways, in the firmware and in nats-py."""
    events = parsers.nats(data)
    for sizes in itertools.chain([[]], ways):
        tried["ways"] += 1
        got = parsers.nats(data, sizes)
        theirs = corpus.heard(corpus.pieces(data, sizes))
        tried["differ"] += not got[:-1] == theirs == events[:-1]
        assert got == events, sizes
        assert theirs == events[:-1], sizes


def cuts(data: bytes, rng: random.Random) -> list[list[int]]:
    """Every two pieces, or many, with nothing there for a moment in between."""
    places = range(1, len(data))
    if len(places) > CUTS:
        places = sorted(rng.sample(places, CUTS))  # type: ignore[assignment]
    return [[at, 0] for at in places]


def two_cuts(data: bytes) -> list[list[int]]:
    """Every three pieces."""
    pairs = itertools.combinations(range(1, len(data)), 2)
    return [[one, two - one] for one, two in pairs]


@pytest.mark.parametrize("name", ALL)
def test_an_operation_means_the_same_in_any_pieces_and_to_nats_py(
    name: str, rng: random.Random
) -> None:
    data = ALL[name]
    *events, end = parsers.nats(data)
    assert len(events) == (name != "+OK")
    why = name.removeprefix("-ERR ") if name in LAST else "closed by the server"
    assert end == ("end", why)
    ways = cuts(data, rng)
    if len(data) <= 200 or SCALE == "full":
        ways += [[1] * len(data), [1, 0] * len(data)]
    if len(data) <= SHORT:
        ways += two_cuts(data)
    same(data, ways)


def test_two_operations_mean_the_same_in_every_two_pieces(rng: random.Random) -> None:
    pairs = [
        one + two
        for one, two in itertools.product(OPERATIONS.values(), ALL.values())
        if len(one + two) < 300
    ]
    for data in rng.sample(pairs, min(len(pairs), runs(20, len(pairs), 200))):
        same(data, cuts(data, rng))


def test_four_operations_mean_the_same_in_every_three_pieces(rng: random.Random) -> None:
    short = [data for data in OPERATIONS.values() if len(data) < 45]
    for _ in range(runs(1, 40, 5)):
        data = b"".join(rng.sample(short, runs(2, 4)))
        same(data, two_cuts(data))


def test_random_sequences_mean_the_same_in_random_pieces(rng: random.Random) -> None:
    for _ in range(runs(300, 100_000, 15_000)):
        data = corpus.sequence(rng)
        same(data, [corpus.chunking(rng, len(data))])


def test_the_corpus_is_what_was_asked_for() -> None:
    assert 8192 <= len(OPERATIONS["INFO of 8 KiB"]) < 9000
    kinds = {data.split(b" ")[0].strip() for data in ALL.values()}
    assert kinds == {b"INFO", b"MSG", b"HMSG", b"PING", b"PONG", b"+OK", b"-ERR"}
    assert len(ALL) > 50


def plain(value: Any) -> Any:
    """An event as JSON takes it."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def test_the_device_hears_the_same_in_any_pieces(tmp_path: Path, figures: Figures) -> None:
    rng = dice("device")
    small = [data for data in ALL.values() if len(data) < 600]
    sequences = [*rng.sample(small, runs(6, len(small))), OPERATIONS["INFO of 8 KiB"]]
    sequences += [corpus.sequence(rng) for _ in range(runs(1, 30, 6))]
    if SCALE == "quick":
        sequences = [data for data in sequences if len(data) < 300]
    (tmp_path / "sequences").write_text("".join(f"{data.hex()}\n" for data in sequences))
    arguments = [str(rng.randrange(1 << 30)), str(runs(12, 60, 30)), str(runs(10, 50, 30))]
    out = printed(DEVICE, str(tmp_path / "sequences"), *arguments, timeout=900, heap="1M")
    ways = 0
    for data, line in zip(sequences, out.splitlines(), strict=True):
        events, count = json.loads(line)
        assert events == plain(parsers.nats(data))
        ways += count
    assert ways > len(sequences)
    figures.note(
        1,
        "parser-device",
        f"unix port: {len(sequences)} sequences in {ways:,} ways: the same events as on CPython",
    )
