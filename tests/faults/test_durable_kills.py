"""What was sent durably is in the stream, once, however often the broker is killed meanwhile."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import nats
import pytest

from device import command, compiled, main_of
from figures import Figures
from monitored import MonitoredBroker
from natsbridge.reader import cut, read_envelope
from scale import runs

SCRIPT = Path(__file__).with_name("durable_sender_device.py")
SPOOL_SCRIPT = Path(__file__).with_name("spool_killed_device.py")
DEVICE_KILLS = runs(quick=6, full=100)
COUNT = runs(quick=150, full=10_000)
KILLS = runs(quick=2, full=50)
#: Seconds for all of it.
MOST_S = 60 + COUNT / 50


def with_streams(folder: Path) -> MonitoredBroker:
    """A broker that has its streams again when it comes back."""
    return MonitoredBroker(folder, f'jetstream {{store_dir: "{folder / "streams"}"}}')


async def make_stream(url: str) -> None:
    """The stream that it all goes to."""
    nc = await nats.connect(url)
    await nc.jetstream().add_stream(name="DURABLE", subjects=["durable.>"])
    await nc.close()


async def numbers(url: str) -> list[int]:
    """What the stream has."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    info = await js.stream_info("DURABLE")
    sub = await js.subscribe("durable.>", ordered_consumer=True)
    found = []
    for _ in range(info.state.messages):
        msg = await sub.next_msg(10)
        env = read_envelope(cut(msg.data))
        found.append(int(env.fields["msg_id"].partition("-")[2]))
    await nc.close()
    return found


@pytest.mark.parametrize("side", ["device", "desktop"])
def test_each_durable_message_is_stored_once_over_kills_of_the_broker(
    side: str, tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    broker = with_streams(tmp_path)
    line, place = [sys.executable, "-u", str(SCRIPT)], {}
    if side == "device":
        line, place = command(main_of(SCRIPT, tmp_path), heap="100K", path=compiled())
    kills = sorted(rng.sample(range(COUNT - 1), KILLS))
    url = broker.url
    asyncio.run(make_stream(url))
    sender = subprocess.Popen([*line, url, str(COUNT)], stdout=subprocess.PIPE, text=True, **place)
    assert sender.stdout is not None
    stop = threading.Timer(MOST_S, sender.kill)
    stop.start()
    said = ""
    try:
        for said in sender.stdout:
            if kills and said == f"{kills[0]}\n":
                kills.pop(0)
                time.sleep(rng.uniform(0, 0.002))  # in the middle of whatever comes next
                broker.kill()
                time.sleep(rng.uniform(0, 0.1))
                broker.start()
        assert (said, kills) == ("done\n", [])
        found = asyncio.run(numbers(url))
    finally:
        stop.cancel()
        sender.kill()
        sender.communicate()
        broker.kill()
    lost = COUNT - len(set(found))
    twice = len(found) - len(set(found))
    figures.note(
        15,
        f"durable-{side}",
        f"{side}: {COUNT:,} durable sends over {KILLS} kills, {lost} lost, {twice} twice",
        not lost and not twice,
    )
    assert (lost, twice) == (0, 0)


def test_a_spool_loses_nothing_over_kills_of_the_device(
    tmp_path: Path, rng: random.Random, figures: Figures
) -> None:
    """What send() took is in the stream in the end; what is there twice has one msg_id, of which
    the stream keeps the first."""
    broker = with_streams(tmp_path)
    url = broker.url
    asyncio.run(make_stream(url))
    main = main_of(SPOOL_SCRIPT, tmp_path)
    spool = tmp_path / "spool"
    taken = kills = 0
    there = True
    try:
        while kills < DEVICE_KILLS:
            arguments = url, str(spool), str(taken), str(1 << 20)
            line, place = command(main, *arguments, heap="160K", path=compiled())
            device = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, **place)
            time.sleep(rng.uniform(0.02, 0.4))
            if rng.random() < 0.3:
                broker.kill() if there else broker.start()
                there = not there
                time.sleep(rng.uniform(0, 0.3))
            device.kill()
            out, _ = device.communicate()
            assert "Error" not in out, out
            kills += 1
            # A number that was cut off in the middle was not said.
            said = [int(text) for text in out.split("\n")[:-1]]
            taken = said[-1] + 1 if said else taken
        if not there:
            broker.start()
        waited = len(list(spool.iterdir()))
        arguments = url, str(spool), str(taken), str(taken + 5)
        line, place = command(main, *arguments, heap="160K", path=compiled())
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, **place)
        assert done.stdout.splitlines()[-1] == "done 0 0", done.stdout + done.stderr
        found = asyncio.run(numbers(url))
    finally:
        broker.kill()
    lost = set(range(taken + 5)) - set(found)
    twice = len(found) - len(set(found))
    figures.note(
        15,
        "spool-device",
        f"device killed {kills} times with a spool: of {taken + 5:,} messages {len(lost)} lost,"
        f" {twice} twice ({waited} waited at the end)",
        not lost and not twice,
    )
    assert list(spool.iterdir()) == []
    assert lost == set()
    assert twice == 0
