"""`natsbridge stream`, and what `natsbridge receive --durable` does with it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import natsbridge
from command import Runner
from conftest import NatsServer
from fault_proxy import PLAIN, FaultProxy, Link
from natsbridge import sync
from natsbridge.cli import sources
from natsbridge.cli.folder import Folder
from natsbridge.cli.receive import AT_ONCE
from natsbridge.client import Connection
from natsbridge.errors import NATS_CONNECTION_FAILED, NATSBridgeError
from natsbridge.inbox import Inbox, StoredMsg
from natsbridge.sink import FileTarget
from natsbridge.streams import Streams

DURABLE = ("--durable=desk", "--timeout=0.5")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    folder = tmp_path_factory.mktemp("streams")
    with NatsServer(folder, "-js", "-sd", str(folder / "store")) as it:
        yield it


@pytest.fixture
def run(bare: Runner, server: NatsServer, file_url: str) -> Runner:
    """The command, with a broker that has streams in its environment."""
    bare.environ.update(NATS_URL=server.url, FILESERVER_URL=file_url)
    return bare


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not acknowledged comes again after a second."""
    inbox = Connection.inbox

    async def soon(self: Connection, *words: str) -> Inbox:
        return await inbox(self, *words, ack_wait=1)

    monkeypatch.setattr(Connection, "inbox", soon)


def send(server: NatsServer, text: str, **options: object) -> None:
    with sync.connect(server.url, name="sender") as nc:
        data = [("note", text, "text")]
        sync.smartsend("lab.a", data, nats_connection=nc, durable=True, **options)


def test_a_stream_is_made_shown_changed_and_emptied(run: Runner, server: NatsServer) -> None:
    assert "There is no stream" in run.inside("stream", "info").ended().out
    made = run.inside(
        "stream", "create", "LAB", "lab.>", "more.*", "--max-age", "7d", "--max-bytes", 9999
    )
    assert "Stream LAB is made." in made.out
    send(server, "one")
    send(server, "two")
    shown = run.inside("stream", "info").ended().out
    assert re.search(r"subjects +lab\.> more\.\*", shown)
    assert re.search(r"messages +2, ", shown)
    assert re.search(r"kept +7d, up to 10\.0 kB; when full it drops the oldest", shown)
    with sync.connect(server.url) as nc:
        config = json.loads(nc.request("$JS.API.STREAM.INFO.LAB", b"").data)["config"]
        config.update(description="of the lab", max_msgs=99, allow_msg_ttl=True)
        nc.request("$JS.API.STREAM.UPDATE.LAB", json.dumps(config).encode())
        config = json.loads(nc.request("$JS.API.STREAM.INFO.LAB", b"").data)["config"]
        assert config["max_msgs"] == 99
        words = "create", "LAB", "lab.>", "--when-full", "refuse", "--json"
        changed = run.inside("stream", *words).ended().out
        assert json.loads(changed)["created"] is False
        after = json.loads(nc.request("$JS.API.STREAM.INFO.LAB", b"").data)["config"]
        assert after == {**config, "subjects": ["lab.>"], "discard": "new"}
    [state] = [r["stream"] for r in run.inside("stream", "info", "--json").ended().records]
    assert (state["max_age"], state["max_bytes"], state["refuses"]) == (7 * 86400, 9999, True)
    changed = run.inside("stream", "create", "LAB", "lab.>", "--max-bytes=0", "--max-age=0").ended()
    assert re.search(r"kept +for ever; when full it refuses more", changed.out)
    run.inside("stream", "purge", "LAB").failed("pass --yes")
    assert "2 messages are removed." in run.inside("stream", "purge", "LAB", "--yes").ended().out
    assert re.search(r"messages +0, ", run.inside("stream", "info", "LAB").ended().out)
    for line in (made.out + shown).splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("info", "NOPE"), "there is no stream 'NOPE'"),
        (("purge", "NOPE", "--yes"), "there is no stream 'NOPE'"),
        (("create", "A.B", "x"), "A.B"),
        (("create", "A", "x y"), "x y"),
        (("create", "A", "x", "--max-bytes", "1", "--replicas", "3"), "refused: "),
    ],
)
def test_what_can_not_be_is_said(run: Runner, words: tuple[str, ...], says: str) -> None:
    run.inside("stream", *words).failed(says)


