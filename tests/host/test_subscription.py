"""subscription: limits and draining; what was sent before the end can be taken, and no more."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from conftest import NatsServer
from natsbridge import client, subscription, sync
from natsbridge.client import Connection
from natsbridge.errors import NATSBridgeError

FakeNats = Callable[..., Awaitable[str]]


async def failure(work: Awaitable[Any]) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await work
    return e.value


async def send(nc: Connection, subject: str, *numbers: int) -> None:
    for n in numbers:
        await nc.publish(subject, b"%d" % n)
    await nc.flush()


async def rest(sub: Any, timeout: float | None = None) -> list[int]:
    """What next() gives until it gives nothing."""
    got = []
    while (msg := await sub.next(timeout)) is not None:
        got.append(int(msg.data))
    return got


@pytest.mark.asyncio
class TestLimit:
    async def test_it_ends_after_so_many_in_all(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.all")
            await send(nc, "l.all", 1, 2)
            assert await sub.next(1) is not None
            await sub.unsubscribe(4)
            await send(nc, "l.all", 3, 4, 5, 6)
            assert await rest(sub) == [2, 3, 4]
            assert await sub.next(0) is None
            assert [msg async for msg in sub] == []
            assert nc.subjects() == []
            await sub.unsubscribe()
            assert (await failure(sub.next())).code == "INVALID_ARGUMENT"

    async def test_an_iteration_ends(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.iter")
            await sub.unsubscribe(3)
            await send(nc, "l.iter", 1, 2)
            task = asyncio.ensure_future(send(nc, "l.iter", 3, 4))
            assert [int(msg.data) async for msg in sub] == [1, 2, 3]
            await task

    async def test_a_waiter_learns_of_it(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.wait")
            await send(nc, "l.wait", 1, 2)
            assert await rest(sub, 0.1) == [1, 2]
            waiting = asyncio.ensure_future(sub.next())
            await asyncio.sleep(0.01)
            await sub.unsubscribe(2)
            assert await asyncio.wait_for(waiting, 1) is None

    @pytest.mark.parametrize("taken", [0, 1, 2, 3])
    async def test_a_limit_that_is_passed_already(self, nats_url: str, taken: int) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.late")
            await send(nc, "l.late", 1, 2, 3, 4)
            await asyncio.sleep(0.05)
            for _ in range(taken):
                await sub.next(1)
            await sub.unsubscribe(2)
            await send(nc, "l.late", 5)
            assert await rest(sub) == [1, 2][taken:]

    async def test_it_can_be_changed(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.change")
            await sub.unsubscribe(10)
            await sub.unsubscribe(2)
            await send(nc, "l.change", 1, 2, 3)
            assert await rest(sub) == [1, 2]
            await sub.unsubscribe(5)
            assert await sub.next() is None

    async def test_all_subscriptions_and_the_limited_one(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            one, _ = await nc.subscribe("l.one"), await nc.subscribe("l.two")
            await one.unsubscribe(1)
            await send(nc, "l.one", 1, 2)
            await send(nc, "l.two", 3)
            assert await rest(nc, 0.2) == [1, 3]

    async def test_dropped_messages_count(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subscription, "MAX_QUEUED_MESSAGES", 1)
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.drop")
            await sub.unsubscribe(3)
            await send(nc, "l.drop", 1, 2, 3, 4)
            await asyncio.sleep(0.05)
            assert await sub.next(1) is not None
            assert (await failure(sub.next(1))).details == {"dropped": 2}
            assert await sub.next() is None

    async def test_it_survives_a_reconnect(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, base_delay=20)
        try:
            before, during = await nc.subscribe("l.before"), await nc.subscribe("l.during")
            await before.unsubscribe(3)
            await send(nc, "l.before", 1, 2)
            await send(nc, "l.during", 1)
            server.stop()
            await asyncio.sleep(0.1)
            await during.unsubscribe(2)
            server = NatsServer(tmp_path, port=server.port)
            await nc.publish("l.before", b"3")
            await send(nc, "l.before", 4)
            await send(nc, "l.during", 2, 3)
            assert await rest(before) == [1, 2, 3]
            assert await rest(during) == [1, 2]
        finally:
            await nc.close()
            server.stop()

    @pytest.mark.parametrize("limit", [-1, 1.5, "2", True, None])
    async def test_bad_limits(self, nats_url: str, limit: Any) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("l.bad")
            assert (await failure(sub.unsubscribe(limit))).code == "INVALID_ARGUMENT"
            await send(nc, "l.bad", 1)
            assert await sub.next(1) is not None


@pytest.mark.asyncio
class TestDrain:
    async def test_what_had_come_can_be_taken(self, nats_url: str) -> None:
        async with (
            await natsbridge.connect(nats_url) as nc,
            await natsbridge.connect(nats_url) as other,
        ):
            sub = await nc.subscribe("d.one")
            await send(other, "d.one", *range(100))
            await sub.drain()
            await send(other, "d.one", 100)
            await sub.drain()
            assert await rest(sub) == list(range(100))
            assert await sub.next(0) is None
            assert nc.subjects() == []
            await sub.unsubscribe()
            await sub.drain()
            assert (await failure(sub.next())).code == "INVALID_ARGUMENT"

    async def test_an_iteration_ends(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("d.iter")
            got = []
            await send(nc, "d.iter", 1, 2, 3)
            async for msg in sub:
                got.append(int(msg.data))
                await sub.drain()
            assert got == [1, 2, 3]

    async def test_a_waiter_learns_of_it(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("d.wait")
            waiting = [asyncio.ensure_future(sub.next()), asyncio.ensure_future(nc.next())]
            await asyncio.sleep(0.01)
            await nc.drain()
            done, _ = await asyncio.wait(waiting, timeout=1)
            assert [task.result() for task in done] == [None, None]

    async def test_the_whole_connection(self, nats_url: str) -> None:
        async with (
            await natsbridge.connect(nats_url) as nc,
            await natsbridge.connect(nats_url) as other,
        ):
            heard = await other.subscribe("d.heard")
            subs = [await nc.subscribe(f"d.all.{n}") for n in range(3)]
            await other.flush()
            for n in range(30):
                await other.publish(f"d.all.{n % 3}", b"%d" % n)
            await other.flush()
            await nc.publish("d.heard", b"1")
            await nc.drain()
            assert await heard.next(1) is not None
            await send(other, "d.all.0", 30)
            assert await rest(nc) == list(range(30))
            assert [await sub.next() for sub in subs] == [None] * 3
            assert await nc.next() is None
            await nc.publish("d.heard", b"an answer")
            again = await nc.subscribe("d.again")
            await send(other, "d.again", 1)
            assert await nc.next(1) is not None
            await again.drain()
            assert await nc.next() is None
            await nc.close()
            assert (await failure(nc.drain())).code == "NATS_CONNECTION_FAILED"
            await again.drain()

    async def test_requests_still_work(self, nats_url: str) -> None:
        async with (
            await natsbridge.connect(nats_url) as nc,
            await natsbridge.connect(nats_url) as other,
        ):
            asked = await other.subscribe("d.ask")
            asking = asyncio.ensure_future(nc.request("d.ask", b""))
            await nc.drain()
            question = await asked.next(1)
            assert question is not None
            await other.publish(question.reply, b"!")
            assert await asking is not None

    async def test_while_the_connection_is_lost(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, base_delay=20)
        try:
            one, two = await nc.subscribe("d.lost"), await nc.subscribe("d.lost")
            await send(nc, "d.lost", 1)
            server.stop()
            await asyncio.sleep(0.1)
            await one.drain()
            assert await rest(one) == [1]
            e = await failure(nc.drain(0.1))
            assert e.code == "NATS_CONNECTION_FAILED"
            server = NatsServer(tmp_path, port=server.port)
            await nc.publish("d.lost", b"2")
            await nc.flush()
            assert await rest(two) == [1]
            assert nc.subjects() == []
        finally:
            await nc.close()
            server.stop()

    async def test_it_waits_for_a_lost_connection_and_is_not_renewed(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, base_delay=20)
        try:
            sub = await nc.subscribe("d.renew")
            server.stop()
            await asyncio.sleep(0.1)
            draining = asyncio.ensure_future(nc.drain())
            await asyncio.sleep(0.1)
            server = NatsServer(tmp_path, port=server.port)
            await draining
            await send(nc, "d.renew", 1)
            assert await sub.next() is None
            assert nc.client.stats["in_msgs"] == 0
        finally:
            await nc.close()
            server.stop()

    async def test_a_server_that_does_not_answer(
        self, fake_nats: FakeNats, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "CLOSE_S", 0.1)
        said = []

        async def one_pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"max_payload":1048576}\r\n')
            while line := await reader.readline():
                said.append(line)
                if line == b"PING\r\n" and said.count(line) < 3:
                    writer.write(b"PONG\r\n")

        nc = await natsbridge.connect(await fake_nats(one_pong))
        sub = await nc.subscribe("a")
        e = await failure(nc.drain(0.1))
        assert "0.1 s" in e.message
        assert b"UNSUB 1 \r\n" in said
        assert await sub.next() is None
        await nc.close()

    async def test_a_bad_timeout(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            assert (await failure(nc.drain(-1))).code == "INVALID_ARGUMENT"


def test_the_synchronous_face(nats_url: str) -> None:
    with sync.connect(nats_url) as nc:
        one, two = nc.subscribe("f.one"), nc.subscribe("f.two")
        one.unsubscribe(2)
        seen: list[bytes] = []
        thread = threading.Thread(target=lambda: seen.extend(bytes(m.data) for m in one))
        thread.start()
        for n in range(3):
            nc.publish("f.one", b"%d" % n)
            nc.publish("f.two", b"%d" % n)
        nc.flush()
        thread.join(2)
        assert seen == [b"0", b"1"]
        two.drain()
        assert [m.data for m in two] == [b"0", b"1", b"2"]
        nc.drain(2)
        assert nc.next() is None
    two.drain()
    two.unsubscribe()
