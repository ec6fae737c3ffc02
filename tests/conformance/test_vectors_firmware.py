"""Runs every vector against the firmware on the unix port, over a real nats-server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vectors
from vector_firmware import Device, repeated
from vector_peer import Peer, by_name, fetch
from vector_server import VectorServer

ABILITIES = {"float64", "bigint", "redirects"}


@pytest.fixture(scope="module")
def device(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    it = Device(nats_url, tmp_path_factory.mktemp("values"))
    yield it
    it.close()


def runnable(file_name: str) -> list[vectors.Case]:
    return [case for case in vectors.load(file_name) if vectors.runs(case, ABILITIES)]


@pytest.mark.parametrize("case", runnable("receive.json"), ids=by_name)
def test_receive(
    case: vectors.Case, device: Device, vector_server: VectorServer, vector_peer: Peer
) -> None:
    vector_server.serve(vectors.files(case, vector_server.url))
    vector_peer.publish(vectors.wire(case, vector_server.url))
    options = vectors.receive_options(case, vector_server.url)
    result = device.ask({"receive": options, "who": case.get("receiver")})
    assert vectors.receive_problems(case, result, vector_server.deleted) == []


@pytest.mark.parametrize("case", runnable("send.json"), ids=by_name)
def test_send(
    case: vectors.Case, device: Device, vector_server: VectorServer, vector_peer: Peer
) -> None:
    vector_server.serve({})
    vector_peer.sent()
    options = vectors.place(
        {"fileserver_url": "{fileserver}", **case.get("options", {})}, vector_server.url
    )
    send = [repeated(case["subject"]), device.values(case["data"]), repeated(options)]
    result = device.ask({"send": send, "who": case.get("sender")})
    messages = vector_peer.sent()
    if "error" in case:
        assert vectors.error_problems(case, result) == []
        assert messages == []
        assert vector_server.stored() == []
        return
    assert "error" not in result, result
    [msg] = messages
    assert msg.subject == vectors.subject(case)

    assert vectors.send_problems(case, msg.data, msg.reply, fetch) == []
