"""Runs every vector against the firmware on the unix port, over a real nats-server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vectors
from device import micropython
from vector_peer import Peer, by_name, fetch
from vector_server import VectorServer

ABILITIES = {"float64", "bigint"}


class Device:
    """A MicroPython process that takes cases on stdin and answers on stdout."""

    def __init__(self, nats_url: str, folder: Path) -> None:
        self.folder = folder
        script = Path(__file__).with_name("vector_device.py")
        self.process = micropython(script, nats_url, heap="8M", stdin=subprocess.PIPE)
        assert self.answer() == "ready"

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the device died"
        return "ready" if line == "ready\n" else json.loads(line)

    def ask(self, case: dict[str, Any]) -> vectors.Result:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(case, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        result: vectors.Result = self.answer()
        return result

    def value(self, spec: Any, number: int) -> Any:
        """A value spec in the form that the device takes."""
        if not isinstance(spec, dict) or "special" in spec:
            return spec
        if "json" in spec and "as" not in spec:
            return {"json": vectors.expand(spec["json"])}
        path = self.folder / f"value{number}"
        path.write_bytes(vectors.content(spec))
        raw = "base64" in spec or "pattern" in spec or "arrow" in spec
        return {"file": str(path), "form": spec.get("as", "bytes" if raw else "text")}


@pytest.fixture(scope="module")
def device(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    it = Device(nats_url, tmp_path_factory.mktemp("values"))
    yield it
    assert it.process.stdin is not None
    it.process.stdin.close()
    assert it.process.wait(10) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[VectorServer]:
    with VectorServer() as files:
        yield files


@pytest.fixture(scope="module")
def peer(nats_url: str) -> Iterator[Peer]:
    other = Peer(nats_url)
    yield other
    other.close()


def repeated(value: Any) -> Any:
    """`value` with {"repeat", "times"} replaced; the device makes the {"special"} ones itself."""
    if isinstance(value, dict) and value.keys() != {"special"}:
        if value.keys() == {"repeat", "times"}:
            return value["repeat"] * value["times"]
        return {key: repeated(item) for key, item in value.items()}
    return [repeated(item) for item in value] if isinstance(value, list) else value


def runnable(file_name: str) -> list[vectors.Case]:
    return [case for case in vectors.load(file_name) if vectors.runs(case, ABILITIES)]


@pytest.mark.parametrize("case", runnable("receive.json"), ids=by_name)
def test_receive(case: vectors.Case, device: Device, server: VectorServer, peer: Peer) -> None:
    server.serve(vectors.files(case, server.url))
    peer.publish(vectors.wire(case, server.url))
    options = vectors.receive_options(case, server.url)
    result = device.ask({"receive": options, "who": case.get("receiver")})
    assert vectors.receive_problems(case, result, server.deleted) == []


@pytest.mark.parametrize("case", runnable("send.json"), ids=by_name)
def test_send(case: vectors.Case, device: Device, server: VectorServer, peer: Peer) -> None:
    server.serve({})
    peer.sent()
    data = case["data"]
    if isinstance(data, list):
        data = [
            [device.value(part, i) if k == 1 else repeated(part) for k, part in enumerate(p)]
            if isinstance(p, list)
            else p
            for i, p in enumerate(data)
        ]
    options = vectors.place(
        {"fileserver_url": "{fileserver}", **case.get("options", {})}, server.url
    )
    send = [repeated(case["subject"]), data, repeated(options)]
    result = device.ask({"send": send, "who": case.get("sender")})
    messages = peer.sent()
    if "error" in case:
        assert vectors.error_problems(case, result) == []
        assert messages == []
        assert server.stored() == []
        return
    assert "error" not in result, result
    [msg] = messages
    assert msg.subject == vectors.subject(case)

    assert vectors.send_problems(case, msg.data, msg.reply, fetch) == []
