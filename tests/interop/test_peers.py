"""Peers in JavaScript, written from PROTOCOL.md alone, exchange every payload type with both sides.

A Node.js process on nats.js, and a page in Chromium over NATS's WebSocket: see tests/jspeers.py.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import vectors
from conftest import FileServerProcess, WebSocketServer
from jspeers import JsPeer
from natsbridge import NATSBridgeError, sync
from vector_firmware import Device
from vector_peer import SUBJECT

pytestmark = pytest.mark.peers

TABLE = pa.table({"a": [1, 2, None], "b": ["x", "ü", None], "c": [0.5, None, -1e300]})


def arrow_spec(table: pa.Table) -> dict[str, Any]:
    """A value spec of a table, for sides that decode Arrow and for those that do not."""
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    raw = stream.getvalue()
    about = vectors.describe(raw, "binary")
    return {"columns": table.to_pydict(), "base64": base64.b64encode(raw).decode(), **about}


#: Every type, with what is hard about it.
EVERY = [
    ["text", {"text": "Grüße, 世界 🙂\n\x00\r\n\u2028\ufeff"}, "text"],
    ["", {"text": ""}, "text"],
    ["dictionary", {"json": {"a": [1, -2.5, None, {"ü": 'x\n"\\\u2028/'}]}}, "dictionary"],
    ["whole", {"json": [2**53 + 1, -(2**63), 10**40, 1e300]}, "dictionary"],
    ["keys", {"json": {"": {}, "__proto__": [[]], "1": True}}, "dictionary"],
    ["jsontable", {"json": [{"x": 1, "y": "ä"}, {"x": 2, "z": None}]}, "jsontable"],
    ["ü/../image.jpg", {"pattern": 30_000}, "image"],
    ["audio", {"pattern": 1_000}, "audio"],
    ["video", {"base64": "AAEC/w=="}, "video"],
    ["binary", {"base64": ""}, "binary"],
    ["table", {"arrow": arrow_spec(TABLE)}, "arrowtable"],
]
#: What goes by link under each threshold.
THRESHOLDS = {
    10**6: ["direct"] * len(EVERY),
    0: ["link"] * len(EVERY),
    20_000: ["link" if name.endswith("image.jpg") else "direct" for name, _, _ in EVERY],
}


class Firmware:
    """The firmware on MicroPython's unix port."""

    name = "firmware"

    def __init__(self, nats_url: str, folder: Path) -> None:
        self._device = Device(nats_url, folder)

    def send(self, to: str, data: list[Any], options: dict[str, Any]) -> None:
        """Send what value specs stand for."""
        send = [to, self._device.values(data), options]
        assert self._device.ask({"send": send, "who": None}) == {"sent": True}

    def receive(self, options: dict[str, Any], who: dict[str, str] | None) -> vectors.Result:
        """Take the next message, as a result of vectors.py."""
        return self._device.ask({"receive": options, "who": who})

    def close(self) -> None:
        """End it."""
        self._device.close()


class Host:
    """The host package, in this process."""

    name = "host"

    def __init__(self, nats_url: str, folder: Path) -> None:
        self._url = nats_url
        self._nc = sync.connect(nats_url)
        self._sub = self._nc.subscribe(SUBJECT)
        self._nc.flush()

    def send(self, to: str, data: list[Any], options: dict[str, Any]) -> None:
        """Send what value specs stand for."""
        values = vectors.data({"data": data}, arrow=pa.table)
        sync.smartsend(to, values, nats_connection=self._nc, **options)
        self._nc.flush()

    def receive(self, options: dict[str, Any], who: dict[str, str] | None) -> vectors.Result:
        """Take the next message, as a result of vectors.py."""
        msg = self._sub.next(10)
        assert msg is not None, "nothing came"
        with sync.connect(self._url, **(who or {})) as nc:
            try:
                env = sync.smartreceive(msg, nats_connection=nc, **options)
            except NATSBridgeError as e:
                return {"error": e.code, "message": e.message}
        payloads = [
            [name, vectors.describe(value, kind), kind] for name, value, kind in env["payloads"]
        ]
        return {"payloads": payloads, "fields": env}

    def close(self) -> None:
        """End it."""
        self._nc.close()


@pytest.fixture(scope="module", params=[Firmware, Host], ids=lambda side: side.name)
def side(
    request: pytest.FixtureRequest,
    web_broker: WebSocketServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Firmware | Host]:
    it = request.param(web_broker.url, tmp_path_factory.mktemp("side"))
    yield it
    it.close()


