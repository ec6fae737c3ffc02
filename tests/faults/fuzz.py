"""Fuzzes parsers, in a process of its own: python fuzz.py SEED "TARGET=COUNT"...

Prints what came of it as JSON. The same seed and count make the same inputs.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    for _folder in ("", "conformance", "firmware"):
        sys.path.append(str(Path(__file__).parents[1] / _folder))

from fuzz_targets import TARGETS, Target, alone
from mutator import Mutator

#: Seconds of the processor's time that an input may take.
LIMIT_S = 1.0
#: Seconds after which it waits for what never comes, however much the machine has to do.
STUCK_S = 20.0
#: Failures after which there is no point in going on.
ENOUGH = 10


class TooLong(BaseException):
    """An input took longer than that. No code under test catches it."""


def too_long(*_: object) -> None:
    raise TooLong


def calm() -> None:
    """Stop the timers."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz(target: Target, seed: str, count: int) -> dict[str, Any]:
    """Run a target on its seeds, and on what can be made of them, `count` inputs in all."""
    seeds = target.seeds()
    mutate = Mutator(seeds, target.tokens, random.Random(seed))
    labels: Counter[str] = Counter()
    failures: dict[str, dict[str, str]] = {}
    slowest = 0.0
    inputs = 0
    clock = time.process_time
    while inputs < count and len(failures) < ENOUGH:
        data = seeds[inputs] if inputs < len(seeds) and count > len(seeds) else mutate()
        inputs += 1
        start = clock()
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        signal.setitimer(signal.ITIMER_REAL, STUCK_S)
        try:
            labels[target.run(data)] += 1
        except (Exception, TooLong) as e:
            calm()
            where = traceback.extract_tb(e.__traceback__)[-1]
            failures.setdefault(
                f"{type(e).__name__} in {where.filename}:{where.lineno}",
                {"input": repr(data), "error": "".join(traceback.format_exception(e)[-6:])},
            )
        slowest = max(slowest, clock() - start)
    calm()
    return {"inputs": inputs, "labels": labels, "slowest": slowest, "failures": failures}


def main(seed: str, *jobs: str) -> None:
    alone()
    signal.signal(signal.SIGPROF, too_long)
    signal.signal(signal.SIGALRM, too_long)
    found = {}
    for job in jobs:
        name, _, count = job.partition("=")
        found[name] = fuzz(TARGETS[name], f"{seed} {name}", int(count))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
