"""With what an application already has: nats-py's clients, subscriptions, callbacks and JetStream,
and a running event loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

import natsbridge
from conftest import NatsServer
from natsbridge.errors import NATSBridgeError

DATA = [("m", "x", "text"), ("b", b"y" * 20_000, "binary"), ("l", b"z" * 600_000, "binary")]


@pytest.fixture(scope="module")
def jetstream_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    folder = tmp_path_factory.mktemp("jetstream")
    with NatsServer(folder, "-js", "-sd", str(folder / "store")) as server:
        yield server


@pytest_asyncio.fixture
async def plain(
    jetstream_server: NatsServer, file_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    monkeypatch.setenv("FILESERVER_URL", file_url)
    client = await nats.connect(jetstream_server.url, name="app")
    yield client
    await client.close()


@pytest.mark.asyncio
class TestNatsPy:
    async def test_a_subscription(self, plain: Client) -> None:
        sub = await plain.subscribe("app.sub")
        env, _ = await natsbridge.smartsend("app.sub", DATA, nats_connection=plain)
        assert env["sender_name"] == "app"
        assert [p["transport"] for p in env["payloads"]] == ["direct", "direct", "link"]
        got = await natsbridge.smartreceive(await sub.next_msg(5))
        assert got["payloads"] == DATA

    async def test_a_callback(self, plain: Client) -> None:
        got: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        async def callback(msg: Msg) -> None:
            got.set_result(await natsbridge.smartreceive(msg))
            await msg.respond(b"done")

        await plain.subscribe("app.callback", cb=callback)
        answers = await plain.subscribe("app.answer")
        await natsbridge.smartsend(
            "app.callback", DATA, nats_connection=plain, reply_to="app.answer"
        )
        assert (await asyncio.wait_for(got, 5))["payloads"] == DATA
        assert (await answers.next_msg(5)).data == b"done"

    async def test_iteration_and_a_failure_that_is_told(self, plain: Client) -> None:
        sub = await plain.subscribe("app.iterate")
        answers = await plain.subscribe("app.nack")
        await plain.publish("app.iterate", b"no envelope")
        await natsbridge.smartsend(
            "app.iterate", [("m", "x" * 100, "text")], nats_connection=plain, reply_to="app.nack"
        )
        codes = []
        async for msg in sub.messages:
            try:
                await natsbridge.smartreceive(msg, nack=True, max_payload_size=10)
            except NATSBridgeError as e:
                codes.append(e.code)
            if len(codes) == 2:
                break
        assert codes == ["INVALID_ENVELOPE", "PAYLOAD_TOO_LARGE"]
        # It subscribes to that subject itself, and so does not answer on it.
        with pytest.raises(nats.errors.TimeoutError):
            await answers.next_msg(0.1)


@pytest.mark.asyncio
class TestJetStream:
    async def test_a_pull_subscription_with_acks(self, plain: Client) -> None:
        name = f"S{uuid.uuid4().hex[:8]}"
        js = plain.jetstream()
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        for n in range(3):
            await natsbridge.smartsend(
                f"{name}.data", [*DATA, ("n", n, "dictionary")], nats_connection=plain
            )
        sub = await js.pull_subscribe(f"{name}.data", "worker")
        for msg in await sub.fetch(3, timeout=5):
            got = await natsbridge.smartreceive(msg)
            assert got["payloads"][:3] == DATA
            assert got["payloads"][3][1] == msg.metadata.sequence.stream - 1
            await msg.ack_sync()
        info = await sub.consumer_info()
        assert (info.num_ack_pending, info.num_pending) == (0, 0)

    async def test_what_could_not_be_received_comes_again(self, plain: Client) -> None:
        name = f"S{uuid.uuid4().hex[:8]}"
        js = plain.jetstream()
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        await natsbridge.smartsend(f"{name}.data", DATA, nats_connection=plain)
        sub = await js.pull_subscribe(f"{name}.data", "worker")
        [msg] = await sub.fetch(1, timeout=5)
        with pytest.raises(NATSBridgeError):
            await natsbridge.smartreceive(msg, max_payload_size=10)
        await msg.nak()
        [again] = await sub.fetch(1, timeout=5)
        assert again.metadata.num_delivered == 2
        assert (await natsbridge.smartreceive(again))["payloads"] == DATA
        await again.ack()

    async def test_a_publish_that_jetstream_acknowledges(self, plain: Client) -> None:
        name = f"S{uuid.uuid4().hex[:8]}"
        js = plain.jetstream()
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        env, text = await natsbridge.smartsend("app.elsewhere", DATA, nats_connection=plain)
        ack = await js.publish(
            f"{name}.data", text.encode(), headers={"Nats-Msg-Id": env["msg_id"]}
        )
        assert ack.seq == 1
        push = await js.subscribe(f"{name}.data")
        assert (await natsbridge.smartreceive(await push.next_msg(5)))["payloads"] == DATA


NOTEBOOK = """
import asyncio

# What ipykernel does with a cell: it runs as plain code, inside a callback of a running loop
# that has other work (the kernel's own sockets) as well.
CELLS = [
    "from natsbridge import sync as natsbridge; nc = natsbridge.connect(name='notebook')",
    "sub = nc.subscribe('app.notebook')",
    "env, text = natsbridge.smartsend('app.notebook', [('m', 'x', 'text'), ('l', bytes(600_000),"
    " 'binary')], nats_connection=nc)",
    "got = natsbridge.smartreceive(sub.next(5))",
    "print([(name, len(value)) for name, value, kind in got['payloads']])",
    "nc.close()",
]

async def kernel():
    names = {}
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.001)

    task = asyncio.ensure_future(heart())
    for cell in CELLS:
        await asyncio.sleep(0.01)
        exec(compile(cell, "cell", "exec"), names)
        assert asyncio.get_running_loop().is_running()
    await asyncio.sleep(0.01)
    task.cancel()
    assert beats > len(CELLS)
    # A cell that awaits uses the coroutines, on the kernel's own loop.
    import natsbridge
    async with await natsbridge.connect() as nc:
        sub = await nc.subscribe("app.await")
        await natsbridge.smartsend("app.await", [("m", "y", "text")], nats_connection=nc)
        print((await natsbridge.smartreceive(await sub.next(5)))["payloads"])

asyncio.run(kernel())
"""


def test_cells_of_a_notebook(nats_url: str, file_url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", NOTEBOOK],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
        env={**os.environ, "NATS_URL": nats_url, "FILESERVER_URL": file_url},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[('m', 1), ('l', 600000)]\n[('m', 'y', 'text')]\n"
