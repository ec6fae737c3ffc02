"""micro-nats in bench.py; arguments and output as bench_device.py, and before "ready" the heap
that its import took.

It needs logging, datetime and base64 of micropython-lib, which pip can't install. None of them is
used in what is measured: empty ones stand in, and their heap is not counted.
"""

import asyncio
import gc
import os
import sys
import time


class Standin:
    """A module of which nothing is used but a logger; an error it logs is the end."""

    datetime = timezone = None

    def getLogger(self, name):
        return self

    def info(self, *text):
        pass

    debug = warning = info

    def error(self, *text):
        print(*text)
        sys.exit(1)


sys.modules["logging"] = sys.modules["datetime"] = sys.modules["base64"] = Standin()
gc.collect()
before = gc.mem_alloc()

from micro_nats.client import Client  # noqa: E402
from micro_nats.model import ServerContext  # noqa: E402

gc.collect()
print("import", gc.mem_alloc() - before)

job, subject, path = sys.argv[1:4]
count = int(sys.argv[4])


class Inbox:
    """Counts messages; a large one goes into a file."""

    count = 0

    async def message(self, msg):
        data = msg.get_payload()
        if job == "receive":
            with open("%s/%d" % (path, self.count), "wb") as f:
                f.write(data)
        elif len(data) != 16:
            raise ValueError
        self.count += 1


async def do(client, inbox):
    if job == "send":
        with open(path, "rb") as f:
            for _ in range(count):
                f.seek(0)
                await client.publish("bench.out", f.read(), wait=True)
    elif job == "publish":
        data = b"x" * 16
        for _ in range(count):
            await client.publish("bench.out", data, wait=True)
    else:
        n = inbox.count + count
        while inbox.count < n:
            await asyncio.sleep(0)


async def main():
    client = Client(ServerContext(os.getenv("NATS_URL")))
    await client.connect()
    while not client.is_connected():
        await asyncio.sleep(0.001)
    inbox = Inbox()
    await client.subscribe(subject, inbox.message)
    await asyncio.sleep(0.1)
    print("ready")
    while sys.stdin.readline():
        t = time.ticks_us()
        await do(client, inbox)
        print(time.ticks_diff(time.ticks_us(), t))
    await client.disconnect()


asyncio.run(main())
