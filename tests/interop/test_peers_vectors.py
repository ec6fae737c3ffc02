"""Every vector against the peers, which were written from PROTOCOL.md alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vectors
from conftest import WebSocketServer
from jspeers import JsPeer, start
from vector_peer import SUBJECT, Peer, by_name, columns, fetch
from vector_server import VectorServer

pytestmark = pytest.mark.peers

ABILITIES = {
    "node": {"arrow", "float64", "bigint", "surrogates", "redirects"},
    "browser": {"arrow", "float64", "bigint", "surrogates"},
}


@pytest.fixture(scope="module")
def peer(web_broker: WebSocketServer) -> Iterator[Peer]:
    other = Peer(web_broker.url)
    yield other
    other.close()


@pytest.fixture(scope="module", params=["node", "browser"])
def js(
    request: pytest.FixtureRequest,
    web_broker: WebSocketServer,
    vector_server: VectorServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[JsPeer]:
    folder = tmp_path_factory.mktemp(request.param)
    with start(request.param, web_broker, vector_server.url, folder) as it:
        it.ask(do="subscribe", subject=SUBJECT)
        yield it


@pytest.mark.parametrize("case", vectors.load("receive.json"), ids=by_name)
def test_receive(case: vectors.Case, js: JsPeer, vector_server: VectorServer, peer: Peer) -> None:
    if not vectors.runs(case, ABILITIES[js.name]):
        pytest.skip(f"needs {case['needs']}")
    vector_server.serve(vectors.files(case, js.files))
    peer.publish(vectors.wire(case, js.files))
    options = vectors.receive_options(case, js.files)
    result = js.ask(do="receive", subject=SUBJECT, options=options, who=case.get("receiver", {}))
    assert vectors.receive_problems(case, result, vector_server.deleted) == []


@pytest.mark.parametrize("case", vectors.load("send.json"), ids=by_name)
def test_send(case: vectors.Case, js: JsPeer, vector_server: VectorServer, peer: Peer) -> None:
    vector_server.serve({})
    peer.sent()
    options = vectors.place(case.get("options", {}), js.files)
    order = {"subject": case["subject"], "data": case["data"], "options": options}
    result = js.ask(do="send", who=case.get("sender", {}), **order)
    messages = [msg for msg in peer.sent() if not msg.subject.startswith("orders.")]
    if "error" in case:
        assert vectors.error_problems(case, result) == []
        assert messages == []
        assert vector_server.stored() == []
        return
    assert "error" not in result, result
    [msg] = messages
    assert vectors.send_problems(case, msg.data, msg.reply, fetch, columns) == []
