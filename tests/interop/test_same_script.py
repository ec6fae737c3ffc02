"""The same script gives the same results and errors on the firmware and through natsbridge.sync."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificates, NKey
from conftest import NatsServer
from device import FIRMWARE, command
from fault_proxy import PLAIN, FaultProxy, Link
from natsbridge import sync

SIDES = ("firmware", "host")
SCRIPT = Path(__file__).with_name("script_device.py")
#: Seconds for all steps. They take 20, and a minute where a dozen other processes run.
PATIENCE_S = 180
#: Blocks of 512 bytes that a file of the script may have: its disk is full then.
BLOCKS = 800


#: Headers as others may write them; clients of this project do not.
ODD = (
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\na:b\r\nc:\td\r\n\r\n",
    b"NATS/1.0\r\na: 1\r\na: 2\r\n\r\n",
    b"NATS/1.0\r\na: b: c\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\na: b\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\na: b\r\n\r\n",
    b"NATS/1.0 200\r\n\r\n",
    b"NATS/1.0\r\na: \xff\r\n\r\n",
    b"NATS/1.0 abc\r\na: b\r\n\r\n",
    b"NATS/1.0 4044\r\n\r\n",
    b"NATS/1.0",
    b"junk\r\n\r\n",
    b"\xff",
)


class Responder:
    """Answers on interop.echo with the same, on interop.odd with odd headers; and interop.sign.

    interop.cut and interop.mend cut and mend the `line`.
    """

    def __init__(self, nats_url: str, line: FaultProxy) -> None:
        self.line = line
        self.key = NKey("user")
        self._nc = sync.connect(nats_url)
        self._requests = self._nc.subscribe("interop.*")
        self._raw = socket.create_connection(("127.0.0.1", int(nats_url.rpartition(":")[2])))
        self._raw.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for msg in self._requests:
            if msg.subject == "interop.odd":
                headers = ODD[int(msg.data)]
                size = len(headers)
                line = f"HPUB {msg.reply} {size} {size + 1}\r\n".encode()
                self._raw.sendall(line + headers + b"!\r\n")
            elif msg.subject == "interop.sign":
                self._nc.publish(msg.reply, self.key.sign(msg.data))
            elif msg.subject in ("interop.cut", "interop.mend"):
                self.line.plan = Link(refused=True) if msg.subject == "interop.cut" else PLAIN
                self.line.cut()
                self._nc.publish(msg.reply, b"")
            else:
                self._nc.publish(msg.reply, msg.data, headers=msg.headers)

    def close(self) -> None:
        """End the thread and the connections."""
        self._nc.close()
        self._raw.close()
        self._thread.join(10)


def secure_server(folder: Path, certificates: Certificates, nkey: str) -> NatsServer:
    """A broker with TLS for one user."""
    config = folder / "nats.conf"
    users = f"authorization {{ users = [ {{ nkey: {nkey} }} ] }}"
    config.write_text(certificates.nats("timeout: 5") + users)
    return NatsServer(folder, "-c", str(config))


def steps(side: str, *arguments: str) -> dict[str, Any]:
    """What the script prints on one side."""
    line, place = [sys.executable, "-u", str(SCRIPT), *arguments], {}
    if side == "firmware":
        line, place = command(SCRIPT, *arguments, heap="8M", path=FIRMWARE)
    process = subprocess.Popen(
        ["sh", "-c", f'ulimit -f {BLOCKS} && exec "$@"', "sh", *line],
        **place,
        stdout=subprocess.PIPE,
        text=True,
        restore_signals=False,  # a file that is too long is an error, not the end
    )
    try:
        out, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    assert process.returncode == 0, out[-3000:]
    lines = [json.loads(line) for line in out.split("\n") if line]
    assert len(dict(lines)) == len(lines), "two steps of one name"
    return dict(lines)


def run(side: str, file_url: str, folder: Path) -> dict[str, Any]:
    """Run the script on one side, with brokers of its own: what it prints, step by step."""
    certificates = Certificates(folder)
    (folder / "files").mkdir()
    with (
        NatsServer(folder) as broker,
        FaultProxy(broker.url) as line,
        contextlib.closing(Responder(broker.url, line)) as responder,
        secure_server(folder, certificates, responder.key.public) as secure,
    ):
        key = responder.key.public
        arguments = secure.url, str(certificates.ca), key, line.url
        return steps(side, broker.url, file_url, str(folder / "files"), *arguments)


@pytest.fixture(scope="module")
def results(
    file_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the firmware and the host print. Both run at a time: they wait for most of theirs."""
    folders = [tmp_path_factory.mktemp(side) for side in SIDES]
    with ThreadPoolExecutor() as pool:
        firmware, host = pool.map(run, SIDES, [file_url] * 2, folders)
    return firmware, host


def test_both_sides_take_every_step(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    firmware, host = results
    assert list(firmware) == list(host)
    assert len(firmware) > 480


def test_results_and_errors_are_the_same(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    firmware, host = results
    differences = {
        name: {"firmware": firmware[name], "host": host.get(name)}
        for name in firmware
        if firmware[name] != host.get(name)
    }
    assert differences == {}, json.dumps(differences, indent=0)


def test_no_error_is_without_a_message(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for side in results:
        assert [name for name, r in side.items() if r[0] == "error" and not r[2]] == []


def test_what_an_error_says_where_both_say_it(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for side in results:
        named = [r for name, r in side.items() if name.startswith("a wrong ")]
        assert [*named, side["smartreceive of nothing says so"]] == [["ok", True]] * 5


def test_what_took_too_long_is_an_upload_only_where_something_is_uploaded(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for side in results:
        found = side["no time for a message without links"]
        assert found == ["error", "NATS_CONNECTION_FAILED", True]


def test_an_empty_message_is_true_like_any_other(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for side in results:
        assert side["an empty message is one too"] == ["ok", True]


def test_what_fails_on_this_side_is_an_argument_and_costs_nothing_else(
    results: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    for side in results:
        for how in ("by link", "direct"):
            assert side[f"a full disk, {how}"] == ["ok", ["INVALID_ARGUMENT", True, True]]
        rooms = [r[1] for name, r in side.items() if name.startswith("a sink without room")]
        assert len(rooms) == 8
        assert {(code, stands) for code, _, stands, _ in rooms} == {("INVALID_ARGUMENT", True)}
        # The first payload was fetched once, and again by the receiver that has room.
        assert {fetched for *_, fetched in rooms} == {2}
        stands = [r for name, r in side.items() if name.endswith("costs no connection")]
        assert stands == [["ok", True]] * 3
        refused = [r[1] for name, r in side.items() if name.startswith("smartreceive with ")]
        assert refused.count("INVALID_ARGUMENT") == len(refused) - 3
