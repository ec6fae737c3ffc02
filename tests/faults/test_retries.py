"""What a file server's answers have done again: only what may help, and only so often."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fault_proxy import FaultProxy, Link
from figures import Figures
from sides import SIDES, Side

#: FACTS.md, "HTTP".
AGAIN = (408, 429, 500, 502, 503, 504)
FINAL = (400, 401, 403, 404, 413, 501)
#: In `make faults` only.
MORE = (402, 405, 406, 409, 410, 411, 412, 414, 415, 416, 418, 422, 423, 425, 426, 428, 431, 451)
MORE += (505, 507, 508, 511)
#: The request that meets the fault.
STEPS = ("download", "create", "upload")
#: Of an upload, as README's calls have it.
ATTEMPTS = 5
#: Seconds after which a byte that does not come is a time-out.
STALL_S = 10

#: What the n-th request of the step is answered with: status and headers, or a fault.
Answer = Callable[[int], tuple[int, dict[str, str]] | str]


class Server:
    """An HTTP server whose answers to one step are the test's; `asked` has their times."""

    def __init__(self, step: str, answer: Answer) -> None:
        self.asked: list[float] = []
        self.others: list[str] = []
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one segment

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer._handle(self, step, answer)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))

    def _handle(self, request: BaseHTTPRequestHandler, step: str, answer: Answer) -> None:
        line = f"{request.command} {request.path}"
        faulty = line == {
            "download": "GET /file/a/b/x",
            "create": "POST /upload",
            "upload": "POST /file/up",
        }.get(step)
        if not faulty:
            self.others.append(line)
            status, headers = 200, {}
        else:
            self.asked.append(time.monotonic())
            what = answer(len(self.asked))
            if isinstance(what, str):
                self._fault(request, what)
                return
            status, headers = what
        body = b"sorry"
        if status == 200:
            body = {
                "GET /file/a/b/x": b"abc",
                "POST /upload": b'{"id":"up","uploadToken":"t"}',
                "POST /file/up": b'{"id":"f","fileSize":3}',
            }.get(line, b"{}")
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def _fault(self, request: BaseHTTPRequestHandler, what: str) -> None:
        request.close_connection = True
        if what == "silence":
            self._over.wait(3 * STALL_S)
        elif what == "reset":
            linger = struct.pack("ii", 1, 0)
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.connection.close()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


Ask = Callable[..., list[Any]]


