"""The proxy does to connections what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fault_proxy import Ending, FaultProxy, Link, Way

DATA = bytes(range(256)) * 400


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what comes, and ends when the client does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def talk(proxy: FaultProxy, data: bytes = DATA, wait_s: float = 10) -> tuple[bytes, str]:
    """Send data, and read to the end: what came back, and how it ended."""
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.settimeout(wait_s)
        got = b""
        resets = []  # told once, to whoever sends or receives then

        def send() -> None:
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            except ConnectionResetError as e:
                resets.append(e)
            except OSError:
                pass  # the other end has gone in order

        sender = threading.Thread(target=send)
        sender.start()
        end = "eof"
        try:
            while piece := client.recv(1 << 16):
                got += piece
        except ConnectionResetError as e:
            resets.append(e)
        except TimeoutError:
            end = "stalled"
            client.shutdown(socket.SHUT_RDWR)
        sender.join(10)
        return got, "reset" if resets else end


def test_nothing_happens_at_first(echo: str) -> None:
    with FaultProxy(echo) as proxy:
        assert talk(proxy) == (DATA, "eof")
        assert talk(proxy) == (DATA, "eof")
        assert proxy.connections == 2


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("split", [1, 7])
def test_pieces_come_through_whole(echo: str, way: str, split: int) -> None:
    with FaultProxy(echo, Link(**{way: Way(split=split)})) as proxy:
        assert talk(proxy, DATA[:3000]) == (DATA[:3000], "eof")


@pytest.mark.parametrize("after", [0, 1, 1000, len(DATA)])
def test_so_many_bytes_come_and_then_the_end(echo: str, after: int) -> None:
    with FaultProxy(echo, Link(down=Way(end_after=after))) as proxy:
        assert talk(proxy) == (DATA[:after], "eof")


def test_a_reset_is_a_reset(echo: str) -> None:
    with FaultProxy(echo, Link(down=Way(end_after=100, ending=Ending.RESET))) as proxy:
        got, end = talk(proxy)
    assert end == "reset"
    assert DATA.startswith(got)


def test_a_half_closed_connection_still_takes_what_comes_the_other_way(echo: str) -> None:
    with FaultProxy(echo, Link(up=Way(end_after=100, ending=Ending.HALF_CLOSE))) as proxy:
        assert talk(proxy) == (DATA[:100], "eof")


def test_a_stall_closes_nothing(echo: str) -> None:
    with FaultProxy(echo, Link(down=Way(end_after=100, ending=Ending.STALL))) as proxy:
        assert talk(proxy, wait_s=0.3) == (DATA[:100], "stalled")


def test_one_byte_is_another(echo: str) -> None:
    with FaultProxy(echo, Link(up=Way(corrupt=70_000))) as proxy:
        got, end = talk(proxy)
    assert end == "eof"
    assert [i for i, (a, b) in enumerate(zip(got, DATA, strict=True)) if a != b] == [70_000]


@pytest.mark.parametrize("split", [None, 1])
def test_what_does_not_pass_is_found_in_any_pieces(echo: str, split: int | None) -> None:
    with (
        FaultProxy(echo, Link(up=Way(split=split))) as pieces,
        FaultProxy(pieces.url, Link(down=Way(end_before=b"word"))) as proxy,
    ):
        assert talk(proxy, b"w wo wor worword more") == (b"w wo wor wor", "eof")


@pytest.mark.parametrize(
    "link", [Link(up=Way(delay_s=0.2)), Link(down=Way(rate=10_000))], ids=["late", "slow"]
)
def test_it_takes_its_time(echo: str, link: Link) -> None:
    with FaultProxy(echo, link) as proxy:
        begin = time.monotonic()
        assert talk(proxy, DATA[:2000]) == (DATA[:2000], "eof")
    assert 0.2 <= time.monotonic() - begin < 5


def test_refused_is_reset_at_once(echo: str) -> None:
    with FaultProxy(echo, lambda n: Link(refused=n == 0)) as proxy:
        assert talk(proxy) == (b"", "reset")
        assert talk(proxy) == (DATA, "eof")


@pytest.mark.parametrize(("ending", "seen"), [(Ending.CLOSE, "eof"), (Ending.RESET, "reset")])
def test_what_there_is_can_be_cut(echo: str, ending: Ending, seen: str) -> None:
    with FaultProxy(echo) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.cut(ending)
        client.settimeout(10)
        try:
            end = "eof" if client.recv(1) == b"" else "data"
        except ConnectionResetError:
            end = "reset"
        assert end == seen


def test_a_server_that_is_not_there(echo: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with FaultProxy(f"nats://127.0.0.1:{port}") as proxy:
        assert talk(proxy)[1] == "reset"
