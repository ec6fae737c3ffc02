"""Inputs for parsers: seeds that were damaged. Knows nothing of any format but the tokens it is
given, and that digits may be a length."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Sequence
from pathlib import Path

#: Bytes of an input at most: most faults show in short ones, of which more can be tried.
MOST = 700
#: What a length is replaced by.
LENGTHS = (
    b"0 1 2 3 7 16 255 256 1024 2048 2049 4096 65535 2147483648 4294967296 -1 +1 1e3 0x10".split()
)
LENGTHS += [b"9" * n for n in (5, 9, 10, 11, 15, 16, 19, 63, 64, 65)] + [
    b"00",
    b"",
    b"1.0",
    b"\xb2",
]
CORPUS = Path(__file__).with_name("corpus")


def stored(name: str) -> list[bytes]:
    """The inputs in corpus/NAME.txt, of which each line is a bytes literal, or a comment."""
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


class Mutator:
    """Makes inputs out of `seeds` and `tokens`, one after the other, each by `rng` alone."""

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> None:
        self._seeds = seeds
        self._tokens = tokens
        self._random = rng.random
        self._ways: Sequence[Callable[[bytearray], None]] = (
            *(self._flip, self._set, self._insert, self._delete, self._double, self._cut),
            *(self._splice, self._splice, self._token, self._token, self._length, self._length),
            *(self._swap, self._append),
        )

    def _below(self, n: int) -> int:
        return int(self._random() * n)

    def _some(self, of: Sequence[bytes]) -> bytes:
        return of[int(self._random() * len(of))]

    def __call__(self) -> bytes:
        """Make the next input."""
        data = bytearray(self._some(self._seeds))
        while True:
            self._ways[int(self._random() * len(self._ways))](data)
            if self._random() < 0.6:
                return bytes(data[:MOST])

    def _place(self, data: bytearray) -> tuple[int, int]:
        """A range in it, mostly a short one."""
        at = self._below(len(data) + 1)
        return at, at + self._below(8 if self._random() < 0.7 else len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._below(len(data))] ^= 1 << self._below(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._below(len(data))] = self._below(256)

    def _insert(self, data: bytearray) -> None:
        at, end = self._place(data)
        data[at:at] = bytes(self._below(256) for _ in range(min(end - at, 16)))

    def _delete(self, data: bytearray) -> None:
        at, end = self._place(data)
        del data[at:end]

    def _double(self, data: bytearray) -> None:
        at, end = self._place(data)
        data[at:at] = data[at:end] * (1 if self._random() < 0.8 else self._below(20))

    def _cut(self, data: bytearray) -> None:
        del data[self._below(len(data) + 1) :]

    def _splice(self, data: bytearray) -> None:
        other = self._some(self._seeds)
        at, end = self._place(data)
        start = self._below(len(other) + 1)
        data[at:end] = other[start : start + self._below(len(other) + 1)]

    def _append(self, data: bytearray) -> None:
        data += self._some(self._seeds)

    def _swap(self, data: bytearray) -> None:
        at, end = self._place(data)
        piece = data[at:end]
        del data[at:end]
        to = self._below(len(data) + 1)
        data[to:to] = piece

    def _token(self, data: bytearray) -> None:
        at, end = self._place(data)
        data[at : end if self._random() < 0.5 else at] = self._some(self._tokens)

    def _length(self, data: bytearray) -> None:
        """Replace a number, or make it a little more or less."""
        at = self._below(len(data) + 1)
        while at < len(data) and not 48 <= data[at] <= 57:
            at += 1
        end = at
        while end < len(data) and 48 <= data[end] <= 57 and end - at < 20:
            end += 1
        if self._random() < 0.5 and end > at:
            data[at:end] = b"%d" % max(0, int(data[at:end]) + self._below(5) - 2)
        else:
            data[at:end] = self._some(LENGTHS)
