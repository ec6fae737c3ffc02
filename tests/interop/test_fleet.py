"""Many devices behind one broker and one file server, while the broker is restarted: nothing that
they sent is lost, and nothing is taken for another's."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from monitored import MonitoredBroker
from numbered import PATIENCE_S, Peer, Start, payload

DEVICES = int(os.environ.get("NATSBRIDGE_FLEET", "200"))
#: Messages of each device: three of each size.
COUNT = 12
RESTARTS = 3
#: Seconds after which a device sends a message again. Less than a busy desktop needs for a message
#: of each device, and ever more of what it gets is what it has.
AGAIN_S = 6
#: Messages that the desktop works on at a time.
WORKERS = 4
#: Seconds for each step of the whole.
MOST_S = 120


class Desk:
    """Receives, compares and acknowledges."""

    def __init__(self) -> None:
        #: How often each attempt came: (sender, number, attempt).
        self.attempts: Counter[tuple[str, int, int]] = Counter()
        #: What came, without the repetitions.
        self.numbers: set[tuple[str, int]] = set()
        self.wrong: list[Any] = []
        self.errors: set[str] = set()

    async def work(self, nc: Any, sub: Any, files: str) -> None:
        """Take messages until the subscription ends."""
        async for msg in sub:
            try:
                env = await natsbridge.smartreceive(msg, fileserver_url=files)
                self.take(env)
                await natsbridge.smartsend(
                    f"numbered.{env['sender_name']}",
                    [],
                    msg_purpose="ACK",
                    receiver_id=env["sender_id"],
                    reply_to_msg_id=env["msg_id"],
                    nats_connection=nc,
                )
            except natsbridge.NATSBridgeError as e:
                self.errors.add(e.code)

    def take(self, env: dict[str, Any]) -> None:
        """Note a message, and whether it is what this sender's message of that number should be."""
        sender, n, attempt = env["msg_id"].split("/")
        same = env["payloads"] == [(n, payload(sender, int(n)), "binary")]
        if not same or (env["sender_name"], env["sender_id"]) != (sender, f"{sender}-id"):
            self.wrong.append(env)
        self.attempts[sender, int(n), int(attempt)] += 1
        self.numbers.add((sender, int(n)))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MonitoredBroker]:
    with MonitoredBroker(tmp_path) as one:
        yield one


def connections(broker: MonitoredBroker) -> int:
    """How many clients it has."""
    return int(broker.ask("varz").get("connections", 0))


class Fleet:
    """The devices. All end with the pipe that is their input."""

    def __init__(self, folder: Path, files: str) -> None:
        self._start = Start(folder, files, COUNT, AGAIN_S)
        self._end, self._open = os.pipe()
        self.devices: list[Peer] = []

    def start(self, broker: str) -> None:
        """Start all."""
        for i in range(DEVICES):
            device = self._start.device(broker, f"d{i:04}", "desk", stdin=self._end)
            self.devices.append(device)

    def done(self) -> bool:
        """Whether each has all its acknowledgements."""
        return all(device.events("done") for device in self.devices)

    def ended(self) -> list[str]:
        """The last words of those that have ended by themselves."""
        return [device.tail() for device in self.devices if device.process.poll() is not None]

    def end(self) -> list[int]:
        """Let all end: their exit codes."""
        os.close(self._open)
        self._open = -1
        return [device.process.wait(PATIENCE_S) for device in self.devices]

    def stop(self) -> None:
        """End those that have not ended."""
        for device in self.devices:
            device.stop()
        os.close(self._end)
        if self._open >= 0:
            os.close(self._open)


@pytest.fixture
def fleet(file_url: str, tmp_path: Path) -> Iterator[Fleet]:
    devices = Fleet(tmp_path, file_url)
    yield devices
    devices.stop()


async def until(condition: Callable[[], bool]) -> bool:
    """Wait until it holds: whether it did so in time."""
    deadline = asyncio.get_running_loop().time() + MOST_S
    while not await asyncio.to_thread(condition):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


@pytest.mark.fleet
@pytest.mark.asyncio
async def test_nothing_of_many_devices_is_lost_or_taken_for_another_s(
    broker: MonitoredBroker, fleet: Fleet, file_url: str
) -> None:
    desk = Desk()
    nc = await natsbridge.connect(broker.url, name="desk", id="desk-id", base_delay=20)
    sub = await nc.subscribe("numbered.desk")
    workers = [asyncio.create_task(desk.work(nc, sub, file_url)) for _ in range(WORKERS)]
    await asyncio.to_thread(fleet.start, broker.url)
    for n in range(1, RESTARTS + 1):
        part = DEVICES * COUNT * n // (RESTARTS + 1)
        assert await until(lambda part=part: len(desk.numbers) >= part), len(desk.numbers)
        broker.kill()
        await asyncio.to_thread(broker.start)
        # Every device comes back, the desktop too; each restart has its own connections.
        back = await until(lambda: connections(broker) == DEVICES + 1)
        assert back, (connections(broker), fleet.ended())
    assert await until(fleet.done), [d.tail() for d in fleet.devices if not d.events("done")]
    await nc.close()
    await asyncio.gather(*workers)
    assert await asyncio.to_thread(fleet.end) == [0] * DEVICES

    names = [f"d{i:04}" for i in range(DEVICES)]
    assert desk.numbers == {(name, n) for name in names for n in range(1, COUNT + 1)}
    assert desk.wrong == []
    assert desk.errors <= {"NATS_CONNECTION_FAILED"}  # of acknowledgements: they are lost
    assert [attempt for attempt, n in desk.attempts.items() if n > 1] == [], "delivered twice"
    for device in fleet.devices:
        assert device.events("acked") == [[str(n)] for n in range(1, COUNT + 1)]
        assert device.events("wrong") == []