def stored(folder: Path) -> set[Path]:
    """The files that the file server keeps."""
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("odd", [False, True], ids=["our keys", "keys backwards"])
def test_what_a_peer_sends_arrives(
    js: JsPeer, side: Firmware | Host, odd: bool, threshold: int
) -> None:
    options = {"size_threshold": threshold, "odd": odd, "metadata": {"é": [1, {}]}}
    sent = js.ask(do="send", subject=SUBJECT, data=EVERY, options=options)
    assert "error" not in sent, sent
    result = side.receive({"fileserver_url": js.files}, None)
    assert "error" not in result, result
    expected = []
    for (name, spec, kind), [_, about, _] in zip(EVERY, sent["sent"], strict=True):
        if "arrow" in spec:  # as apache-arrow writes it
            spec = {"arrow": {**spec["arrow"], **about}}
        elif "json" not in spec:
            assert vectors.value_problem(spec, about) == ""
        expected.append([name, spec, kind])
    assert vectors.payload_problems(expected, result["payloads"]) == []
    assert [about["transport"] for _, about, _ in sent["sent"]] == THRESHOLDS[threshold]
    assert result["fields"]["metadata"] == {"é": [1, {}]}
    assert result["fields"]["sender_name"] == js.name
    assert result["fields"]["sender_id"] == js.id


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_what_a_peer_is_sent_arrives(js: JsPeer, side: Firmware | Host, threshold: int) -> None:
    options = {"size_threshold": threshold, "fileserver_url": js.files, "sender_name": side.name}
    side.send(js.inbox, EVERY, {**options, "metadata": {"é": [1, {}]}})
    result = js.ask(do="receive", subject=js.inbox, options={})
    assert "error" not in result, result
    assert vectors.payload_problems(EVERY, result["payloads"]) == []
    assert result["transports"] == THRESHOLDS[threshold]
    assert result["fields"]["metadata"] == {"é": [1, {}]}
    assert result["fields"]["sender_name"] == side.name


#: Beyond any threshold; and three that fit no message together.
LARGE = {
    "two megabytes": ([["log.bin", {"pattern": 2_000_000}, "binary"]], ["link"]),
    "three that do not fit": (
        [[str(n), {"pattern": n}, "binary"] for n in (390_000, 400_000, 380_000)],
        ["direct", "link", "direct"],
    ),
}


@pytest.mark.parametrize("what", LARGE)
def test_what_is_large(js: JsPeer, side: Firmware | Host, what: str) -> None:
    data, transports = LARGE[what]
    sent = js.ask(do="send", subject=SUBJECT, data=data, options={})
    assert [about["transport"] for _, about, _ in sent["sent"]] == transports
    result = side.receive({"fileserver_url": js.files}, None)
    assert vectors.payload_problems(data, result["payloads"]) == []

    side.send(js.inbox, data, {"fileserver_url": js.files, "size_threshold": 500_000})
    result = js.ask(do="receive", subject=js.inbox, options={})
    assert vectors.payload_problems(data, result["payloads"]) == []
    assert result["transports"] == transports


def test_an_answer_without_payloads(js: JsPeer, side: Firmware | Host) -> None:
    fields = {
        **{"msg_purpose": "ACK", "reply_to": "peers.back", "reply_to_msg_id": "m-0"},
        **{"correlation_id": "c-ü", "msg_id": "m-1", "receiver_name": "nobody"},
    }
    js.ask(do="send", subject=SUBJECT, data=[], options=fields)
    result = side.receive({"fileserver_url": js.files}, None)
    assert result["payloads"] == []
    assert {key: result["fields"][key] for key in fields} == fields

    side.send(js.inbox, [], {**fields, "fileserver_url": js.files})
    result = js.ask(do="receive", subject=js.inbox, options={})
    assert result["payloads"] == []
    assert {key: result["fields"][key] for key in fields} == fields


def test_a_page_of_another_origin_is_not_let_in(js: JsPeer, file_url: str) -> None:
    """Why the page's server has the file server behind it: as Plik, ours sends no CORS headers."""
    options = {"fileserver_url": file_url, "size_threshold": 0, "fallback_direct": False}
    data = [["a", {"text": "a"}, "text"]]
    sent = js.ask(do="send", subject="peers.nobody", data=data, options=options)
    if js.name == "browser":
        assert sent["error"] == "UPLOAD_FAILED"
    else:
        assert sent["sent"][0][1]["transport"] == "link"


@pytest.mark.parametrize("to", ["name", "id", "another", "all"])
def test_only_whom_a_file_is_for_deletes_it(
    js: JsPeer, side: Firmware | Host, file_server: FileServerProcess, to: str
) -> None:
    data = [["photo", {"pattern": 5_000}, "image"]]
    before = stored(file_server.folder)

    def left() -> int:
        """How many files with this payload are there that were not before."""
        new = stored(file_server.folder) - before
        digest = hashlib.sha256(vectors.pattern(5_000)).digest()
        return sum(hashlib.sha256(path.read_bytes()).digest() == digest for path in new)

    for who in ({"name": "reader", "id": "reader-1"}, {"name": js.name, "id": js.id}):
        address = {
            "name": {"receiver_name": who["name"]},
            "id": {"receiver_id": who["id"], "receiver_name": "another"},
            "another": {"receiver_id": "another", "receiver_name": who["name"]},
            "all": {},
        }[to]
        kept = left()
        if who["name"] == js.name:
            side.send(js.inbox, data, {**address, "fileserver_url": js.files, "size_threshold": 0})
            assert left() == kept + 1
            result = js.ask(do="receive", subject=js.inbox, options={})
        else:
            js.ask(do="send", subject=SUBJECT, data=data, options={**address, "size_threshold": 0})
            assert left() == kept + 1
            result = side.receive({"fileserver_url": js.files}, who)
        assert vectors.payload_problems(data, result["payloads"]) == []
        assert left() == kept + (to in ("another", "all"))
