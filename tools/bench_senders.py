"""What bench_host.py has send to it: many devices at once, in a process of their own."""

from __future__ import annotations

import asyncio
import sys

import natsbridge


async def send(subject: str, senders: int, count: int) -> None:
    """Connect all of them, wait for a line, and have each send its messages."""
    devices = [await natsbridge.connect(name=f"device-{i}", timeout=30) for i in range(senders)]

    async def work(i: int) -> None:
        for n in range(count):
            reading = {"device": i, "number": n, "celsius": 21.5}
            data = [("reading", reading, "dictionary"), ("block", bytes(1024), "binary")]
            await natsbridge.smartsend(subject, data, nats_connection=devices[i])
            await asyncio.sleep(0)  # nobody waits until another one has sent all
        await devices[i].flush(60)

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(work(i) for i in range(senders)))
    for device in devices:
        await device.close()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
