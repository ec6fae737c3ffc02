"""The peers in JavaScript of tests/interop/peers/: a Node.js process, and a page in Chromium.

Both take their orders over NATS; `make test-peers` installs what they import.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from natsbridge import NATSBridgeError, sync

SOURCES = Path(__file__).parent / "interop" / "peers"
#: Where `make test-peers` puts the packages from npm.
PACKAGES = Path(__file__).parents[1] / "build" / "npm" / "node_modules"
NODE = str(Path(sys.executable).with_name("node"))
CHROMIUM = os.environ.get("CHROMIUM", "chromium")
#: Seconds for a program to come up: a browser on a busy machine takes its time.
START_S = 60
#: Seconds for an answer to an order.
ANSWER_S = 30


class Faulty(Exception):
    """A peer that failed otherwise than by a code of the protocol."""


class JsPeer:
    """A peer that does what it is asked.

    Attributes:
        name, id: who it is on the wire.
        files: the file server's URL, for itself and for whoever exchanges links with it.
        inbox: the subject on which it takes messages.
    """

    def __init__(self, name: str, nats_url: str, files: str) -> None:
        self.name, self.id = name, f"{name}-1"
        self.files = files
        unique = uuid.uuid4().hex
        self.orders, self.inbox = f"orders.{unique}", f"to.{unique}"
        self._nc = sync.connect(nats_url, name=f"who orders {name}")
        self._is_gone = False

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order; returns the answer, or what the peer refused it with."""
        # Not every test after it waits for a peer that hangs.
        answer = None if self._is_gone else self._request(order, ANSWER_S)
        if answer is None:
            self._is_gone = True
            raise Faulty(f"the {self.name} peer does not answer")
        if answer.get("error") == "FAULT":
            raise Faulty(answer["message"])
        return answer

    def _request(self, order: dict[str, Any], timeout: float) -> dict[str, Any] | None:
        msg = self._nc.request(self.orders, json.dumps(order).encode(), timeout)
        return None if msg is None else json.loads(msg.data)

    def wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Return when the peer answers."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            # Nobody may be there yet; or somebody who only listens to all that passes by.
            with contextlib.suppress(NATSBridgeError):
                if self._request({"do": "subscribe", "subject": self.inbox}, 1):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the {self.name} peer did not start: {log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Let the peer end."""
        try:
            self.ask(do="stop")
        finally:
            self._nc.close()


@contextlib.contextmanager
def program(log: Path, *command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with children of its own; with it, all of them end."""
    with log.open("wb") as errors:
        options = {"stdout": errors, **options}
        process = subprocess.Popen(command, stderr=errors, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        if process.stdout:
            process.stdout.close()


def sources(folder: Path) -> Path:
    """Return a folder in which the peers can run: Node.js looks for packages beside a file."""
    if not PACKAGES.is_dir():
        raise RuntimeError("the peers' packages are not there: use make test-peers")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(PACKAGES)
    return folder


class Broker(Protocol):
    """Where a nats-server listens."""

    url: str
    websocket: str


def start(
    name: str, broker: Broker, files: str, folder: Path
) -> contextlib.AbstractContextManager[JsPeer]:
    """The peer of that name, "node" or "browser"; `files` is the file server's own URL."""
    if name == "node":
        return node(broker.url, files, folder)
    return browser(broker, files, folder)


@contextlib.contextmanager
def node(nats_url: str, files: str, folder: Path) -> Iterator[JsPeer]:
    """The Node.js peer, and the file server's own URL."""
    script = sources(folder / "node") / "node_peer.mjs"
    peer = JsPeer("node", nats_url, files)
    log = folder / "node.log"
    with program(log, NODE, str(script), nats_url, files, peer.orders) as process:
        peer.wait(process, log)
        yield peer
        peer.stop()
        # It ends by itself once nothing is left to do: no socket, no timer.
        assert process.wait(10) == 0, log.read_text()


@contextlib.contextmanager
def browser(broker: Broker, files: str, folder: Path) -> Iterator[JsPeer]:
    """The page in Chromium, with the file server under the page's origin."""
    page = sources(folder / "page")
    bundle = [str(PACKAGES / ".bin" / "esbuild"), "page.mjs", "--bundle", "--format=esm"]
    subprocess.run([*bundle, "--outfile=page.js", "--log-level=warning"], cwd=page, check=True)
    with contextlib.ExitStack() as stack:
        command = [NODE, str(page / "page_server.mjs"), str(page), files]
        log = folder / "page_server.log"
        server = stack.enter_context(program(log, *command, stdout=subprocess.PIPE))
        assert server.stdout is not None
        ready, _, _ = select.select([server.stdout], [], [], START_S)
        origin = server.stdout.readline().decode().strip() if ready else ""
        assert origin, log.read_text()
        peer = JsPeer("browser", broker.url, origin)
        profile = folder / "profile"
        url = f"{origin}/page.html?broker={broker.websocket}&orders={peer.orders}"
        log = folder / "chromium.log"
        command = chromium(profile, url)
        process = stack.enter_context(program(log, *command))
        peer.wait(process, log)
        yield peer
        peer.stop()


def chromium(profile: Path, url: str) -> list[str]:
    """The command line of a browser that nobody sees and that keeps nothing."""
    options = ["--headless=new", "--disable-gpu", "--enable-logging=stderr"]
    options += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # it refuses to have one as root
    return [CHROMIUM, *options, f"--user-data-dir={profile}", url]
