"""make bench: the device's rates beside bare loops, and beside what else a user could take.

Every rate is a median over several rounds in which all players of a job take turns, and every
ratio the median of the rounds' ratios: machines differ, and a machine differs from itself. The
heaps are those of the unix port, of 64 bits; a 32-bit board needs less.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import footprint
from bench_rig import MOST_KB, OURS, REQUEST, Job, Player, Rig, rig
from stage import BUILD, MICROPYTHON, ToolError, run_bench

HEAP_KB = 64
MICRONATS = "bench_micronats_device"
UMQTT = "bench_umqtt_device"
REQUESTS = "bench_requests_device"
MESSAGING = (MICRONATS, UMQTT)
JOBS = (
    Job("send direct", "send", 99_999, 10, 0.8, MESSAGING),
    Job("send direct", "send", 499_999, 2, 0.8),
    Job("receive direct", "receive", 99_999, 10, 0.65, MESSAGING),
    Job("receive direct", "receive", 499_999, 2, 0.65),
    Job("publish", "publish", 16, 2000, 0.35, MESSAGING),
    Job("receive", "take", 16, 2000, 0.5, MESSAGING),
    Job("MQTT QoS 1 to umqtt", "acknowledged", 16, 500, 40, bare=UMQTT),
    Job("acknowledged send", "keep", 16, 200, 0.5, bare=REQUEST),
    Job("upload", "upload", 20_000_000, 1, 0.8, (REQUESTS,)),
    Job("download", "download", 20_000_000, 1, 0.8, (REQUESTS,)),
)


@dataclass
class Entry:
    """What one program needs and does in one job; `error` if it can't."""

    program: str
    heap_kb: int = 0
    imported: int = 0
    error: str = ""
    rate: float = 0
    measured_kb: int = HEAP_KB


class NotEnough(Exception):
    """The named peer can't do its job round after round in the heap that it has."""


async def modules(r: Rig, job: Job) -> int:
    """Bytes of heap that our modules for a job take."""
    async with r.play(job, OURS, 2048) as player:
        await r.go(job, player)
        names = (await player.finish()).split()
    return (await footprint.measure(r.nats_url, r.file_url, names))[1]["="]


def share(job: Job, program: str) -> Job:
    """What a program does of a job in a round.

    Peers' large messages are few: some take a quarter of a second for each. So are those that
    umqtt.simple waits for: 40 ms each.
    """
    waits = program == UMQTT == job.bare
    few = waits or (job.size > 16 and program not in (OURS, job.bare))
    return replace(job, count=min(job.count, 5)) if few else job


