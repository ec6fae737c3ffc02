"""make footprint: the heap that the firmware's code holds, beside its budgets and ceilings.

With --json it prints only {what: bytes held}.

The modules of each job are those that the unix port has loaded after really doing it against real
servers, in a heap so large that nothing is dropped. They are then loaded into a fresh heap, and
counted is gc.mem_alloc() after gc.collect(), less the same before the first import.

Names (of attributes, functions and parameters, and strings of up to 10 characters in the code) stay
in the heap for ever, also when their module is dropped. Counted are those that are there after a
job, with the program's own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import natsbridge
from natsbridge.fileserver import FileServer
from stage import BUILD, ToolError, device, nats_server

#: Bytes: what the code shall hold, and what it may not exceed (it fails the build). A saving lowers
#: the ceiling; where budget and ceiling meet, the goal is reached.
BUDGETS = {
    "connect + direct send": (20 * 1024, 31_000),
    "connect + direct receive": (20 * 1024, 40_700),
    "direct and link, both ways": (32 * 1024, 63_400),
    "JetStream, beyond that": (6 * 1024, 6 * 1024),
    "a spool, beyond JetStream": (3 * 1024, 3 * 1024),
    "MQTT, beyond direct and link": (5 * 1024, 5 * 1024),
    "every module at once": (56 * 1024, 136_300),
}
#: Names that may be there after a job.
NAMES = {
    "connect + direct send": 300,
    "connect + direct receive": 365,
    "direct and link, both ways": 490,
}
#: Numbers of names from which on their table is another 3.5, 7, 14 KB larger (py/qstr.c).
TABLES = (300, 620, 1260)
#: The modules of what some devices need beyond direct and link.
JETSTREAM = ("headers", "jetstream", "stored", "inbox")
BEYOND = {
    # headers are NATS's own
    "JetStream, beyond that": (JETSTREAM[:1], JETSTREAM[1:]),
    "a spool, beyond JetStream": (JETSTREAM, ("spool",)),
    "MQTT, beyond direct and link": ((), ("mqtt",)),
}
#: Arguments that make the heap's names begin elsewhere in their chunks of 128 bytes: what those
#: waste is chance, so that the mean is taken.
SHIFTS = [["-", *(f"{i:013}" for i in range(n))] for n in range(8)]
#: The heap to measure in, and the one to try where that is too small.
HEAPS = ("64K", "256K")


async def run(heap: str, nats_url: str, file_url: str, *arguments: str) -> str:
    """What the device prints. Raises ToolError if it fails."""
    async with device("footprint_device", heap, nats_url, file_url, *arguments) as child:
        out = (await child.communicate())[0].decode()
        if child.returncode:
            raise ToolError(out)
        return out


async def loaded(
    nats_url: str, file_url: str, job: str, folder: Path
) -> tuple[list[str], set[str]]:
    """The modules that a job loads, and the names that are there then."""
    out = await done(nats_url, file_url, job, folder)
    modules, _, names = out.partition("qstr pool:")
    return modules.split(), set(names.split("\nQ(")[1:])


async def done(nats_url: str, file_url: str, job: str, folder: Path) -> str:
    """What the device prints about a job."""
    if job != "receive" and job != "receive-link":
        return await run("2M", nats_url, file_url, job, str(folder))
    async with await natsbridge.connect(nats_url) as nc:
        sub = await nc.subscribe("footprint.host")
        doing = asyncio.create_task(run("2M", nats_url, file_url, "receive", str(folder)))
        if await sub.next(20) is None:
            raise ToolError("the device did not get ready")
        await natsbridge.smartsend(
            "footprint.device",
            [("a", b"a" * 3000, "binary"), ("d", {"a": 1}, "dictionary")],
            nats_connection=nc,
            fileserver_url=file_url,
            size_threshold=1 if job == "receive-link" else 500_000,
        )
        return await doing


async def measure(nats_url: str, file_url: str, names: list[str]) -> tuple[str, dict[str, int]]:
    """The heap size that was needed, and the bytes of each module; "=" is all together."""
    for heap in HEAPS:
        try:
            outs = [await run(heap, nats_url, file_url, "load", *names, *s) for s in SHIFTS]
        except ToolError as e:
            if "MemoryError" not in str(e) or heap == HEAPS[-1]:
                raise
            continue
        total: Counter[str] = Counter()
        for line in "".join(outs).splitlines():
            total[line.split()[0]] += int(line.split()[1])
        return heap, {name: held // len(outs) for name, held in total.items()}
    raise AssertionError


async def measurements() -> AsyncIterator[tuple[str, str, dict[str, int]]]:
    """What is measured, the heap size that was needed, and the bytes of each module; under "names"
    the number of names."""
    every = sorted(p.stem for p in (BUILD / "firmware/natsbridge").glob("[!_]*.mpy"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "a.bin").write_bytes(b"a" * 3000)
        (folder / "store").mkdir()
        async with nats_server(folder) as nats_url, FileServer(folder / "store") as server:
            at = nats_url, server.url
            jobs = {
                name: await loaded(*at, name, folder)
                for name in ("send", "receive", "link", "receive-link")
            }
            both = list(dict.fromkeys(name for modules, _ in jobs.values() for name in modules))
            names = set().union(*(names for _, names in jobs.values()))
            sets = {
                "connect + direct send": jobs["send"],
                "connect + direct receive": jobs["receive"],
                "direct and link, both ways": (both, names),
                "every module at once": (list(dict.fromkeys([*both, *every])), set()),
            }
            for what in BUDGETS:
                if what in BEYOND:
                    before, more = BEYOND[what]
                    less = (await measure(*at, [*both, *before]))[1]["="]
                    heap, bytes_of = await measure(*at, [*both, *before, *more])
                    yield what, heap, {"=": bytes_of["="] - less}
                else:
                    modules, names = sets[what]
                    heap, bytes_of = await measure(*at, modules)
                    yield what, heap, {**bytes_of, "names": len(names)}


async def footprint() -> bool:
    """Print the tables: whether no ceiling is exceeded."""
    good = True
    names = {}
    print(f"{'heap of the code, bytes (64-bit unix port)':44}{'held':>8}{'goal':>8}")
    async for what, heap, bytes_of in measurements():
        budget, ceiling = BUDGETS[what]
        held = bytes_of["="]
        verdict = "ok" if held <= budget else f"{held / budget:.2f} of it"
        if held > ceiling:
            good = False
            verdict += f"; OVER ITS CEILING, {ceiling:,}"
        elif heap != HEAPS[0]:
            verdict += f"; loads in {heap} only"
        print(f"  {what:42}{held:>8,}{budget:>8,}  {verdict}")
        names[what] = bytes_of.pop("names", 0)
    print(f"\n{'names in the heap, and when their table grows':44}{'held':>8}{'limit':>8}")
    for what, ceiling in NAMES.items():
        limit = min(n for n in TABLES if n >= names[what])
        verdict = "ok"
        if names[what] > ceiling:
            good = False
            verdict = f"OVER ITS CEILING, {ceiling}"
        print(f"  {what:42}{names[what]:>8}{limit:>8}  {verdict}")
    print(f"\n{'each module, as loaded in this order':44}{'held':>8}{'.mpy':>8}")
    for name, held in bytes_of.items():
        if name != "=":
            size = (BUILD / f"firmware/natsbridge/{name}.mpy").stat().st_size
            print(f"  {name:42}{held:>8,}{size:>8,}")
    return good


async def as_json() -> bool:
    """Print what each job holds, for programs."""
    print(json.dumps({what: bytes_of["="] async for what, _, bytes_of in measurements()}))
    return True


if __name__ == "__main__":
    try:
        job = as_json if sys.argv[1:] == ["--json"] else footprint
        sys.exit(0 if asyncio.run(job()) else "footprint failed: a ceiling is exceeded")
    except ToolError as e:
        sys.exit(f"footprint failed: {e}")