@pytest.fixture(scope="module", params=SIDES)
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Has a device or a desktop do one request of a step: what became of it."""
    with Side(request.param, "retries_device.py", tmp_path_factory.mktemp("retries")) as peer:
        assert peer.line() == "ready"

        def do(url: str, step: str, attempts: int = 3, base: int = 1, most: int = 5000) -> Any:
            what = "download" if step == "download" else "upload"
            task = {"url": url, "what": what, "attempts": attempts, "base": base, "most": most}
            peer.say(json.dumps(task))
            return json.loads(peer.line(5 * STALL_S))

        yield do


def code(step: str) -> str:
    return "DOWNLOAD_FAILED" if step == "download" else "UPLOAD_FAILED"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "status", [*FINAL, *(pytest.param(status, marks=pytest.mark.faults) for status in MORE)]
)
def test_what_is_final_is_asked_once(ask: Ask, step: str, status: int) -> None:
    with Server(step, lambda n: (status, {"Retry-After": "0"})) as server:
        said = ask(server.url, step)
    # A 400 may mean that the time to live is too long: then once more, with another one.
    at_most = 2 if (step, status) == ("create", 400) else 1
    assert said == [code(step), 1, status]
    assert len(server.asked) <= at_most


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        pytest.param(step, fault, marks=pytest.mark.faults)
        if step != "download" and fault not in (503, "reset")
        else (step, fault)
        for step in STEPS
        for fault in (*AGAIN, "reset", "closed")
    ],
)
def test_what_another_attempt_may_mend_gets_one(ask: Ask, step: str, fault: int | str) -> None:
    def answer(n: int) -> Any:
        if n > 1:
            return 200, {}
        return (fault, {}) if isinstance(fault, int) else fault

    with Server(step, answer) as server:
        assert ask(server.url, step) == ["ok"]
    assert len(server.asked) == 2


#: Each of these takes more than a second for an upload, whose delays are not the caller's.
SLOW = [
    pytest.param(step, fault, marks=pytest.mark.faults)
    for step in ("create", "upload")
    for fault in ("reset", "closed", 408, 429, 500, 502, 503, 504)
    if (step, fault) != ("upload", 503)
]


@pytest.mark.parametrize(
    ("step", "fault"),
    [*(("download", fault) for fault in (*AGAIN, "reset", "closed")), ("upload", 503), *SLOW],
)
def test_never_more_than_the_attempts_that_are_configured(
    ask: Ask, step: str, fault: int | str
) -> None:
    with Server(step, lambda n: (fault, {}) if isinstance(fault, int) else fault) as server:
        said = ask(server.url, step)
    attempts = 3 if step == "download" else ATTEMPTS
    assert said == [code(step), attempts, fault if isinstance(fault, int) else 0]
    assert len(server.asked) == attempts


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_as_many_attempts_as_the_caller_says(ask: Ask, attempts: int) -> None:
    with Server("download", lambda n: (503, {})) as server:
        assert ask(server.url, "download", attempts)[1] == attempts
    assert len(server.asked) == attempts


@pytest.mark.parametrize("step", ["download", pytest.param("create", marks=pytest.mark.faults)])
def test_a_refused_connection_is_tried_as_often(ask: Ask, step: str) -> None:
    with FaultProxy("http://127.0.0.1:9", Link(refused=True)) as proxy:
        said = ask(proxy.url, step)
    attempts = 3 if step == "download" else ATTEMPTS
    assert said == [code(step), attempts, 0]
    assert proxy.connections == attempts


@pytest.mark.faults
@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_says_nothing_is_asked_again(ask: Ask, step: str) -> None:
    with Server(step, lambda n: "silence" if n == 1 else (200, {})) as server:
        assert ask(server.url, step) == ["ok"]
    assert len(server.asked) == 2
    assert STALL_S - 1 < server.asked[1] - server.asked[0] < 2 * STALL_S


def paused(server: Server) -> float:
    """Seconds between the first two attempts."""
    return server.asked[1] - server.asked[0]


@pytest.mark.parametrize("status", [503, pytest.param(429, marks=pytest.mark.faults)])
def test_retry_after_is_honoured(ask: Ask, status: int) -> None:
    with Server("download", lambda n: (status, {"Retry-After": "1"})) as server:
        ask(server.url, "download", 2)
    assert 0.99 <= paused(server) < 4


def test_retry_after_is_capped_at_max_delay(ask: Ask) -> None:
    with Server("download", lambda n: (503, {"Retry-After": "3600"})) as server:
        ask(server.url, "download", 2, most=300)
    assert 0.29 <= paused(server) < 3


@pytest.mark.faults
@pytest.mark.parametrize("step", ["create", "upload"])
def test_retry_after_of_an_upload_is_capped_too(ask: Ask, step: str) -> None:
    def answer(n: int) -> Any:
        return (503, {"Retry-After": "3600"}) if n == 1 else (200, {})

    with Server(step, answer) as server:
        assert ask(server.url, step) == ["ok"]
    assert 4.9 <= paused(server) < 9


@pytest.mark.parametrize(
    "value", ["soon", "-1", "1e9", "9" * 30, "", "0x10", "Fri, 31 Dec 2100 23:59:59 GMT", "1.5"]
)
def test_a_retry_after_that_is_no_number_of_seconds_is_passed_over(ask: Ask, value: str) -> None:
    with Server("download", lambda n: (503, {"Retry-After": value})) as server:
        assert ask(server.url, "download", 2, most=300) == ["DOWNLOAD_FAILED", 2, 503]
    assert paused(server) < 2


def test_pauses_are_not_all_the_same_and_never_longer_than_max_delay(ask: Ask) -> None:
    """A busy machine adds to them: the shortest tell most."""
    with Server("download", lambda n: (503, {})) as server:
        ask(server.url, "download", 9, base=80, most=80)
    gaps = sorted(b - a for a, b in zip(server.asked, server.asked[1:], strict=False))
    assert gaps[0] >= 0.019
    assert gaps[4] < 0.2
    assert gaps[6] - gaps[0] > 0.004


@pytest.mark.faults
def test_the_pauses_double(ask: Ask) -> None:
    """Of one attempt and the next, at random from a quarter of it on."""
    with Server("download", lambda n: (503, {})) as server:
        ask(server.url, "download", 5, base=40)
    gaps = [b - a for a, b in zip(server.asked, server.asked[1:], strict=False)]
    assert all(gap >= 0.009 * 2**n for n, gap in enumerate(gaps))
    assert sum(gaps) < 6


@pytest.mark.faults
@pytest.mark.parametrize("side", SIDES)
def test_attempts_are_counted_for_the_table(
    side: str, tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> None:
    """How many requests the faults of this page cause at most, of those that are configured."""
    most = 0
    with Side(side, "retries_device.py", tmp_path_factory.mktemp("count")) as peer:
        assert peer.line() == "ready"
        for status in (*AGAIN, *FINAL, *MORE):
            with Server("download", lambda n, status=status: (status, {})) as server:
                task = {"url": server.url, "what": "download", "attempts": 4, "base": 1, "most": 2}
                peer.say(json.dumps(task))
                peer.line()
            assert len(server.asked) == (4 if status in AGAIN else 1), status
            most = max(most, len(server.asked))
    text = f"{side}: {most} requests at most, of 4; {len(AGAIN)} statuses tried again"
    figures.note(8, f"attempts-{side}", text, most == 4)
