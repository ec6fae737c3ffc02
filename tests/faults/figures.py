"""The table of figures: what each test of faults measured, and whether that is what was wanted.

As a program it prints the table: python figures.py build/faults
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

#: What each figure is about, and the goal.
GOALS = {
    1: ("NATS parser", "the same events in any pieces, and nats-py's"),
    2: ("Fuzzing", "documented errors only, none over 1 s"),
    3: ("Broker killed and stopped", "ready within 2 s (p99), nothing twice or truncated"),
    4: ("Slow readers", "never a truncated delivery, no needless cut"),
    5: ("Accounting", "published = delivered + reported as unknown"),
    6: ("HTTP that misbehaves", "the right bytes or an error"),
    7: ("Device killed", "no bad final file, no temporary file after the next start"),
    8: ("Retries", "bounded, and no 100 ms with over 5 % of them"),
    9: ("Soak", "drift of at most 1 KB of heap on the device, none on the desktop"),
    10: ("Injection", "no extra frame on the wire"),
    11: ("SSRF", "no connection off the allow-list"),
    12: (
        "Hostile names, lying sizes",
        "nothing outside or overwritten, heap on the device up by 4 KB at most",
    ),
    13: ("Arrow bombs", "refused within the cap"),
    14: ("TLS and secrets", "no credentials without TLS, no secret in any text"),
    15: ("Durable sends", "none lost, none twice, over kills of the broker and of the device"),
}


@dataclass(frozen=True)
class Figure:
    """What one test measured for the figure `number`."""

    number: int
    measured: str
    met: bool


class Figures:
    """Takes the figures of a run down, each in a file of its own."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def note(self, number: int, key: str, measured: str, met: bool = True) -> None:
        """Note a figure under a key that is a file's name: "03-restarts-device", say."""
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(Figure(number, measured, met)))
            (self._folder / f"{number:02}-{key}.json").write_text(text)


def table(folder: Path) -> str:
    """The table in Markdown, of all that was noted in a folder."""
    found: dict[int, list[Figure]] = {}
    for path in sorted(folder.glob("*.json")):
        figure = Figure(**json.loads(path.read_text()))
        found.setdefault(figure.number, []).append(figure)
    lines = ["| | goal | measured |", "| --- | --- | --- |"]
    for number, (what, goal) in GOALS.items():
        figures = found.get(number, [])
        measured = "<br>".join(("" if f.met else "MISSED: ") + f.measured for f in figures)
        lines.append(f"| {number}. {what} | {goal} | {measured or 'not measured'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