def test_a_wrong_age_is_a_wrong_argument(run: Runner) -> None:
    run.inside("stream", "create", "A", "x", "--max-age", "7w").ended(2)


def test_it_takes_what_the_configuration_says(run: Runner, server: NatsServer) -> None:
    del run.environ["NATS_URL"]
    config = f'server = "{server.url}"\ncount = 1\n[stream]\nmax-bytes = 9999\n'
    other = Path(run.cwd, "other.toml")
    other.write_text(config)
    run.inside("--config", other, "stream", "create", "LAB", "lab.>").ended()
    Path(run.cwd, "natsbridge.toml").write_text(config)
    assert "up to 10.0 kB" in run.inside("stream", "info", "LAB").ended().out
    other.write_text("[stream]\ncreate = 1\n")
    run.inside("--config", other, "stream", "info").ended(2)


def test_without_jetstream_it_says_so(bare: Runner, nats_url: str) -> None:
    bare.environ.update(NATS_URL=nats_url)
    bare.inside("stream", "info").failed("has no JetStream")
    bare.inside("receive", "lab.>", "--durable=desk").failed("has no JetStream")


def test_what_was_sent_before_is_received_once(
    run: Runner, server: NatsServer, file_url: str
) -> None:
    run.inside("receive", "lab.>", "--durable=desk").failed("natsbridge stream create NAME 'lab.>'")
    run.inside("stream", "create", "LAB", "lab.>").ended()
    send(server, "while nobody listened")
    took = run.inside("receive", "lab.>", *DURABLE, "--json").ended().records
    assert [r["payloads"][0]["dataname"] for r in took] == ["note"]
    [note] = Path(run.cwd, "received").glob("note*.txt")
    assert note.read_text() == "while nobody listened"
    again = run.inside("receive", "lab.>", *DURABLE, "--json").records
    assert again == []
    assert "desk: 0 wait, 0 not acknowledged" in run.inside("stream", "info", "LAB").ended().out


