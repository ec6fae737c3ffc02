"""What waits on flash is sent, in its order, once, whatever becomes of power, network and flash."""

from __future__ import annotations

import asyncio
import errno
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from device import compiled, main_of, micropython
from monitored import MonitoredBroker
from mqtt_broker import MqttServer
from natsbridge import sync

SCRIPT = Path(__file__).with_name("spool_device.py")


class Broker(MonitoredBroker):
    """A broker with a stream for spool.>, that can go and come back."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, f'jetstream {{store_dir: "{folder / "streams"}"}}')
        asyncio.run(self._make())

    async def _make(self) -> None:
        nc = await nats.connect(self.url)
        await nc.jetstream().add_stream(name="SPOOL", subjects=["spool.>"])
        await nc.close()

    def received(self, files: str = "") -> list[dict[str, Any]]:
        """What the stream has, and has not given yet."""
        with sync.connect(self.url, name="desk") as nc:
            found = []
            box = nc.inbox("SPOOL", "test")
            while messages := box.fetch(50, 0):
                for msg in messages:
                    found.append(sync.smartreceive(msg, fileserver_url=files or None))
                    msg.ack()
        return found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    it = Broker(tmp_path)
    yield it
    it.kill()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool's folder, which the device makes."""
    return tmp_path / "spool"


def start(what: str, broker: str, spool: Path, files: str = "-", **options: Any) -> Any:
    main = main_of(SCRIPT, spool.parent)
    return micropython(
        main, what, broker, files, str(spool), heap="160K", path=compiled(), **options
    )


def run(what: str, broker: str, spool: Path, files: str = "-") -> list[str]:
    device = start(what, broker, spool, files)
    try:
        out, _ = device.communicate(timeout=60)
    finally:
        device.kill()
    assert device.returncode == 0, out
    return out.splitlines()


def test_every_kind_waits_and_is_sent_as_it_was(broker: Broker, spool: Path) -> None:
    assert run("kinds", broker.url, spool) == ["False", "False", "2 2", "0 0 0", "True"]
    assert list(spool.iterdir()) == []
    first, second, third = broker.received()
    assert first["payloads"][:2] == [
        ("t", "Grüße", "text"),
        ("d", {"a": [1, 2.5, None]}, "dictionary"),
    ]
    assert first["payloads"][2][1] == [{"x": 1}]
    assert [bytes(p[1]) for p in first["payloads"][3:]] == [
        bytes(range(256)) * 20,
        b"",
        bytes((3000 - i) % 251 for i in range(3000)),
    ]
    assert (first["receiver_name"], first["sender_name"]) == ("desk", "d")
    assert first["metadata"]["k"] == 1
    assert first["metadata"]["spooled"][:2] == "20"
    assert (second["msg_purpose"], second["payloads"]) == ("ACK", [])
    assert third["payloads"] == [("t", "at once", "text")]
    assert "spooled" not in third["metadata"]


