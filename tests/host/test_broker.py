"""broker: what nats-py would do otherwise."""

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

import natsbridge
from conftest import NatsServer, answer_pings, cluster, greet
from natsbridge import client, sync
from natsbridge.errors import NATSBridgeError

FakeNats = Callable[..., Awaitable[str]]


async def failure(work: Awaitable[Any]) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await work
    return e.value


@pytest.mark.asyncio
class TestReconnecting:
    async def test_attempts_come_less_and_less_often(self, fake_nats: FakeNats) -> None:
        attempts: list[float] = []

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            attempts.append(time.monotonic())
            if len(attempts) == 1:
                await greet(reader, writer)
                await asyncio.sleep(0.05)

        nc = await natsbridge.connect(await fake_nats(server), base_delay=50, max_delay=200)
        await asyncio.sleep(0.8)
        gaps = [b - a for a, b in itertools.pairwise(attempts[1:])]
        assert gaps[0] < 0.15
        assert 0.05 < max(gaps) < 0.4
        assert 4 <= len(attempts) <= 12
        await nc.close()

    @pytest.mark.parametrize(
        "answer",
        [b"", b"INFO {\r\n", b"INFO []\r\n", b"INFO x" * 20_000, b"\xff\r\n", b"HTTP/1.1 400\r\n"],
    )
    async def test_no_answer_ends_the_attempts(
        self, fake_nats: FakeNats, answer: bytes, things: Callable[[], Any]
    ) -> None:
        count = 0

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            if 1 < count < 4:
                writer.write(answer)
                return
            writer.write(b'INFO {"max_payload":1048576}\r\n')
            while await reader.readuntil(b"PING\r\n"):
                writer.write(b"PONG\r\n")
                if count == 1:
                    await asyncio.sleep(0.02)
                    return

        nc = await natsbridge.connect(await fake_nats(server), base_delay=10, max_delay=20)
        await asyncio.sleep(0.1)
        await nc.publish("a", b"")
        assert count == 4
        assert nc.connected
        await nc.close()

    async def test_the_second_server(self, tmp_path: Path) -> None:
        (tmp_path / "1").mkdir()
        (tmp_path / "2").mkdir()
        with NatsServer(tmp_path / "2") as second:
            first = NatsServer(tmp_path / "1")
            nc = await natsbridge.connect([first.url, second.url])
            assert nc.url == first.url
            first.stop()
            await asyncio.sleep(0.1)
            await nc.flush(2)
            assert nc.url == second.url
            await nc.close()

    async def test_a_complaint_is_told_and_ends_nothing(self, tmp_path: Path) -> None:
        config = tmp_path / "nats.conf"
        config.write_text("max_subscriptions: 2")
        with NatsServer(tmp_path, "-c", str(config)) as server:
            async with await natsbridge.connect(server.url) as nc:
                for n in range(2):
                    await nc.subscribe(f"c.{n}")
                e = await failure(nc.subscribe("c.2"))
                assert e.code == "NATS_CONNECTION_FAILED"
                assert "maximum subscriptions exceeded" in e.message
                await nc.publish("c.0", b"still here")
                assert await nc.next(1) is not None

    @pytest.mark.parametrize("after", [0, 0.05])
    async def test_a_complaint_before_the_end_is_the_reason(
        self, fake_nats: FakeNats, after: float
    ) -> None:
        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greet(reader, writer)
            await asyncio.sleep(after)
            writer.write(b"-ERR 'Something Expired'\r\n")

        async def use() -> None:
            async with await natsbridge.connect(await fake_nats(server), reconnect=False) as nc:
                await nc.next(1)

        e = await failure(use())
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "something expired" in e.message

    async def test_a_dead_link_is_noticed(self, fake_nats: FakeNats) -> None:
        async def dead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greet(reader, writer)
            await reader.read()

        nc = await natsbridge.connect(await fake_nats(dead), reconnect=False, ping_interval=0.05)
        start = time.monotonic()
        assert (await failure(nc.next(2))).code == "NATS_CONNECTION_FAILED"
        assert time.monotonic() - start < 1
        await nc.close()

    @pytest.mark.parametrize(
        "options",
        [
            *({"base_delay": value} for value in (-1, "1", None, True, float("nan"))),
            *({"max_delay": value} for value in (-1, "1")),
            *({"ping_interval": value} for value in (-1, "1", None, True, float("nan"))),
            *({"pending_size": value} for value in (-1, 1.5, "1", None, True)),
        ],
    )
    async def test_what_is_refused(self, options: Any) -> None:
        e = await failure(natsbridge.connect("nats://127.0.0.1:9", **options))
        assert e.code == "INVALID_ARGUMENT"