def test_a_file_that_can_not_be_fetched_is_fetched_later(
    run: Runner, server: NatsServer, file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message stays in the stream until then, and nothing of it in the folder."""
    monkeypatch.setattr(sources, "LATER_S", 0.1)
    run.inside("stream", "create", "LAB", "lab.>").ended()
    data = os.urandom(5000)
    with FaultProxy(file_url) as files, sync.connect(server.url, name="sender") as nc:
        options = {"nats_connection": nc, "fileserver_url": files.url, "size_threshold": 1}
        sync.smartsend("lab.a", [("f.bin", data, "binary")], durable=True, **options)
        words = "receive", "lab.>", "--durable=desk", "--fileserver", files.url, "--count", 1
        files.plan = Link(refused=True)
        run.inside(*words).failed("DOWNLOAD_FAILED")
        received = Path(run.cwd, "received")
        assert list(received.iterdir()) == []
        files.plan = PLAIN
        run.inside(*words).ended()
    assert (received / "f.bin").read_bytes() == data


def test_what_can_never_be_received_is_kept_and_does_not_come_again(
    run: Runner, server: NatsServer
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    with sync.connect(server.url) as nc:
        nc.publish("lab.a", b"no envelope")
        nc.flush()
    words = "receive", "lab.>", *DURABLE
    assert "INVALID_ENVELOPE" in run.inside(*words).ended(1).err
    [kept] = Path(run.cwd, "received").glob("*.failed.json")
    assert kept.read_bytes() == b"no envelope"
    run.inside(*words).ended()
    assert len(list(Path(run.cwd, "received").iterdir())) == 1


@pytest.mark.parametrize("message", [b"no envelope", b""], ids=["none of ours", "ours"])
def test_what_the_folder_has_no_room_for_stays_in_the_stream(
    run: Runner, server: NatsServer, message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    if message:
        with sync.connect(server.url) as nc:
            nc.publish("lab.a", message)
            nc.flush()
    else:
        send(server, "one")

    def write(self: FileTarget, data: bytes) -> None:
        raise self._failed(OSError(errno.ENOSPC, "No space left on device"))

    words = "receive", "lab.>", "--durable=desk", "--timeout=1"
    with monkeypatch.context() as full:
        full.setattr(FileTarget, "write", write)
        told = run.inside(*words).failed("INVALID_ARGUMENT", "cannot write into the folder")
    assert "No space left" in told
    assert list(Path(run.cwd, "received").iterdir()) == []
    send(server, "two")
    again = run.inside(*words).ended(1 if message else 0)
    assert ("INVALID_ENVELOPE" in again.err) == bool(message)
    received = Path(run.cwd, "received")
    assert len(list(received.glob("note*.txt"))) == (1 if message else 2)
    assert [f.read_bytes() for f in received.glob("*.failed.json")] == [message][: len(message)]
    assert "desk: 0 wait, 0 not acknowledged" in run.inside("stream", "info", "LAB").ended().out


def test_without_its_folder_it_ends_and_the_message_stays_in_the_stream(
    run: Runner, server: NatsServer
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    process = run.start("receive", "lab.>", "--durable=desk").says("time ")
    received = Path(run.cwd, "received")
    received.rmdir()
    send(server, "one")
    process.failed("INVALID_ARGUMENT", "cannot write into the folder")
    run.inside("receive", "lab.>", "--durable=desk", "--count", 1).ended()
    assert len(list(received.glob("note*.txt"))) == 1


def test_no_more_is_taken_from_the_stream_than_is_received_at_a_time(
    run: Runner, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited in hand would come again after ack_wait, and be saved twice."""
    run.inside("stream", "create", "LAB", "lab.>").ended()
    for number in range(2 * AT_ONCE):
        send(server, str(number))
    pending = []
    real = natsbridge.smartreceive

    async def slowly(msg: StoredMsg, **options: Any) -> dict[str, Any]:
        await asyncio.sleep(0.5)
        js = msg._inbox._connection.client.jetstream()
        info = await js.consumer_info("LAB", "desk")
        pending.append(info.num_ack_pending or 0)
        return await real(msg, **options)

    monkeypatch.setattr(natsbridge, "smartreceive", slowly)
    run.inside("receive", "lab.>", "--durable=desk", "--count", 2 * AT_ONCE).ended()
    assert max(pending) == AT_ONCE


@pytest.mark.parametrize("lost", [2, 99])
def test_what_is_not_confirmed_is_acknowledged_again(
    run: Runner, server: NatsServer, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    send(server, "one")
    calls = []
    real = StoredMsg.ack

    async def ack(self: StoredMsg) -> None:
        calls.append(self)
        if len(calls) <= lost:
            raise NATSBridgeError(NATS_CONNECTION_FAILED, "not confirmed")
        await real(self)

    monkeypatch.setattr(StoredMsg, "ack", ack)
    took = run.inside("receive", "lab.>", *DURABLE, "--count", 1).ended()
    assert ("not confirmed" in took.err) == (lost == 99)
    assert len(calls) == min(lost + 1, sources.ACKS)


def test_after_a_break_nothing_is_said_to_be_missed_and_it_comes(
    run: Runner, server: NatsServer
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    with FaultProxy(server.url) as broker:
        words = "--durable=desk", "--server", broker.url
        process = run.start("receive", "lab.>", *words).says("time ")
        broker.plan = Link(refused=True)
        broker.cut()
        process.says("is lost: trying again")
        send(server, "meanwhile")
        broker.plan = PLAIN
        process.says("Connected again").says("note.txt").stop().ended(130)
    assert "did not come" not in process.err
    [note] = Path(run.cwd, "received").glob("note*.txt")
    assert note.read_text() == "meanwhile"


@pytest.mark.usefixtures("impatient")
def test_what_takes_long_to_save_does_not_come_again(
    run: Runner, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    send(server, "one")
    save = Folder.save

    def slowly(self: Folder, *arguments: Any) -> dict[str, Any]:
        time.sleep(2)
        return save(self, *arguments)

    monkeypatch.setattr(Folder, "save", slowly)
    run.inside("receive", "lab.>", "--durable=desk", "--timeout=1.5").ended()
    assert len(list(Path(run.cwd, "received").glob("note*.txt"))) == 1


def test_a_subject_of_two_streams_is_refused(run: Runner, server: NatsServer) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    run.inside("stream", "create", "KITCHEN", "kitchen.>").ended()
    send(server, "one")
    told = run.inside("receive", "*.a", *DURABLE).failed("STREAM_FAILED", "KITCHEN, LAB")
    assert "a subject of one of them" in told
    run.inside("receive", "lab.*", *DURABLE).ended()
    assert len(list(Path(run.cwd, "received").glob("note*.txt"))) == 1


@pytest.mark.usefixtures("impatient")
def test_files_that_take_long_hold_up_no_message_without_files(
    run: Runner, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that wait for their turn do not come again meanwhile."""
    run.inside("stream", "create", "LAB", "lab.>").ended()
    count = AT_ONCE + 2
    for number in range(count):
        send(server, f"slow {number}", metadata={"kind": "link"})  # which is taken for one
    send(server, "quick")
    real = natsbridge.smartreceive
    came = []

    async def slowly(msg: StoredMsg, **options: Any) -> dict[str, Any]:
        if b'"link"' in msg.data:
            await asyncio.sleep(2)
        env = await real(msg, **options)
        came.append(len(msg.data))
        return env

    monkeypatch.setattr(natsbridge, "smartreceive", slowly)
    run.inside("receive", "lab.>", "--durable=desk", "--timeout=3").ended()
    assert len(came) == count + 1
    assert came[0] == min(came)
    assert len(list(Path(run.cwd, "received").glob("note*.txt"))) == count + 1


def test_what_is_acknowledged_to_a_consumer_that_is_gone_is_said_once(
    run: Runner, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.inside("stream", "create", "LAB", "lab.>").ended()
    send(server, "one")
    calls = []
    real = StoredMsg.ack

    async def ack(self: StoredMsg) -> None:
        if not calls:
            await self._inbox._connection.client.jetstream().delete_consumer("LAB", "desk")
        calls.append(self)
        await real(self)

    monkeypatch.setattr(StoredMsg, "ack", ack)
    took = run.inside("receive", "lab.>", *DURABLE, "--count", 1).ended()
    assert "consumer not found" in took.err
    assert len(calls) == 1
    assert len(list(Path(run.cwd, "received").glob("note*.txt"))) == 1


@pytest.mark.parametrize("late", [False, True], ids=["just before", "just after"])
def test_what_comes_just_as_it_ends_comes_again_at_once(server: NatsServer, late: bool) -> None:
    """Nobody has taken it: another one gets it, long before ack_wait."""

    async def work() -> None:
        async with await natsbridge.connect(server.url) as nc:
            await Streams(nc).create("LAB", ["lab.>"])
            source = sources.Stored(await nc.inbox("LAB", "desk"))
            waits = asyncio.create_task(source.next(None))
            await asyncio.sleep(0.1)
            if not late:
                # What nobody has asked for as yet stands for what was asked for and not taken.
                pull = source._inbox._pull
                order = b'{"batch":3,"expires":9000000000}'
                await nc.publish(pull._nms, order, pull._deliver)
                for _ in range(3):
                    await nc.publish("lab.a", b"x")
                for _ in range(1000):
                    if pull.pending_msgs + waits.done() == 3:
                        break
                    await asyncio.sleep(0.01)
            waits.cancel()
            await asyncio.wait([waits])
            if not waits.cancelled():  # one was taken in time
                msg = waits.result()
                assert isinstance(msg, StoredMsg)
                await msg.nak()
            assert [msg async for msg in source.rest()] == []
            if late:
                await nc.publish("lab.a", b"x")
            found = await (await nc.inbox("LAB", "desk")).fetch(3, 1)
            assert len(found) == (1 if late else 3)

    asyncio.run(work())


def test_send_says_whether_it_is_stored(run: Runner, server: NatsServer) -> None:
    run.inside("send", "lab.a", "x", "--durable").failed("stream create NAME 'lab.a'")
    run.inside("stream", "create", "LAB", "lab.>").ended()
    run.inside("send", "lab.a", "x", "--durable").ended()
    assert re.search(r"messages +1, ", run.inside("stream", "info", "LAB").ended().out)


def test_durable_and_queue_do_not_go_together(run: Runner) -> None:
    run.inside("receive", "lab.>", "--durable", "a", "--queue", "b").failed("without --queue")
