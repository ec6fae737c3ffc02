"""Faults of users, brokers and networks: the right error, nothing half-done, and on it goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest

from conftest import FileServerProcess, NatsServer
from device import FIRMWARE, Process, main_of, micropython
from natsbridge import sync
from scripted import INFO, ScriptedBroker, greet

SCRIPT = Path(__file__).with_name("faults_device.py")
MPY = FIRMWARE.parent / "build" / "firmware"


def start(
    what: str, broker: str, files: str, folder: Path, heap: str = "256K", path: Path = FIRMWARE
) -> Process:
    if heap != "256K":
        main = main_of(SCRIPT, folder)
        return micropython(main, what, broker, files, str(folder), heap=heap, path=path)
    return micropython(SCRIPT, what, broker, files, str(folder), heap=heap, path=path)


def run(
    what: str, broker: str, files: str, folder: Path, heap: str = "256K", path: Path = FIRMWARE
) -> list[str]:
    """The lines that the device prints."""
    with start(what, broker, files, folder, heap, path) as process:
        return process.rest(40).splitlines()


@pytest.fixture
def fake() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    brokers = []

    def begin(talk: Callable[[socket.socket], None]) -> str:
        brokers.append(ScriptedBroker(talk))
        return brokers[-1].url

    yield begin
    for broker in brokers:
        broker.close()


def test_bad_input_leaves_nothing_open_nothing_published_and_the_connection_usable(
    nats_url: str, file_server: FileServerProcess, tmp_path: Path
) -> None:
    def files() -> set[Path]:
        return {path for path in file_server.folder.iterdir() if path.suffix != ".upload"}

    before = files()
    with sync.connect(nats_url) as nc, nc.subscribe("f") as sub:
        lines = run("bad_input", nats_url, file_server.url, tmp_path)
        # A source that fails in mid-message costs the connection, never a wrong message.
        assert sub.next(0.3) is None
    assert files() == before
    assert lines[:10] == [
        "INVALID_ARGUMENT",
        "INVALID_PAYLOAD_TYPE",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "('INVALID_ARGUMENT', True)",
        "('INVALID_ARGUMENT', True)",
        "UPLOAD_FAILED",
        "INVALID_ARGUMENT",
        "DOWNLOAD_FAILED",
        "NATS_CONNECTION_FAILED",
    ]
    received = [
        "INVALID_ENVELOPE",
        "DESERIALIZATION_ERROR",
        "DOWNLOAD_FAILED",
        "DESERIALIZATION_ERROR",
    ]
    assert lines[10:-1] == received * 2
    assert lines[-1] == "still here 0 []"


def test_a_large_message_that_was_read_past_is_refused(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("large", nats_url, file_url, tmp_path)
    assert lines == ["3000 INVALID_ARGUMENT b'small'", "5000"]


def test_callbacks_can_not_break_into_a_message_and_their_errors_are_their_own(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("callback", nats_url, file_url, tmp_path)
    assert lines == ["INVALID_ARGUMENT", "None", "mine", "b'still here'"]


def test_in_a_small_heap_links_leave_room_for_what_follows(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("after_links", nats_url, file_url, tmp_path, heap="74K", path=MPY)
    assert lines == ["UPLOAD_FAILED 500", "500"] * 15


def test_what_went_wrong_is_told_where_no_heap_is_left_to_clean_up(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("full", nats_url, file_url, tmp_path, heap="96K", path=MPY)
    assert lines == ["NATS_CONNECTION_FAILED"]
    assert run("claimed", nats_url, file_url, tmp_path) == ["3000"]


def test_errors_and_messages_have_the_heap_of_code_that_can_be_loaded_again(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("short", nats_url, file_url, tmp_path, heap="128K", path=MPY)
    assert lines == ["INVALID_ARGUMENT", "1000"]


def test_a_message_for_which_the_heap_is_too_full_comes_when_it_is_not(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("tight", nats_url, file_url, tmp_path, heap="128K", path=MPY)
    assert lines == ["PAYLOAD_TOO_LARGE", "1500"]


def test_messages_that_do_not_fit_the_queue_are_told(
    nats_url: str, file_url: str, tmp_path: Path
) -> None:
    lines = run("overflow", nats_url, file_url, tmp_path)
    assert lines == ["True", "7 PAYLOAD_TOO_LARGE 20", "None"]


def test_a_broker_that_restarts_is_found_again(file_url: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with NatsServer(tmp_path) as first:
            device = stack.enter_context(start("restart", first.url, file_url, tmp_path))
            assert device.stdout is not None
            assert device.stdout.readline() == "ready\n"
            port = first.port
        with NatsServer(tmp_path, port=port) as second:

            async def speak() -> None:
                nc = await nats.connect(second.url)
                while device.poll() is None:
                    await nc.publish("faults", b"again")
                    await asyncio.sleep(0.1)
                await nc.close()

            asyncio.run(asyncio.wait_for(speak(), 20))
            assert device.rest(10) == "b'again' True\n"


TRUNCATED = {
    "small": b"MSG faults 1 10\r\nabc",
    "large": b"MSG faults 1 5000\r\n" + b"x" * 3000,
    "no line end": b"MSG faults 1 3\r\nabcdef",
    "half a line": b"MSG faults 1",
    "a lying size": b"MSG faults 1 -1\r\n\r\n",
    "a size of 5,000 digits": b"MSG faults 1 " + b"9" * 5000 + b"\r\n",
    "no NATS": b"HELLO\r\n",
    "a slow consumer's end": b"",
}


@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED.keys())
def test_a_message_that_is_not_whole_is_never_delivered(
    data: bytes, fake: Callable[[Callable[[socket.socket], None]], str], tmp_path: Path
) -> None:
    def talk(connection: socket.socket) -> None:
        greet(connection)
        connection.sendall(data)

    # Of a large one, the data can't be had; of the others, not even the message.
    assert run("listen", fake(talk), "", tmp_path) == ["NATS_CONNECTION_FAILED"]


def test_what_brokers_may_send_is_understood(
    fake: Callable[[Callable[[socket.socket], None]], str], tmp_path: Path
) -> None:
    long_info = INFO[:-3] + b',"connect_urls":[' + b",".join([b'"1.2.3.4:4222"'] * 500) + b"]}\r\n"

    def talk(connection: socket.socket) -> None:
        greet(connection, long_info)
        for byte in b"+OK\r\nPING\r\n" + long_info + b"MSG faults 1  3\r\nabc\r\n":
            connection.sendall(bytes((byte,)))
        connection.recv(100)

    assert run("listen", fake(talk), "", tmp_path) == ["b'abc'"]


def silent(connection: socket.socket) -> None:
    connection.recv(100)


def tls(connection: socket.socket) -> None:
    connection.sendall(INFO[:-3] + b',"tls_required":true}\r\n')
    assert connection.recv(100) == b"", "credentials went to a broker that demands TLS"


def refusing(connection: socket.socket) -> None:
    connection.sendall(INFO)
    connection.recv(4096)
    connection.sendall(b"-ERR 'Authorization Violation'\r\n")


def web(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("talk", [silent, tls, refusing, web], ids=lambda f: f.__name__)
def test_a_broker_that_does_not_take_us_is_an_error_in_time(
    talk: Callable[[socket.socket], None],
    fake: Callable[[Callable[[socket.socket], None]], str],
    tmp_path: Path,
) -> None:
    assert run("connect", fake(talk), "", tmp_path) == ["NATS_CONNECTION_FAILED True"]
