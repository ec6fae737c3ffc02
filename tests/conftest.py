"""Real servers for every test: nats-server and this project's file server, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from certificates import Certificates
from command import Broker, Runner
from device import ROUGH
from figures import Figures
from jspeers import JsPeer, start
from proxy import TlsProxy
from scale import SCALE, SEED, dice
from vector_peer import Peer
from vector_server import VectorServer

pytest_plugins = ("checkouts", "mqtt_broker")

NATS_SERVER = str(Path(sys.executable).with_name("nats-server"))
#: Seconds for a server to come up.
START_S = 10
FIGURES = Path(__file__).parents[1] / "build" / "faults"


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach the commands that are tested, where a shell has a job ignore it (`&`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say with which dice and sockets the tests ran, so that a failure can be repeated."""
    terminalreporter.write_line(f"NATSBRIDGE_FAULTS={SCALE} NATSBRIDGE_SEED={SEED}")
    if ROUGH in os.environ:
        terminalreporter.write_line(f"with rough sockets: {ROUGH}={os.environ[ROUGH]}")


class NatsServer:
    """A nats-server process; `url` is where it listens."""

    def __init__(self, folder: Path, *options: str, port: int = -1) -> None:
        before = set(folder.glob("*.ports"))
        self.process = subprocess.Popen(
            [
                *(NATS_SERVER, "-a", "127.0.0.1", "-p", str(port)),
                *("--ports_file_dir", str(folder), *options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._ports = self._ports_file(folder, before)
        self.url = self._ports.read_text().split('"nats"')[1].split('"')[1]
        self.port = int(self.url.rpartition(":")[2])

    def _ports_file(self, folder: Path, before: set[Path]) -> Path:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for path in set(folder.glob("*.ports")) - before:
                if path.read_text().rstrip().endswith("}"):
                    return path
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"nats-server did not start (exit code {self.process.poll()})")

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(10)

    def kill(self) -> None:
        """End it without warning. Its file of ports would stay, where another's may have its name
        soon: numbers of processes come again."""
        self.process.kill()
        self.process.wait(10)
        self._ports.unlink(missing_ok=True)

    def __enter__(self) -> NatsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class WebSocketServer(NatsServer):
    """A nats-server that browsers reach too, at `websocket`."""

    def __init__(self, folder: Path) -> None:
        config = folder / "nats.conf"
        config.write_text('websocket { host: "127.0.0.1", port: -1, no_tls: true }')
        super().__init__(folder, "-c", str(config))
        (ports,) = folder.glob("*.ports")
        self.websocket: str = json.loads(ports.read_text())["websocket"][0]


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on, and to which a server can come back.

    They are below those that the system gives to outgoing connections: a client that tries one
    of these again and again while nobody listens meets itself there in the end, and stays.
    """
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < n:
            port = random.randrange(10_000, 32_000)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports


@contextlib.contextmanager
def cluster(folder: Path, n: int) -> Iterator[list[NatsServer]]:
    """Servers that know of each other, and tell."""
    routes = free_ports(n)
    common = ["--cluster_name", "c", "--routes", ",".join(f"nats://127.0.0.1:{r}" for r in routes)]
    with contextlib.ExitStack() as stack:
        servers = []
        for route in routes:
            options = [*common, "--cluster", f"nats://127.0.0.1:{route}"]
            servers.append(stack.enter_context(NatsServer(folder, *options)))
        yield servers


class FileServerProcess:
    """`python -m natsbridge.fileserver`; `url` is where it listens, `folder` where it stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "natsbridge.fileserver", "--folder", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline() if ready else ""
        found = [word for word in line.split() if word.startswith("http://")]
        if not found:
            self.stop()
            raise RuntimeError(f"the file server did not start: {line!r}")
        self.url = found[0].rstrip("/")

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server with default limits."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(nats_server: NatsServer) -> str:
    """Where the shared nats-server listens."""
    return nats_server.url


@pytest.fixture(scope="session")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServerProcess]:
    """The project's file server."""
    server = FileServerProcess(tmp_path_factory.mktemp("files"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def file_url(file_server: FileServerProcess) -> str:
    """Where the shared file server listens."""
    return file_server.url


@pytest.fixture(scope="session")
def web_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSocketServer]:
    """A nats-server with a WebSocket."""
    server = WebSocketServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture(scope="session", params=["node", "browser"])
def js(
    request: pytest.FixtureRequest,
    web_broker: WebSocketServer,
    file_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[JsPeer]:
    """The peers in JavaScript, one after the other."""
    folder = tmp_path_factory.mktemp(request.param)
    with start(request.param, web_broker, file_url, folder) as peer:
        yield peer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, and what it and another one have signed."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secure_files(certificates: Certificates, file_url: str) -> Iterator[TlsProxy]:
    """The shared file server, behind TLS."""
    with TlsProxy(file_url, certificates) as proxy:
        yield proxy


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, nats_url: str, file_url: str) -> dict[str, str]:
    """The servers of the tests as the environment's defaults."""
    monkeypatch.setenv("NATS_URL", nats_url)
    monkeypatch.setenv("FILESERVER_URL", file_url)
    monkeypatch.delenv("SIZE_THRESHOLD", raising=False)
    return dict(os.environ)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A nats-server that tells who listens, for the command's tests."""
    folder = tmp_path_factory.mktemp("monitored")
    with NatsServer(folder, "-m", "-1") as server:
        (ports,) = folder.glob("*.ports")
        yield Broker(server.url, json.loads(ports.read_text())["monitoring"][0])


@pytest.fixture
def bare(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The command in an empty folder, with nothing configured."""
    runner = Runner(tmp_path, tmp_path_factory.mktemp("logs"))
    yield runner
    runner.close()


@pytest.fixture
def natsbridge(bare: Runner, broker: Broker, file_url: str) -> Runner:
    """The command, with the tests' servers in its environment."""
    bare.environ.update(NATS_URL=broker.url, FILESERVER_URL=file_url)
    return bare


@pytest.fixture(scope="session")
def vector_server() -> Iterator[VectorServer]:
    """The file server of the vectors."""
    with VectorServer() as files:
        yield files


@pytest.fixture(scope="module")
def vector_peer(nats_url: str) -> Iterator[Peer]:
    """The other end of who runs the vectors."""
    peer = Peer(nats_url)
    yield peer
    peer.close()


class ScriptedHttp:
    """Answers each request with the next of `answers` as it stands, and closes the connection.

    The last answer is repeated. `requests` holds what came, as (request line, headers, body).
    For faults that a real server will not produce.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.read_body = True

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.rstrip().split("\r\n")
            headers = {k.lower(): v for k, _, v in (h.partition(": ") for h in rest)}
            body = b""
            if self.read_body and headers.get("transfer-encoding") == "chunked":
                body = await reader.readuntil(b"0\r\n\r\n")
            elif self.read_body:
                body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append((line, headers, body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
        """Return an HTTP answer."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
        return "\r\n".join(lines).encode() + body


@pytest_asyncio.fixture
async def scripted() -> AsyncIterator[ScriptedHttp]:
    """An HTTP server that answers what the test tells it to."""
    script = ScriptedHttp()
    server = await asyncio.start_server(script.handle, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield script
    server.close()
    await server.wait_closed()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a client, as a broker does."""
    writer.write(b'INFO {"max_payload":1048576}\r\n')
    await reader.readuntil(b"PING\r\n")
    writer.write(b"PONG\r\n")


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Go on until the client hangs up."""
    while await reader.readuntil(b"PING\r\n"):
        writer.write(b"PONG\r\n")


@pytest_asyncio.fixture
async def fake_nats() -> AsyncIterator[Callable[[Talk], Awaitable[str]]]:
    """Starts a server that talks as the given coroutine function does; returns its URL."""
    servers = []

    async def start(talk: Talk) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def open_things() -> tuple[int, int]:
    """Return how many descriptors and threads of ours this process has open."""
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc").exists() else 0
    threads = sum(t.name.startswith("natsbridge") for t in threading.enumerate())
    return descriptors, threads


@pytest.fixture
def things() -> Callable[[], tuple[int, int]]:
    """Counts open descriptors and threads."""
    return open_things


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The test's own dice."""
    return dice(request.node.name)


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Where figures are noted, unless the run is a quick one, whose figures mean little."""
    return Figures(None if SCALE == "quick" else FIGURES)
