"""Runs every vector against the host package's two faces, over a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow
import pytest

import make_vectors
import natsbridge
import natsbridge.sync
import vectors
from vector_peer import SUBJECT, Peer, by_name, columns, fetch
from vector_server import VectorServer

T = TypeVar("T")

ABILITIES = {"arrow", "float64", "bigint", "surrogates", "redirects"}
RECEIVE = vectors.load("receive.json")
SEND = vectors.load("send.json")
#: Seconds to wait for a message that was published before.
ARRIVES_S = 10


class Side:
    """One face of the host package: `call` waits for what its functions return."""

    def __init__(self, api: Any, call: Callable[[Any], Any], url: str) -> None:
        self.api = api
        self.call = call
        self.url = url
        self.connection = self.connect({})

    def connect(self, who: dict[str, str]) -> Any:
        return self.call(self.api.connect(self.url, **who))

    def receive(self, case: vectors.Case, server: VectorServer, peer: Peer) -> vectors.Result:
        """Sends the case's message through the broker and receives it."""
        who = case.get("receiver")
        connection = self.connect(who) if who else self.connection
        try:
            subscription = self.call(connection.subscribe(SUBJECT))
            self.call(connection.flush())
            peer.publish(vectors.wire(case, server.url))
            msg = self.call(subscription.next(ARRIVES_S))
            assert msg is not None
            options = vectors.receive_options(case, server.url)
            try:
                env = self.call(self.api.smartreceive(msg, nats_connection=connection, **options))
            except natsbridge.NATSBridgeError as error:
                return {"error": error.code, "message": error.message}
            finally:
                self.call(subscription.unsubscribe())
            payloads = [
                [name, vectors.describe(value, kind), kind] for name, value, kind in env["payloads"]
            ]
            return {"payloads": payloads, "fields": env}
        finally:
            if who:
                self.call(connection.close())

    def send(self, case: vectors.Case, server: VectorServer) -> vectors.Result:
        """Sends the case's data; "msg_json" in the result is what the call returned."""
        who = case.get("sender")
        connection = self.connect(who) if who else self.connection
        try:
            env, msg_json = self.call(
                self.api.smartsend(
                    vectors.subject(case),
                    vectors.data(case, arrow=pyarrow.table),
                    nats_connection=connection,
                    **vectors.send_options(case, server.url),
                )
            )
        except natsbridge.NATSBridgeError as error:
            return {"error": error.code, "message": error.message}
        finally:
            self.call(connection.flush())
            if who:
                self.call(connection.close())
        return {"sent": True, "msg_json": msg_json, "env": env}


@pytest.fixture(scope="module", params=["async", "sync"])
def side(request: pytest.FixtureRequest, nats_url: str) -> Iterator[Side]:
    if request.param == "sync":
        face = Side(natsbridge.sync, lambda result: result, nats_url)
        yield face
        face.connection.close()
        return
    loop = asyncio.new_event_loop()
    face = Side(natsbridge, loop.run_until_complete, nats_url)
    yield face
    face.call(face.connection.close())
    loop.close()


def test_files_on_disk_are_what_the_generator_writes() -> None:
    for name, text in make_vectors.build().items():
        assert (make_vectors.FOLDER / name).read_text(encoding="ascii") == text, name


def test_vectors_stay_small() -> None:
    sizes = [len(text) for text in make_vectors.build().values()]
    assert sum(sizes) < 1_500_000


@pytest.mark.parametrize("case", RECEIVE, ids=by_name)
def test_receive(
    case: vectors.Case, side: Side, vector_server: VectorServer, vector_peer: Peer
) -> None:
    if not vectors.runs(case, ABILITIES):
        pytest.skip(f"needs {case['needs']}")
    vector_server.serve(vectors.files(case, vector_server.url))
    result = side.receive(case, vector_server, vector_peer)
    assert vectors.receive_problems(case, result, vector_server.deleted) == []


@pytest.mark.parametrize("case", SEND, ids=by_name)
def test_send(
    case: vectors.Case, side: Side, vector_server: VectorServer, vector_peer: Peer
) -> None:
    if not vectors.runs(case, ABILITIES):
        pytest.skip(f"needs {case['needs']}")
    vector_server.serve({})
    vector_peer.sent()
    result = side.send(case, vector_server)
    messages = vector_peer.sent()
    if "error" in case:
        assert vectors.error_problems(case, result) == []
        assert messages == []
        assert vector_server.stored() == []
        return
    assert "error" not in result, result
    assert [msg.subject for msg in messages] == [vectors.subject(case)]
    [msg] = messages
    assert vectors.send_problems(case, msg.data, msg.reply, fetch, columns) == []
    assert result["msg_json"].encode() == msg.data