def test_what_is_large_goes_by_link_when_it_is_sent(
    broker: Broker, spool: Path, file_url: str, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 600
    (tmp_path / "large.bin").write_bytes(data)
    assert run("link", broker.url, spool, file_url) == ["False", "0"]
    [env] = broker.received(file_url)
    assert env["payloads"] == [("f", data, "binary")]


def test_a_full_spool_refuses(broker: Broker, spool: Path) -> None:
    lines = run("refuse", broker.url, spool)
    kept = [line.split()[0] for line in lines if line.split()[1:2] == ["False"]]
    refused = [line for line in lines if "PAYLOAD_TOO_LARGE" in line]
    assert len(kept) + len(refused) == 7
    assert 2 <= len(kept) <= 5
    assert lines[-2:] == ["True 0", "0"]
    assert [env["payloads"][0][1] for env in broker.received()] == kept
    assert kept == [f"{i}{'x' * 100}" for i in range(len(kept))]


def test_a_full_spool_drops_the_oldest_and_counts(broker: Broker, spool: Path) -> None:
    lines = run("drop", broker.url, spool)
    assert [line for line in lines if "PAYLOAD_TOO_LARGE" in line] == [lines[6]]
    fits, dropped = lines[-2].split()
    got = [env["payloads"][0][1] for env in broker.received()]
    assert fits == "True"
    assert got == [f"{i}{'x' * 100}" for i in range(int(dropped), 6)]
    assert int(dropped) >= 1


def test_while_the_broker_is_away_messages_wait_and_keep_their_order(
    broker: Broker, spool: Path
) -> None:
    device = start("away", broker.url, spool, stdin=subprocess.PIPE)
    assert device.stdout is not None
    assert device.stdin is not None
    lines = []
    try:
        for line in device.stdout:
            lines.append(line.strip())
            if line.startswith("now"):
                if line == "now 3\n":
                    broker.kill()
                elif line == "now 6\n":
                    broker.start()
                device.stdin.write("\n")
                device.stdin.flush()
    finally:
        device.kill()
        device.communicate()
    sent = [line for line in lines if line[0].isdigit()]
    assert sent[:6] == ["0 True 0", "1 True 0", "2 True 0", "3 False 1", "4 False 2", "5 False 3"]
    assert len(sent) == 9
    assert lines[-1] == "end 0"
    assert [env["payloads"][0][1] for env in broker.received()] == [str(i) for i in range(9)]


def test_a_spool_that_a_power_cut_left_is_read(broker: Broker, spool: Path) -> None:
    """Where a rename is not one step, a file can be cut off at any byte, or be damaged."""
    broker.kill()
    start("refuse", broker.url, spool).communicate(timeout=60)
    good = (spool / "0").read_bytes()
    shutil.rmtree(spool)
    spool.mkdir()
    (spool / "part").write_bytes(good[:50])
    cuts = list(range(len(good)))
    for n in cuts:
        (spool / str(n)).write_bytes(good[:n])
    flipped = range(len(cuts), 2 * len(cuts))
    for n in flipped:
        at = n - len(cuts)
        (spool / str(n)).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    last = 2 * len(cuts)
    (spool / str(last)).write_bytes(good)
    broker.start()
    assert run("bad", broker.url, spool) == [f"{last + 1}", f"0 {last} 0"]
    assert {path.name for path in spool.iterdir()} == {f"{n}.bad" for n in range(last)}
    [env] = broker.received()
    assert env["payloads"] == [("t", "0" + "x" * 100, "text")]


def test_a_flash_that_takes_no_new_file_says_why(spool: Path) -> None:
    assert run("flash", "nats://127.0.0.1:1", spool) == [f"{errno.ENOSPC} 0 0"]
    assert list(spool.iterdir()) == []


def test_what_can_not_be_sent_is_refused_and_does_not_wait(spool: Path) -> None:
    assert run("arguments", "nats://127.0.0.1:1", spool) == [
        *("INVALID_PAYLOAD_TYPE", "INVALID_PAYLOAD_TYPE", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        *["INVALID_ARGUMENT"] * 3,
        "0",
    ]
    assert list(spool.iterdir()) == []


def test_arguments_are_checked_before_a_message_waits_or_is_touched(spool: Path) -> None:
    assert run("checked", "nats://127.0.0.1:1", spool) == [
        *["INVALID_ARGUMENT"] * 5,
        "TypeError",
        *["INVALID_ARGUMENT"] * 6,
        "0 False",
        *["INVALID_ARGUMENT"] * 4,
        "1 0",
    ]


def test_a_stream_that_could_not_be_sent_waits_whole(
    broker: Broker, spool: Path, file_url: str, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 8
    (tmp_path / "data.bin").write_bytes(data)
    device = start("streams", broker.url, spool, file_url, stdin=subprocess.PIPE)
    assert device.stdout is not None
    assert device.stdin is not None
    lines = []
    try:
        for line in device.stdout:
            lines.append(line.strip())
            if line.startswith("now"):
                if "stop" in line:
                    broker.signal(signal.SIGSTOP)
                else:
                    broker.kill()  # what it was told meanwhile is gone
                    broker.start()
                device.stdin.write("\n")
                device.stdin.flush()
    finally:
        device.kill()
        device.communicate()
    assert lines == ["True", "now stop", "False", "False", "now go on", "0 0"]
    once = bytes((3000 - i) % 251 for i in range(3000))
    got = [bytes(env["payloads"][0][1]) for env in broker.received(file_url)]
    assert got == [once, data[10:], once]


def test_a_full_spool_is_emptied_first_where_the_broker_is_there(
    broker: Broker, spool: Path
) -> None:
    x, y = "x" * 100, "y" * 300
    lines = [f"{x} False 1", f"{x} False 2", f"{y} True 0", "0"]
    assert run("full", broker.url, spool) == lines * 2
    assert [env["payloads"][0][1] for env in broker.received()] == [x, x, y] * 2


def test_what_can_never_fit_drops_nothing(spool: Path) -> None:
    x, y = "x" * 100, "y" * 930
    lines = run("never", "-", spool)
    assert lines == [f"{x} False 1", f"{y} PAYLOAD_TOO_LARGE 1", "0"]


def test_while_the_heap_is_short_a_message_waits(broker: Broker, spool: Path) -> None:
    assert run("heap", broker.url, spool) == ["x False 1", "1 0", "y False 2", "0 0"]
    assert [env["payloads"][0][1] for env in broker.received()] == ["x", "y"]


def test_what_fails_for_another_is_told_by_flush_alone(broker: Broker, spool: Path) -> None:
    assert run("others", broker.url, spool) == ["False", "y False 2", "STREAM_FAILED", "2"]


def test_what_was_set_aside_is_never_overwritten(broker: Broker, spool: Path) -> None:
    lines = run("aside", broker.url, spool)
    assert lines == ["x False 1", "0 1", "y False 1", "0 2", "z False 1", "['0.bad', '1.bad', '2']"]
    assert [(spool / f"{n}.bad").read_bytes()[:1] for n in (0, 1)] == [b"x", b"y"]


def test_nor_what_has_the_name_that_another_would_get(broker: Broker, spool: Path) -> None:
    spool.mkdir()
    assert run("before", broker.url, spool) == ["0 1", "5.bad b'5'", "6.bad b'5.bad'"]


def test_over_mqtt_messages_wait_and_it_says_why(spool: Path, tmp_path: Path) -> None:
    with MqttServer(tmp_path) as server:
        assert run("mqtt", server.mqtt, spool) == [
            *("x False 1", "INVALID_ARGUMENT", "y INVALID_ARGUMENT 1", "1 0")
        ]


def test_inside_a_callback_messages_wait(broker: Broker, spool: Path) -> None:
    assert run("inside", broker.url, spool) == [
        *("x1 False 1", "INVALID_ARGUMENT", "x0 False 2", "INVALID_ARGUMENT", "0 0 0")
    ]
    assert [env["payloads"][0][1] for env in broker.received()] == ["x1", "x0"]


def test_a_callback_that_drops_what_is_being_sent_costs_no_other(
    broker: Broker, spool: Path
) -> None:
    x, y, z = ("x" * 100, "y" * 100, "z" * 100)
    lines = run("under", broker.url, spool)
    assert lines == [f"{x} False 1", f"{y} False 2", f"{z} False 2", "0 0 1"]
    assert [env["payloads"][0][1] for env in broker.received()] == [x, y, z]


def test_a_folder_that_can_be_no_spool_is_said(spool: Path) -> None:
    spool.mkdir()
    (spool / "file").touch()
    (spool / "full" / "part").mkdir(parents=True)
    lines = run("folders", "-", spool)
    assert [line.split()[:2] for line in lines] == [
        ["INVALID_ARGUMENT:", path]
        for path in ("None", *(f"'{spool}/{name}'" for name in ("file", "none/spool", "full/part")))
    ]
    assert all("needs a folder of its own" in line for line in lines)


def test_a_stray_file_with_a_large_number_costs_no_time(broker: Broker, spool: Path) -> None:
    spool.mkdir()
    (spool / "7").write_bytes(b"")
    (spool / "99999999999").write_bytes(b"")
    assert run("alien", broker.url, spool) == ["2", "x False 3", "0 2"]
    assert [env["payloads"][0][1] for env in broker.received()] == ["x"]