async def race(r: Rig, job: Job, heaps: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """The rates of every program, which take turns; a first round is for warming up.

    Raises NotEnough if a peer can't keep it up in its heap.
    """
    rates: dict[str, list[float]] = {program: [] for program in heaps}
    async with contextlib.AsyncExitStack() as stack:
        players: list[tuple[Player, Job]] = []
        for program, kb in heaps.items():
            task = share(job, program)
            players.append((await stack.enter_async_context(r.play(task, program, kb)), task))
        for _ in range(rounds + 1):
            for player, task in players:
                try:
                    us = await r.go(task, player)
                except ToolError as e:
                    if player.program in (OURS, job.bare):
                        raise
                    raise NotEnough(player.program) from e
                rates[player.program].append(task.rate(us))
            players.reverse()
        for player, _ in players:
            await player.finish()
    return {program: found[1:] for program, found in rates.items()}


async def measure(r: Rig, job: Job, rounds: int, quick: bool) -> list[Entry]:
    """Measure a job, and print its line of the first table."""
    await r.lay(job)
    entries = [Entry(program) for program in (OURS, *job.peers)] if job.peers else []
    few = replace(job, count=1 if job.size > 16 else 10)
    for entry in entries:
        try:
            step_kb, times = (64, 1) if quick else (4, 3)
            entry.heap_kb, entry.imported = await r.smallest(few, entry.program, step_kb, times)
            if entry.program == OURS:
                entry.imported = await modules(r, few)
            while entry.measured_kb < entry.heap_kb:
                entry.measured_kb *= 2
        except ToolError as e:
            entry.error = str(e)
    while True:
        heaps = {job.bare: HEAP_KB, OURS: HEAP_KB}
        heaps.update({e.program: e.measured_kb for e in entries if not e.error})
        try:
            rates = await race(r, job, heaps, rounds)
            break
        except NotEnough as e:
            [entry] = [entry for entry in entries if entry.program == str(e)]
            entry.measured_kb *= 2
            if entry.measured_kb > MOST_KB:
                entry.error = str(e.__cause__)
    for entry in entries:
        if not entry.error:
            entry.rate = statistics.median(rates[entry.program])
    ratios = [ours / bare for ours, bare in zip(rates[OURS], rates[job.bare], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{job.title:25}{_figure(statistics.median(rates[job.bare])):>7}"
        f"{_figure(statistics.median(rates[OURS])):>8} {job.unit:5}{_ratio(ratio):>6}"
        f"  {_ratio(min(ratios)) + '-' + _ratio(max(ratios)):9}{job.goal:>6}"
        f"{'ok' if ratio >= job.goal else 'below goal':>11}",
        flush=True,
    )
    return entries


def _figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def version() -> str:
    """MicroPython's version."""
    code = "import sys; print('.'.join(str(n) for n in sys.implementation[1][:3]))"
    try:
        done = subprocess.run([MICROPYTHON, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise ToolError(f"{MICROPYTHON} can't be run: {e}") from e
    return done.stdout.strip()


def names() -> dict[str, str]:
    """What the programs are called, with the versions that are here."""
    path = [str(BUILD / "peers/pip")]
    found = {d.name: d.version for d in importlib.metadata.distributions(path=path)}
    return {
        OURS: "NATSBridge",
        MICRONATS: f"micro-nats {found.get('micro-nats', '')}",
        UMQTT: f"umqtt.simple {found.get('micropython-umqtt.simple', '')}",
        REQUESTS: "requests",
    }


async def bench(rounds: int, quick: bool) -> None:
    """Print both tables."""
    print(
        f"MicroPython {version()}, unix port, heap {HEAP_KB} KB, over loopback."
        f" Medians of {rounds} rounds,\n"
        f"of {(rounds + 1) // 2} for 20 MB.\n"
        "Bare: a loop for this one job on a blocking socket, with the same buffers and\n"
        "hashes, and no checks; for MQTT umqtt.simple; for acknowledged sends nc.request\n"
        "with a text that is ready. Ratio: ours to bare, round by round.\n\n"
        f"{'':25}{'bare':>7}{'ours':>8} {'':5}{'ratio':>6}  {'min-max':9}{'goal':>6}"
    )
    tables = []
    with tempfile.TemporaryDirectory() as scratch:
        async with rig(Path(scratch)) as r:
            for job in JOBS:
                some = rounds if job.size < 1_000_000 or quick else (rounds + 1) // 2
                if quick:
                    count = 200 if job.size == 16 else 1
                    job = replace(job, size=min(job.size, 1_000_000), count=count)
                entries = await measure(r, job, some, quick)
                if entries:
                    tables.append((job, entries))
    print(
        "\nCode: heap that the imports take. Least: the smallest heap that does the job.\n"
        "Rate: in 64 KB, or what is said. Peers move the bytes as they are, without\n"
        "envelope or digest; requests is streamed by hand, past its own .content.\n\n"
        f"{'':44}{'code':>9}{'least':>9}{'rate':>18}"
    )
    title = names()
    for job, entries in tables:
        print(job.title)
        for e in entries:
            if e.error:
                print(f"  {title[e.program]:42}can't: {e.error:.29}")
                continue
            heap = f" (in {e.measured_kb} KB)" if e.measured_kb != HEAP_KB else ""
            print(
                f"  {title[e.program] + heap:40}{e.imported:>9,} B{e.heap_kb:>6,} KB"
                f"{_figure(e.rate):>12} {job.unit}"
            )


if __name__ == "__main__":
    run_bench(bench, __doc__)
