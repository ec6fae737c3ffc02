"""How much the tests of faults do, and by which dice.

$NATSBRIDGE_FAULTS: "quick" in `make test`, "short" in CI, "full" in `make faults`.
$NATSBRIDGE_SEED: the seed of all that is random; the one of a run is printed at its end.
"""

from __future__ import annotations

import os
import random
import time

NAMES = ("quick", "short", "full")
SCALE = os.environ.get("NATSBRIDGE_FAULTS", "quick")
if SCALE not in NAMES:
    raise ValueError(f"NATSBRIDGE_FAULTS is {SCALE!r}, and not one of {', '.join(NAMES)}")
SEED = os.environ.get("NATSBRIDGE_SEED") or str(time.time_ns() // 1_000_000 % 1_000_000_000)


def runs(quick: int, full: int, short: int | None = None) -> int:
    """How often something is done. short: less than in full, for what takes too long for CI."""
    return {"quick": quick, "short": full if short is None else short, "full": full}[SCALE]


def dice(name: str) -> random.Random:
    """The same dice for the same seed and name."""
    return random.Random(f"{SEED} {name}")