@pytest.mark.asyncio
class TestPending:
    async def test_without_room_publishing_waits(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, base_delay=20, timeout=2)
        try:
            sub = await nc.subscribe("p.wait")
            server.stop()
            await asyncio.sleep(0.1)
            assert not nc.connected
            waiting = [
                asyncio.ensure_future(work)
                for work in (nc.publish("p.wait", b"x"), nc.subscribe("p.more"))
            ]
            await asyncio.sleep(0.2)
            assert not any(task.done() for task in waiting)
            assert nc.pending == 0
            server = NatsServer(tmp_path, port=server.port)
            await asyncio.gather(*waiting)
            assert nc.connected
            assert await sub.next(2) is not None
            await nc.flush()
            assert nc.pending == 0
        finally:
            await nc.close()
            server.stop()

    async def test_closing_tells_what_was_not_sent(self, tmp_path: Path) -> None:
        async def lose(server: NatsServer) -> natsbridge.client.Connection:
            nc = await natsbridge.connect(server.url, pending_size=1000)
            server.stop()
            await asyncio.sleep(0.1)
            return nc

        nc = await lose(NatsServer(tmp_path))
        await nc.publish("a", b"x" * 100)
        e = await failure(nc.close())
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "not sent" in e.message
        await nc.close()
        async with await lose(NatsServer(tmp_path)):
            pass

        async def fail() -> None:
            async with await lose(NatsServer(tmp_path)) as nc:
                await nc.publish("a", b"x" * 100)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):  # and it is not hidden
            await fail()

    async def test_for_as_long_as_connecting_may_take(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        async with await natsbridge.connect(server.url, timeout=0.3) as nc:
            server.stop()
            await asyncio.sleep(0.1)
            for work in (nc.publish("a", b""), nc.request("a", b"", 0.3), nc.subscribe("a")):
                start = time.monotonic()
                e = await failure(work)
                assert e.code == "NATS_CONNECTION_FAILED"
                assert "0.3 s" in e.message
                assert 0.2 < time.monotonic() - start < 1

    async def test_with_room_it_is_kept_up_to_that(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, base_delay=20, pending_size=1000)
        try:
            sub = await nc.subscribe("p.keep")
            server.stop()
            await asyncio.sleep(0.1)
            await nc.publish("p.keep", b"x" * 400, headers={"a": "b"})
            assert 400 < nc.pending < 500
            await nc.publish("p.keep", b"y" * 400)
            before = nc.pending
            e = await failure(nc.publish("p.keep", b"z" * 400))
            assert e.code == "PAYLOAD_TOO_LARGE"
            assert "pending_size" in e.message
            assert e.details["pending"] == before
            # Nobody can answer a request that waits, nor be heard.
            for work in (nc.request("p.keep", b"z", 0.1), nc.next(0.1), sub.next(0.1)):
                e = await failure(work)
                assert e.code == "NATS_CONNECTION_FAILED"
                assert "0.1 s" in e.message
            assert await nc.next(0) is None
            assert nc.pending == before
            await nc.publish("p.keep", b"")
            server = NatsServer(tmp_path, port=server.port)
            await nc.flush()
            assert nc.pending == 0
            got = [await sub.next(1) for _ in range(3)]
            assert [msg.data[:1] for msg in got if msg] == [b"x", b"y", b""]
        finally:
            await nc.close()
            server.stop()

    async def test_why_a_connection_ended_is_no_refusal_in_the_next_one(
        self, fake_nats: FakeNats
    ) -> None:
        count = 0

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            await greet(reader, writer)
            if count == 1:
                await asyncio.sleep(0.05)
                writer.write(b"-ERR 'Stale Connection'\r\n")
                return
            await answer_pings(reader, writer)

        nc = await natsbridge.connect(await fake_nats(server), base_delay=20)
        await asyncio.sleep(0.2)
        await nc.publish("a", b"x")
        await nc.flush()
        assert count == 2
        await nc.close()

    async def test_what_waited_and_was_lost_with_the_next_connection_is_told(
        self, fake_nats: FakeNats
    ) -> None:
        count = 0
        read = asyncio.Event()

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            await greet(reader, writer)
            if count == 1:
                await asyncio.sleep(0.05)
                return
            if count == 2:
                await reader.readuntil(b"PUB a ")
                read.set()
                return
            await answer_pings(reader, writer)

        nc = await natsbridge.connect(await fake_nats(server), base_delay=300, pending_size=1000)
        await asyncio.sleep(0.1)
        await nc.publish("a", b"x")
        await read.wait()
        await asyncio.sleep(0.05)
        assert "may not have arrived" in (await failure(nc.flush())).message
        await nc.flush()
        await nc.close()

    async def test_a_subscription_that_fails_takes_nothing_from_the_next_flush(
        self, fake_nats: FakeNats
    ) -> None:
        count = 0

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            await greet(reader, writer)
            if count == 1:
                await reader.readuntil(b"SUB ")
                return
            await answer_pings(reader, writer)

        nc = await natsbridge.connect(await fake_nats(server), base_delay=20)
        await nc.publish("a", b"x")
        assert (await failure(nc.subscribe("b"))).code == "NATS_CONNECTION_FAILED"
        assert "may not have arrived" in (await failure(nc.flush())).message
        await nc.flush()
        await nc.close()

    @pytest.mark.parametrize("spare", [False, True])
    async def test_a_link_that_is_dead_and_full_is_left(
        self, fake_nats: FakeNats, nats_url: str, spare: bool
    ) -> None:
        """Also by who publishes all the time, and it does not wait for what nobody reads."""
        over = asyncio.Event()
        count = 0

        async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            if count > 1:
                return
            await greet(reader, writer)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await over.wait()

        servers = [await fake_nats(stuck), *([nats_url] if spare else [])]
        options: Any = {"reconnect": spare, "ping_interval": 0.2, "base_delay": 20, "timeout": 1}
        nc = await natsbridge.connect(servers, **options)

        async def publish() -> None:
            while nc.url != nats_url:
                await nc.publish("p.dead", b"x" * 30_000)

        if spare:
            await asyncio.wait_for(publish(), 5)
            assert nc.connected
        else:
            assert (await failure(asyncio.wait_for(publish(), 5))).code == "NATS_CONNECTION_FAILED"
        await nc.close()
        over.set()

    async def test_a_ping_of_before_is_not_asked_again(self, fake_nats: FakeNats) -> None:
        """Its PONG would be taken for that of the next one."""
        count = pings = 0
        cut = asyncio.Event()

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count, pings
            count += 1
            await greet(reader, writer)
            if count == 1:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await cut.wait()
                writer.transport.abort()
                return
            while await reader.readuntil(b"PING\r\n"):
                pings += 1
                writer.write(b"PONG\r\n")

        nc = await natsbridge.connect(await fake_nats(server), base_delay=20)
        publishing = asyncio.ensure_future(nc.publish("a", b"x" * 1_000_000))
        while not nc.pending:
            publishing = asyncio.ensure_future(nc.publish("a", b"x" * 1_000_000))
            await asyncio.wait({publishing}, timeout=0.05)
        assert (await failure(nc.flush(0.1))).code == "NATS_CONNECTION_FAILED"
        cut.set()
        await failure(nc.flush())
        await nc.flush()
        assert pings == 2  # nats-py's after connecting, and ours
        publishing.cancel()
        await nc.close()

    async def test_publishing_without_a_pause_does_not_fill_the_memory(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            most = 0
            for _ in range(100):
                await nc.publish("p.fast", b"x" * 500_000)
                most = max(most, nc.pending)
            assert most < 4 << 20

    async def test_a_server_that_reads_nothing_holds_up_who_publishes(
        self, fake_nats: FakeNats, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "CLOSE_S", 0.1)
        done = asyncio.Event()

        async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greet(reader, writer)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await done.wait()

        nc = await natsbridge.connect(await fake_nats(stuck))
        count = 0

        async def publish() -> None:
            nonlocal count
            while count < 1000:
                await nc.publish("p.stuck", b"x" * 500_000)
                count += 1

        publishing = asyncio.ensure_future(publish())
        done_now, _ = await asyncio.wait({publishing}, timeout=0.5)
        assert not done_now
        assert count < 100
        assert 0 < nc.pending < 4 << 20
        publishing.cancel()
        ended, _ = await asyncio.wait({publishing}, timeout=1)
        assert publishing in ended
        assert publishing.cancelled()
        again = asyncio.ensure_future(nc.publish("p.stuck", b"x" * 500_000))
        await asyncio.sleep(0)
        await nc.close()
        ended, _ = await asyncio.wait({again}, timeout=1)
        assert again in ended
        done.set()

    async def test_a_plain_client(self, nats_url: str) -> None:
        import nats

        from natsbridge.dial import peer

        plain = await nats.connect(nats_url)
        wrapped = peer(plain)
        assert wrapped.connected
        await wrapped.publish("a", b"", headers={"a": "b"})
        await wrapped.flush()
        assert wrapped.pending == 0
        await plain.close()
        assert not wrapped.connected


def test_the_synchronous_face(nats_url: str) -> None:
    with sync.connect(nats_url, pending_size=1 << 20, base_delay=1, ping_interval=0.5) as nc:
        assert nc.connected
        assert nc.tls is None
        nc.publish("a", b"x" * 1000)
        nc.flush()
        assert nc.pending == 0
    assert not nc.connected


@pytest.mark.asyncio
class TestInfo:
    async def test_a_lame_duck_is_left_in_order(self, tmp_path: Path) -> None:
        """For another server; nothing published is lost, nothing received is twice."""
        with cluster(tmp_path, 2) as (first, second):
            await asyncio.sleep(0.3)
            nc = await natsbridge.connect(first.url, base_delay=20)
            other = await natsbridge.connect(second.url)
            sub = await nc.subscribe("down")
            up = await other.subscribe("up")
            await asyncio.sleep(0.3)
            for i in range(600):
                await other.publish("down", str(i))
                await nc.publish("up", str(i))
                if i == 150:
                    first.process.send_signal(signal.SIGUSR2)  # its signal for that
                if i % 10 == 0:
                    await nc.flush()
                await asyncio.sleep(0.002)
            await nc.flush()
            assert nc.url == second.url
            assert first.process.poll() is None, "it left before the server went"
            await other.flush()
            assert [int(msg.data) for msg in [await up.next(2) for _ in range(600)] if msg] == [
                *range(600)
            ]
            got = []
            while msg := await sub.next(0.2):
                got.append(int(msg.data))
            assert got == sorted(set(got))
            assert len(got) > 560
            assert got[-1] == 599
            await nc.close()
            await other.close()
            first.kill()

    async def test_what_was_answered_is_not_lost_when_the_connection_goes(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when it moves to another server in the moment between."""
        async with await natsbridge.connect(nats_url) as nc:
            await nc.publish("x", b"1")
            wait = nc._changes.wait

            async def goes(deadline: float | None, *tasks: asyncio.Task[None]) -> bool:
                result = await wait(deadline, *tasks)
                nc.client._status = Client.RECONNECTING
                return result

            with monkeypatch.context() as patch:
                patch.setattr(nc._changes, "wait", goes)
                await nc.flush()
            nc.client._status = Client.CONNECTED

    @pytest.mark.parametrize("reconnect", [True, False])
    async def test_a_lame_duck_is_used_to_its_end_where_there_is_no_other_server(
        self, fake_nats: FakeNats, reconnect: bool
    ) -> None:
        connections = 0

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await greet(reader, writer)
            await reader.readuntil(b"SUB duck  1\r\n")
            await reader.readuntil(b"PING\r\n")
            writer.write(b'PONG\r\nINFO {"ldm":true,"connect_urls":["127.0.0.1:1"]}\r\n')
            await asyncio.sleep(0.3)
            writer.write(b"MSG duck 1 3\r\nbye\r\n")
            await answer_pings(reader, writer)

        url = await fake_nats(server)
        nc = await natsbridge.connect(url, reconnect=reconnect)
        sub = await nc.subscribe("duck")
        msg = await sub.next(2)
        assert msg is not None
        assert msg.data == b"bye"
        assert nc.connected
        assert connections == 1
        await nc.close()

    async def test_a_later_limit_counts(self, fake_nats: FakeNats) -> None:
        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"max_payload":1048576}\r\n')
            await reader.readuntil(b"PING\r\n")
            writer.write(b'PONG\r\nINFO {"max_payload":100}\r\nINFO {"max_payload":"x"}\r\n')
            await answer_pings(reader, writer)

        async with await natsbridge.connect(await fake_nats(server)) as nc:
            await nc.flush()
            assert nc.max_payload == 100
            assert (await failure(nc.publish("a", bytes(101)))).code == "PAYLOAD_TOO_LARGE"
            await nc.publish("a", bytes(100))
