"""client and broker: connections that say what is wrong, in order, and leave nothing open."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from conftest import NatsServer, answer_pings
from natsbridge import client as client_module
from natsbridge import subscription
from natsbridge.client import Connection, Msg
from natsbridge.dial import peer
from natsbridge.errors import NATSBridgeError

pytestmark = pytest.mark.asyncio

FakeNats = Callable[..., Awaitable[str]]
INFO = b'INFO {"server_id":"x","version":"2.0.0","max_payload":1048576,"headers":true%s}\r\n'


async def failure(work: Awaitable[Any]) -> NATSBridgeError:
    with pytest.raises(NATSBridgeError) as e:
        await work
    return e.value


class TestConnecting:
    async def test_defaults_come_from_the_environment(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NATS_URL", nats_url)
        async with await natsbridge.connect(name="desk") as nc:
            assert (nc.name, nc.url, nc.max_payload) == ("desk", nats_url, 1 << 20)
            assert len(nc.id) == 36

    async def test_refused_says_so_at_once(self) -> None:
        start = time.monotonic()
        e = await failure(natsbridge.connect("nats://127.0.0.1:9"))
        assert time.monotonic() - start < 1
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "nats://127.0.0.1:9" in e.message
        assert "refused" in e.message

    async def test_unknown_host(self) -> None:
        e = await failure(natsbridge.connect("nats://no-such-host.invalid"))
        assert e.code == "NATS_CONNECTION_FAILED"

    @pytest.mark.parametrize("reconnect", [True, False])
    async def test_a_silent_server_costs_the_timeout_and_leaves_nothing_open(
        self, fake_nats: FakeNats, things: Callable[[], Any], reconnect: bool
    ) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        url = await fake_nats(silent)
        await asyncio.sleep(0.01)
        before, tasks = things(), len(asyncio.all_tasks())
        start = time.monotonic()
        e = await failure(natsbridge.connect(url, timeout=0.3, reconnect=reconnect))
        assert 0.2 < time.monotonic() - start < 1
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "0.3 s" in e.message
        await asyncio.sleep(0.05)
        assert things() == before
        assert len(asyncio.all_tasks()) == tasks

    async def test_what_is_no_nats_server(self, fake_nats: FakeNats) -> None:
        async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        e = await failure(natsbridge.connect(await fake_nats(http)))
        assert e.code == "NATS_CONNECTION_FAILED"

    async def test_a_server_that_hangs_up(self, fake_nats: FakeNats) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b"")
            await reader.readuntil(b"PING\r\n")

        e = await failure(natsbridge.connect(await fake_nats(hang_up)))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "closed the connection" in e.message

    async def test_the_next_server_of_a_list_is_tried(self, nats_url: str) -> None:
        async with await natsbridge.connect(["nats://127.0.0.1:9", nats_url]) as nc:
            assert nc.url == nats_url

    async def test_tls_that_is_not_offered_gets_no_credentials(self, fake_nats: FakeNats) -> None:
        heard = bytearray()

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b"")
            heard.extend(await reader.read())

        url = (await fake_nats(plain)).replace("nats://", "tls://me:secret@")
        e = await failure(natsbridge.connect(url))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "TLS" in e.message
        assert "secret" not in str(e)
        assert not heard

    async def test_a_demand_for_tls_that_fails(self, fake_nats: FakeNats) -> None:
        async def tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b',"tls_required":true')
            await reader.read(100)
            writer.write(b"no TLS here")

        e = await failure(natsbridge.connect(await fake_nats(tls)))
        assert e.code == "NATS_CONNECTION_FAILED"
        assert "TLS" in e.message

    @pytest.mark.parametrize(
        "servers", ["", "http://x", "nats://", "nats://h:99999", "nats://h h", 5, [], [None]]
    )
    async def test_bad_server_urls(self, servers: Any) -> None:
        e = await failure(natsbridge.connect(servers if servers != "" else [""]))
        assert e.code == "INVALID_ARGUMENT"

    @pytest.mark.parametrize("timeout", [-1, "5", float("nan"), True])
    async def test_bad_timeouts(self, timeout: Any) -> None:
        e = await failure(natsbridge.connect("nats://127.0.0.1:9", timeout=timeout))
        assert e.code == "INVALID_ARGUMENT"

    async def test_nothing_is_printed(self, capfd: pytest.CaptureFixture[str]) -> None:
        await failure(natsbridge.connect("nats://127.0.0.1:9"))
        await failure(natsbridge.connect("nats://no-such-host.invalid"))
        assert capfd.readouterr() == ("", "")


class TestCredentials:
    @pytest.mark.parametrize("options", [{}, {"user": "me", "password": "wrong"}])
    async def test_refused_credentials(self, tmp_path: Path, options: dict[str, str]) -> None:
        with NatsServer(tmp_path, "--user", "me", "--pass", "secret") as server:
            e = await failure(natsbridge.connect(server.url, **options))  # type: ignore[arg-type]
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "credentials" in e.message
            async with await natsbridge.connect(server.url, user="me", password="secret") as nc:
                assert nc.url == server.url
            url = server.url.replace("//", "//me:secret@")
            async with await natsbridge.connect(url) as nc:
                assert nc.url == server.url

    async def test_token(self, tmp_path: Path) -> None:
        with NatsServer(tmp_path, "--auth", "letmein") as server:
            assert "credentials" in (await failure(natsbridge.connect(server.url))).message
            async with await natsbridge.connect(server.url, token="letmein") as nc:
                await nc.flush()

    async def test_what_the_server_does_not_permit(self, tmp_path: Path) -> None:
        config = tmp_path / "nats.conf"
        config.write_text(
            "authorization { users = [ { user: a, password: b, permissions: "
            '{ publish: "ok.>", subscribe: "ok.>" } } ] }'
        )
        with NatsServer(tmp_path, "-c", str(config)) as server:
            async with await natsbridge.connect(server.url, user="a", password="b") as nc:
                e = await failure(nc.subscribe("secret"))
                assert e.code == "NATS_CONNECTION_FAILED"
                assert "refused" in e.message
                await nc.publish("secret", b"")
                assert "refused" in (await failure(nc.flush())).message
                sub = await nc.subscribe("ok.x")
                await nc.publish("ok.x", b"1")
                msg = await sub.next(1)
                assert msg is not None
                e = await failure(
                    natsbridge.smartsend(
                        "secret", [], broker_url=server.url.replace("//", "//a:b@")
                    )
                )
                assert "refused" in e.message


class TestMessages:
    async def test_publish_and_subscribe(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("t.one", queue="q")
            assert (sub.subject, sub.queue) == ("t.one", "q")
            await nc.publish("t.one", "Grüße", reply="t.reply")
            msg = await sub.next(timeout=1)
            assert msg is not None
            assert (msg.subject, msg.reply, msg.data) == ("t.one", "t.reply", "Grüße".encode())
            assert len(msg) == 7
            for payload in (b"a", bytearray(b"b"), memoryview(b"c")):
                await nc.publish("t.one", payload)
            got = [await sub.next(1) for _ in range(3)]
            assert [m.data for m in got if m] == [b"a", b"b", b"c"]
            assert await sub.next(timeout=0) is None
            assert await nc.next(timeout=0.01) is None

    async def test_all_subscriptions_are_read_in_order_of_arrival(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            for i in range(5):
                await nc.subscribe(f"order.{i}")
            sent = []
            for n in range(500):
                subject = f"order.{n * 7 % 5}"
                sent.append((subject, b"%d" % n))
                await nc.publish(subject, b"%d" % n)
            got = []
            for n in range(500):
                msg = await nc.next(1)
                assert msg is not None
                got.append((msg.subject, msg.data))
                if n % 50 == 0:
                    await asyncio.sleep(0.001)
            assert got == sent

    async def test_iteration_ends_with_the_subscription(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            async with await nc.subscribe("t.iter") as sub:
                for n in range(3):
                    await nc.publish("t.iter", b"%d" % n)
                got = []
                async for msg in sub:
                    got.append(msg.data)
                    if len(got) == 3:
                        await sub.unsubscribe()
                assert got == [b"0", b"1", b"2"]
            await sub.unsubscribe()
            assert (await failure(sub.next())).code == "INVALID_ARGUMENT"
            sub = await nc.subscribe("t.iter")
            asyncio.get_running_loop().call_later(
                0.05, lambda: tasks.append(asyncio.ensure_future(nc.close()))
            )
            tasks: list[Any] = []
            assert [msg async for msg in sub] == []
            await tasks[0]

    async def test_a_cancelled_next_loses_nothing(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("t.cancel")
            for _ in range(20):
                task = asyncio.ensure_future(sub.next())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
            await nc.publish("t.cancel", b"x")
            msg = await sub.next(1)
            assert msg is not None

    async def test_a_gap_in_a_full_queue_is_told_in_its_place(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subscription, "MAX_QUEUED_MESSAGES", 3)
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("t.full")
            for n in range(5):
                await nc.publish("t.full", b"%d" % n)
            await nc.flush()
            await asyncio.sleep(0.05)
            got = [await sub.next(0) for _ in range(3)]
            assert [m.data for m in got if m] == [b"0", b"1", b"2"]
            e = await failure(nc.next(0))
            assert e.code == "PAYLOAD_TOO_LARGE"
            assert e.details == {"dropped": 2}
            assert await nc.next(0) is None
            await nc.publish("t.full", b"6")
            assert await sub.next(1) is not None

    async def test_taking_what_waits_lets_others_have_their_turn(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("t.turn")
            for _ in range(100):
                await nc.publish("t.turn", b"")
            await nc.flush()
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            task = asyncio.ensure_future(other())
            for _ in range(100):
                assert await sub.next(1) is not None
                time.sleep(0.001)  # noqa: ASYNC251 work that does not await
            task.cancel()
            assert turns >= 10

    async def test_bytes_in_the_queue_are_limited_but_one_message_always_fits(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subscription, "MAX_QUEUED_BYTES", 10)
        async with await natsbridge.connect(nats_url) as nc:
            sub = await nc.subscribe("t.bytes")
            await nc.publish("t.bytes", b"x" * 100)
            await nc.publish("t.bytes", b"y")
            await nc.flush()
            msg = await sub.next(1)
            assert msg is not None
            assert len(msg) == 100
            assert (await failure(sub.next(1))).details == {"dropped": 1}

    async def test_requests(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            e = await failure(nc.request("t.nobody", b""))
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "nobody listens" in e.message
            sub = await nc.subscribe("t.ask")
            assert await nc.request("t.ask", b"?", timeout=0.05) is None

            async def answer() -> None:
                async for msg in sub:
                    await nc.publish(msg.reply, b"!" + msg.data)

            task = asyncio.ensure_future(answer())
            msg = await nc.request("t.ask", b"?", timeout=1)
            assert msg is not None
            assert msg.data in (b"!?",)
            task.cancel()

    @pytest.mark.parametrize("subject", ["", "a b", "a.*", "a..b", None, "a\r\nPUB b 0\r\n\r\n"])
    async def test_bad_subjects(self, nats_url: str, subject: Any) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            assert (await failure(nc.publish(subject, b""))).code == "INVALID_ARGUMENT"
            assert (await failure(nc.request(subject, b""))).code == "INVALID_ARGUMENT"
            if subject != "a.*":
                assert (await failure(nc.subscribe(subject))).code == "INVALID_ARGUMENT"
            if subject:
                assert (await failure(nc.publish("a", b"", subject))).code == "INVALID_ARGUMENT"
            await nc.flush()

    async def test_a_message_larger_than_the_broker_takes(self, nats_url: str) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            e = await failure(nc.publish("a", b"x" * (nc.max_payload + 1)))
            assert e.code == "PAYLOAD_TOO_LARGE"
            assert (await failure(nc.publish("a", 5))).code == "INVALID_ARGUMENT"  # type: ignore[arg-type]
            await nc.flush()


class TestLosing:
    async def test_a_lost_connection_comes_back(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, pending_size=100)
        try:
            sub = await nc.subscribe("t.back")
            server.stop()
            await asyncio.sleep(0.1)
            assert "lost" in (await failure(nc.flush(0.1))).message
            assert "lost" in (await failure(sub.next(0.05))).message
            assert await sub.next(0) is None
            await nc.publish("t.back", b"kept")
            server = NatsServer(tmp_path, port=server.port)
            await nc.flush(5)
            msg = await sub.next(2)
            assert msg is not None
            assert msg.data == b"kept"
        finally:
            await nc.close()
            server.stop()

    async def test_a_flush_is_told_of_a_connection_that_is_lost_just_then(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After flush has looked, before its PING: nats-py's own returns without a PONG then."""
        async with await natsbridge.connect(nats_url) as nc:
            await nc.publish("t.just", b"1")
            start = nc._start

            async def lose(work: Coroutine[Any, Any, None]) -> None:
                reader = nc.client._reading_task
                assert reader is not None
                reader.cancel()
                await asyncio.wait({reader})
                await nc.client._process_op_err(OSError("cut"))
                await work

            def start_late(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                return start(lose(work))

            with monkeypatch.context() as patch:
                patch.setattr(nc, "_start", start_late)
                assert "may not have arrived" in (await failure(nc.flush())).message
            await nc.flush()

    async def test_a_flush_tells_what_may_be_lost_with_the_connection(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, base_delay=20)
        try:
            await nc.publish("t.lost", b"1")
            await nc.flush()
            server.stop()
            await asyncio.sleep(0.1)
            server = NatsServer(tmp_path, port=server.port)
            await nc.publish("t.lost", b"2")
            await nc.flush()
            await nc.publish("t.lost", b"3")
            server.stop()
            await asyncio.sleep(0.1)
            server = NatsServer(tmp_path, port=server.port)
            await nc.publish("t.lost", b"4")
            await nc.subscribe("t.lost")
            e = await failure(nc.flush())
            assert "may not have arrived" in e.message
            await nc.flush()
        finally:
            await nc.close()
            server.stop()

    async def test_without_reconnect_waiters_learn_of_it(self, tmp_path: Path) -> None:
        server = NatsServer(tmp_path)
        nc = await natsbridge.connect(server.url, reconnect=False)
        sub = await nc.subscribe("t.gone")
        waiting = asyncio.ensure_future(sub.next())
        await asyncio.sleep(0.05)
        server.stop()
        e = await failure(asyncio.wait_for(waiting, 2))
        assert e.code == "NATS_CONNECTION_FAILED"
        for work in (nc.publish("a", b""), nc.flush(), nc.next(), nc.subscribe("b")):
            assert (await failure(work)).code == "NATS_CONNECTION_FAILED"
        await nc.close()

    async def test_a_closed_connection_says_so(self, nats_url: str) -> None:
        nc = await natsbridge.connect(nats_url)
        sub = await nc.subscribe("t.closed")
        waiting = asyncio.ensure_future(sub.next())
        await asyncio.sleep(0.01)
        await nc.close()
        await nc.close()
        assert "closed" in (await failure(waiting)).message
        for work in (nc.publish("a", b""), nc.flush(), nc.next(1), nc.request("a", b"")):
            e = await failure(work)
            assert e.code == "NATS_CONNECTION_FAILED"
            assert "connect() again" in e.message

    async def test_a_flush_that_timed_out_does_not_break_the_connection(
        self, fake_nats: FakeNats
    ) -> None:
        async def slow_pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b"")
            count = 0
            while line := await reader.readline():
                if line == b"PING\r\n":
                    count += 1
                    await asyncio.sleep(0.2 if count == 2 else 0)
                    writer.write(b"PONG\r\n")
                if line.startswith(b"SUB"):
                    sid = line.split()[-1]
                    writer.write(b"MSG t.x %s 1\r\nx\r\n" % sid)

        nc = await natsbridge.connect(await fake_nats(slow_pong))
        e = await failure(nc.flush(0.05))
        assert "0.05 s" in e.message
        await asyncio.sleep(0.3)
        sub = await nc.subscribe("t.x")
        assert await sub.next(1) is not None
        await nc.close()

    async def test_a_flush_does_not_overtake_what_waits_for_a_full_socket(
        self, fake_nats: FakeNats
    ) -> None:
        read = asyncio.Event()
        before_ping: list[int] = []

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b"")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            await read.wait()
            count = 0
            while line := await reader.readline():
                if line.startswith(b"PUB"):
                    await reader.readexactly(int(line.split()[-1]) + 2)
                    count += 1
                elif line == b"PING\r\n":
                    before_ping.append(count)
                    writer.write(b"PONG\r\n")

        nc = await natsbridge.connect(await fake_nats(slow))
        for _ in range(10):
            await nc.publish("x", b"x" * 900_000)
            await asyncio.sleep(0.01)  # which lets nats-py write, as long as that goes
            if nc.client.pending_data_size:
                break
        assert nc.client.pending_data_size  # the socket is full
        await nc.publish("x", b"the last one")
        flush = asyncio.ensure_future(nc.flush())
        await asyncio.sleep(0.05)
        read.set()
        await flush
        published = nc.client.stats["out_msgs"]
        assert before_ping == [published]
        await nc.close()

    async def test_servers_that_are_none_do_not_end_the_reading(self, fake_nats: FakeNats) -> None:
        odd = b'["[::1", 5, null, "", "u:p@h:1", "h:x", "h:70000", "127.0.0.1:4222"]'
        answered = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b"")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            for urls in (odd, b"5", b"null", b'{"a":1}', odd):
                writer.write(INFO % (b',"connect_urls":' + urls) + b"PING\r\n")
                await reader.readuntil(b"PONG\r\n")
            answered.set()
            await answer_pings(reader, writer)

        async with await natsbridge.connect(await fake_nats(talk)) as nc:
            await asyncio.wait_for(answered.wait(), 5)
            assert [s.uri.netloc for s in nc.client._server_pool[1:]] == ["127.0.0.1:4222"]

    @pytest.mark.parametrize("lost", [False, True])
    async def test_close_ends_what_connects_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
    ) -> None:
        """Also where its cancellation is lost, as in an asyncio.wait_for that is done just then."""

        async def attempt(*rest: Any) -> None:
            try:
                await asyncio.sleep(0.3)
            except asyncio.CancelledError:
                if not lost:
                    raise
            raise OSError("refused")

        with NatsServer(tmp_path) as server:
            nc = await natsbridge.connect(server.url, base_delay=1, max_delay=1)
            monkeypatch.setattr("nats.aio.client.Client._connect_to_server", attempt)
        await asyncio.sleep(0.3)
        assert not nc.connected
        start = time.monotonic()
        await asyncio.wait_for(nc.close(), 15)
        assert time.monotonic() - start < 1.5
        await asyncio.sleep(0.5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_close_does_not_wait_for_a_server_that_reads_nothing(
        self, fake_nats: FakeNats, monkeypatch: pytest.MonkeyPatch, things: Callable[[], Any]
    ) -> None:
        monkeypatch.setattr(client_module, "CLOSE_S", 0.2)
        done = asyncio.Event()

        async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(INFO % b"")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await done.wait()

        url = await fake_nats(stuck)
        tasks = len(asyncio.all_tasks())
        nc = await natsbridge.connect(url)
        publishing = asyncio.ensure_future(flood(nc))
        await asyncio.sleep(0.2)
        start = time.monotonic()
        await nc.close()
        assert time.monotonic() - start < 2
        publishing.cancel()
        await asyncio.wait({publishing})
        done.set()
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) <= tasks

    async def test_nothing_stays_open(self, nats_url: str, things: Callable[[], Any]) -> None:
        async with await natsbridge.connect(nats_url) as nc:
            await nc.subscribe("t.leak")
        before, tasks = things(), len(asyncio.all_tasks())
        for _ in range(5):
            async with await natsbridge.connect(nats_url) as nc:
                await nc.subscribe("t.leak")
                await nc.flush()
            await failure(natsbridge.connect("nats://127.0.0.1:9"))
        await asyncio.sleep(0.05)
        assert things() == before
        assert len(asyncio.all_tasks()) == tasks


async def flood(nc: Connection) -> None:
    while True:
        await nc.publish("x", b"x" * 500_000)
        await asyncio.sleep(0)


class TestPeer:
    async def test_a_plain_client_is_wrapped_and_not_closed(self, nats_url: str) -> None:
        import nats

        plain = await nats.connect(nats_url, name="plain")
        wrapped = peer(plain)
        assert (wrapped.name, wrapped.url, wrapped.max_payload) == ("plain", nats_url, 1 << 20)
        await wrapped.close()
        assert plain.is_connected
        await plain.close()

    async def test_anything_else_is_refused(self) -> None:
        for thing in (None, "nats://x", object()):
            with pytest.raises(NATSBridgeError) as e:
                peer(thing)
            assert e.value.code == "INVALID_ARGUMENT"


async def test_repr_of_a_message() -> None:
    assert repr(Msg("a", "", b"xyz")) == "<Msg 'a' 3 bytes>"
