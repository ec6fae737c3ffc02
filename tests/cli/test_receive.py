"""natsbridge receive: everything is saved, whole, under a safe name."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import csv, parquet

import natsbridge as nb
from command import Broker, Process, Runner, cells, colours, fits, lines_of_screen, until
from conftest import NatsServer, free_ports
from natsbridge import sync

TABLE = pa.table({"t": [1, 2, 3], "name": ["a", None, "ü"], "x": [0.5, 1.5, 2.5]})
ROWS = [{"a": 1}, {"a": 2, "b": "late"}]


@pytest.fixture
def send(broker: Broker, file_url: str) -> Callable[..., Any]:
    """smartsend to the command's servers."""

    def send(subject: str, data: list[tuple[str, Any, str]], **options: Any) -> Any:
        return sync.smartsend(
            subject, data, broker_url=broker.url, fileserver_url=file_url, **options
        )

    return send


@pytest.fixture
def publish(broker: Broker) -> Callable[..., None]:
    """Publishes what no smartsend would."""

    def publish(subject: str, *messages: bytes | dict[str, Any], reply: str = "") -> None:
        with sync.connect(broker.url) as nc:
            for message in messages:
                data = message if isinstance(message, bytes) else json.dumps(message).encode()
                nc.publish(subject, data, reply)
            nc.flush()

    return publish


def envelope(*payloads: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"correlation_id": "c-1", "msg_id": "m-1", **fields, "payloads": list(payloads)}


def direct(name: str, data: bytes, kind: str = "binary") -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    return {"dataname": name, "payload_type": kind, "transport": "direct", "data": text}


def link(name: str, url: str, size: int, kind: str = "binary") -> dict[str, Any]:
    some = {"dataname": name, "payload_type": kind, "transport": "link"}
    return {**some, "data": url, "size": size}


def saved(folder: Path) -> dict[str, bytes]:
    """The files of a folder but the envelopes; a temporary or hidden one fails the test."""
    files = {p.name: p for p in folder.rglob("*")}
    for name, path in files.items():
        assert path.parent == folder, path
        assert path.is_file(), path
        assert not path.is_symlink(), path
        assert not name.startswith("."), path
    return {n: p.read_bytes() for n, p in files.items() if not is_envelope(p)}


def is_envelope(path: Path) -> bool:
    return ".envelope" in path.name and b'"msg_purpose"' in path.read_bytes()


def envelopes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(folder.iterdir()) if is_envelope(p)]


class Slow:
    """A file server whose files come at once up to a point, and then byte by byte."""

    def __init__(self, size: int, quick: int) -> None:
        self.reached = threading.Event()
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(bytes(quick))
                slow.reached.set()
                try:
                    for _ in range(600):
                        self.wfile.write(b"\0")
                        time.sleep(0.1)
                except OSError:
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def slow() -> Any:
    server = Slow(50_000_000, 5_000_000)
    yield server
    server.close()


def test_everything_is_saved_with_its_envelope(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any]
) -> None:
    subject, picture, video = "all.kinds", os.urandom(50_000), os.urandom(3_000_000)
    forms = {form: natsbridge.cwd / form for form in ("parquet", "csv", "arrow", "json")}
    listening = [
        natsbridge.start(
            *("receive", "all.*", "--out", folder, "--tables", form, "--count", 1),
            *(["--json"] if form == "arrow" else []),
        )
        for form, folder in forms.items()
    ]
    broker.heard(*listening, subject="all.*")
    ids, _ = send(
        subject,
        [
            ("note", "Grüße\n", "text"),
            ("settings", {"iso": 400, "deep": [1, {"a": None}]}, "dictionary"),
            ("rows", ROWS, "jsontable"),
            ("odd", [{"a": 1}, {"a": "x"}], "jsontable"),
            ("data", TABLE, "arrowtable"),
            ("p.jpg", picture, "image"),
            ("v.mp4", video, "video"),
            ("s.wav", b"", "audio"),
        ],
        sender_name="desk",
        metadata={"k": "v"},
    )
    for (form, folder), process in zip(forms.items(), listening, strict=True):
        process.ended()
        files = saved(folder)
        assert files.pop("note.txt") == "Grüße\n".encode()
        assert json.loads(files.pop("settings.json")) == {"iso": 400, "deep": [1, {"a": None}]}
        assert json.loads(files.pop("odd.json")) == [{"a": 1}, {"a": "x"}]
        assert files.pop("p.jpg") == picture
        assert files.pop("v.mp4") == video
        assert files.pop("s.wav") == b""
        assert set(files) == {f"rows.{form}", f"data.{form}"}
        data, rows = files[f"data.{form}"], files[f"rows.{form}"]
        if form == "json":
            assert json.loads(data) == TABLE.to_pylist()
            assert json.loads(rows) == ROWS
            continue
        opened = {
            "parquet": lambda b: parquet.read_table(io.BytesIO(b)),
            "csv": lambda b: csv.read_csv(
                io.BytesIO(b), convert_options=csv.ConvertOptions(strings_can_be_null=True)
            ),
            "arrow": lambda b: pa.ipc.open_stream(b).read_all(),
        }[form]
        assert opened(data).equals(TABLE)
        assert opened(rows).column_names == ["a", "b"]
        assert opened(rows).to_pylist()[1] == ROWS[1]
    (env,) = envelopes(forms["csv"])
    assert env["msg_id"] == ids["msg_id"]
    assert env["sender_name"] == "desk"
    assert env["metadata"] == {"k": "v"}
    by_name = {p["dataname"]: p for p in env["payloads"]}
    assert by_name["data"]["file"] == "data.csv"
    assert by_name["v.mp4"]["transport"] == "link"
    assert by_name["v.mp4"]["size"] == len(video)
    (record,) = listening[2].records
    assert record["subject"] == subject
    assert {k: record[k] for k in env if k != "payloads"} == {
        k: v for k, v in env.items() if k != "payloads"
    }
    assert record["payloads"][4]["file"] == "data.arrow"
    shown = listening[0].out.splitlines()
    fits(shown)
    assert "\x1b" not in listening[0].out
    assert len(shown) == 10
    assert "desk" in shown[2]
    assert "3.0 MB" in shown[8]
    assert "/s" in shown[8]


def hostile_names() -> list[str]:
    dots = ["", ".", "..", "...", "../x", "../../etc/passwd", "/etc/passwd", "a/../../b", ".bashrc"]
    windows = ["con", "NUL", "aux.txt", "COM1", "lpt9.tar.gz", "C:\\x", "\\\\host\\s", "a:b", "x."]
    control = ["\0", "a\0b", "\n", "\r\n", "\x1b[31mred", "\x9b2J", "\u202egpj.exe", "\x7f", "a\tb"]
    ours = [f".{'0' * 32}.part", "x.part", "20260101-000000-m-1.envelope.json", "m-1.envelope.json"]
    long = ["x" * 1024, "ü" * 512, "😀" * 200, "a." + "b" * 500, "." * 300, "x" * 254 + ".jpg"]
    other = ["~", "~root", "$HOME", "`id`", "-rf", "--", "a b", "*", "?", "|", "[red]", "%2e%2e%2f"]
    script = ["日本語.png", "émile", "E\u0301", "שלום", "ß", "\u00a0", "\u3000", "①", "\uff21"]
    names = [*dots, *windows, *control, *ours, *long, *other, *script]
    generator = random.Random(4)
    signs = [chr(n) for n in range(0x20)] + list("./\\:~ -_aA*?\"'<>|\u200b\u202e\ufeff\u2028é")
    while len(names) < 170:
        names.append("".join(generator.choices(signs, k=generator.randint(1, 40))))
    return names + names[:20] + ["same"] * 10


def test_two_hundred_hostile_names_stay_in_the_folder(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None]
) -> None:
    names = hostile_names()
    assert len(names) == 200
    kinds = ("binary", "text", "image", "dictionary", "jsontable")
    contents = [json.dumps([{"n": i}]).encode() for i in range(200)]
    messages = []
    for start in range(0, 200, 20):
        payloads = [
            direct(names[i], contents[i], kinds[i % len(kinds)]) for i in range(start, start + 20)
        ]
        # The msg_id is in the name of the envelope's file.
        messages.append(envelope(*payloads, msg_id=names[start], sender_name=names[start + 1]))
    folder = natsbridge.cwd / "deep" / "in"
    folder.mkdir(parents=True)
    (folder / "same").write_bytes(b"was here")
    process = natsbridge.start("receive", "names", "--out", folder, "--count", 10, "--tables=json")
    broker.heard(process, subject="names")
    publish("names", *messages)
    process.ended()
    assert [p.name for p in natsbridge.cwd.iterdir()] == ["deep"]
    assert [p.name for p in folder.parent.iterdir()] == ["in"]
    files = saved(folder)
    assert files.pop("same") == b"was here"
    assert len(envelopes(folder)) == 10
    found = sorted(json.dumps(json.loads(data)) for data in files.values())
    assert found == sorted(data.decode() for data in contents)
    for name in files:
        assert len(name.encode()) <= 140
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>|')
    said = {p["dataname"]: p["file"] for env in envelopes(folder) for p in env["payloads"]}
    assert set(said) == set(names)
    shown = process.out.split("\n")
    assert all(line.isprintable() for line in shown)
    fits([line.replace("/", "_") for line in shown[2:]])


def test_what_the_wire_says_can_neither_colour_nor_move_anything(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None]
) -> None:
    evil = "\x1b[31m\x1b[2J\x9b5A\x07[red]x[/red]\r\n\b:boom:"
    plain = [
        natsbridge.start("receive", "evil", "--count", 4),
        natsbridge.start("watch", "evil", "--count", 4),
        natsbridge.start("receive", "evil", "--count", 4, "--out", "j", "--json"),
        natsbridge.start("watch", "evil", "--count", 4, "--json"),
    ]
    broker.heard(*plain, subject="evil")
    fields = dict.fromkeys(("correlation_id", "msg_purpose", "sender_name", "receiver_name"), evil)
    publish(
        "evil",
        envelope(
            direct(evil, evil.encode(), "text"),
            direct("d", json.dumps({evil: evil}).encode(), "dictionary"),
            direct("t", json.dumps([{evil: evil}]).encode(), "jsontable"),
            **fields,
        ),
        {**fields, "error": {"code": evil, "message": evil, "details": {}}},
        envelope(link(evil, f"http://127.0.0.1:9/{evil}", 5), **fields),
        evil.encode(),
    )
    plain[0].ended(1)
    plain[1].ended()
    plain[2].ended(1)
    plain[3].ended()
    for process in plain:
        assert all(line.isprintable() for line in (process.out + process.err).split("\n"))
    assert "[red]" in plain[0].out + plain[0].err  # markup is text
    assert plain[3].records[0]["msg_purpose"] == evil


def test_a_terminal_shows_colours_and_nothing_of_a_stranger(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None]
) -> None:
    evil = "\x1b[31m\x9b5A[red]" + "wide日本" * 30
    message = envelope(
        direct(evil, b"\x1b[32m" + b"long " * 60, "text"),
        direct("t", json.dumps([{f"c{i}": "x" * 99 for i in range(9)}]).encode(), "jsontable"),
        msg_purpose=evil,
        sender_name=evil,
    )
    answers: list[tuple[int, str]] = []
    runs = (
        ("receive", "tty", {}),
        ("watch", "tty", {}),
        ("watch", "tty", {"NO_COLOR": "1"}),
    )
    threads = [
        threading.Thread(
            target=lambda run=run: answers.append(
                (
                    runs.index(run),
                    natsbridge.on_terminal(*(run[0], run[1], "--count", 1), environ=run[2])[1],
                )
            )
        )
        for run in runs
    ]
    for thread in threads:
        thread.start()
    until(lambda: broker.listeners("tty") == 3)
    publish("tty", message)
    for thread in threads:
        thread.join()
    shown = dict(answers)
    for i, text in shown.items():
        lines = lines_of_screen(text)
        assert all(line.isprintable() for line in lines), lines
        assert max(map(cells, lines)) <= 80
        assert ("\x1b[" in text) is True
        if i == 2:
            assert not colours(text)
        else:
            assert "\x1b[31m" not in text.replace("\x1b[1;31m", "")
    assert colours(shown[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_in_the_middle_of_a_large_file_it_leaves_nothing_half(
    natsbridge: Runner,
    broker: Broker,
    publish: Callable[..., None],
    slow: Slow,
    number: signal.Signals,
) -> None:
    process = natsbridge.start("receive", "large", "--fileserver", slow.url)
    broker.heard(process, subject="large")
    publish("large", envelope(link("big", f"{slow.url}/file/a/b/c", 50_000_000)))
    folder = natsbridge.cwd / "received"
    assert slow.reached.wait(20)
    until(lambda: [p for p in folder.glob(".*.part") if p.stat().st_size > 1_000_000])
    begun = time.monotonic()
    process.stop(number)
    assert time.monotonic() - begun < 5
    process.ended(130 if number == signal.SIGINT else 143)
    (kept,) = folder.iterdir()
    assert process.err.split() == f"The message is kept in received/{kept.name}".split()


def test_a_large_file_shows_its_progress(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None], slow: Slow
) -> None:
    def later() -> None:
        until(lambda: broker.listeners("bars"))
        publish("bars", envelope(direct("first", b"1")))
        publish("bars", envelope(link("big", f"{slow.url}/file/a/b/c", 50_000_000)))
        slow.reached.wait(20)
        time.sleep(0.3)
        publish("bars", envelope(direct("second", b"2")))

    thread = threading.Thread(target=later)
    thread.start()
    arguments = ("receive", "bars", "--fileserver", slow.url)
    code, text = natsbridge.on_terminal(*arguments, until_="second")
    thread.join()
    assert code == 130
    assert "big" in text
    assert "/50.0 MB" in text
    assert all(line.isprintable() for line in lines_of_screen(text))
    assert max(map(cells, lines_of_screen(text))) <= 80
    # On the screen, each line that was printed stands by itself and the bars have gone.
    rest = [line for line in lines_of_screen(text) if line.strip()]
    assert [line.split()[0] for line in rest[1:2]] == ["time"]
    assert sum("first" in line for line in rest) == 1
    assert sum("second" in line for line in rest) == 1
    assert not any("50.0 MB" in line for line in rest), rest


def test_a_full_disk_is_said_leaves_nothing_half_and_the_next_one_is_received(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None], send: Callable[..., Any]
) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = natsbridge.start("receive", "full", "--count", 4, preexec_fn=small)
    broker.heard(process, subject="full")
    send("full", [("big", bytes(300_000), "binary")])
    send("full", [("large", bytes(900_000), "binary")])  # by link
    send("full", [("text", "x" * 300_000, "text")])
    until(lambda: process.err.count("\n") == 4)
    send("full", [("small", b"ok", "binary")])
    process.ended(1)
    assert process.err.count("have room") == 3
    files = saved(natsbridge.cwd / "received")
    assert files.pop("small") == b"ok"
    (kept,) = files
    assert f"is kept in received/{kept}" in process.err
    assert len(envelopes(natsbridge.cwd / "received")) == 1


def compressed(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def plain(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


MANY = 0x1234567


def endless(array: pa.Array) -> bytes:
    """A column that says it is 2**40 values long."""
    return plain(pa.table({"a": array})).replace(
        struct.pack("<q", MANY), struct.pack("<q", 1 << 40)
    )


def bombs() -> dict[str, bytes]:
    """A few bytes each that want to become many."""
    forged = bytearray(compressed(pa.table({"a": [5] * 1000})))
    at = forged.index(struct.pack("<q", 8000))
    forged[at : at + 8] = struct.pack("<q", 1 << 40)
    zeros = pa.array([0] * 20_000, pa.int8())
    text = "x" * 50_000
    # 20,000 times the same text: its length, its beginning, which buffer, where.
    views = pa.py_buffer(struct.pack("<i4sii", 50_000, b"xxxx", 0, 0) * 20_000)
    buffers = [None, views, pa.py_buffer(text.encode())]
    return {
        "zeros": compressed(pa.table({"a": pa.nulls(1 << 24, pa.int64()).fill_null(0)})),
        "forged": bytes(forged),
        "nulls": endless(pa.nulls(MANY)),
        "runs": endless(pa.RunEndEncodedArray.from_arrays(pa.array([MANY]), pa.array(["x"]))),
        "dictionary": plain(
            pa.table({"a": pa.DictionaryArray.from_arrays(zeros, pa.array([text]))})
        ),
        "views": plain(pa.table({"a": pa.Array.from_buffers(pa.string_view(), 20_000, buffers)})),
        "columnless": plain(pa.table({"a": pa.nulls(MANY)}).select([])),
        "names": plain(pa.table({"n" * 50_000: zeros})),
    }


def test_tables_that_are_bombs_stay_as_they_came(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None]
) -> None:
    data = bombs()
    assert max(map(len, data.values())) < 500_000, {k: len(v) for k, v in data.items()}
    forms = ("csv", "json", "parquet")
    listening = [
        natsbridge.start("receive", "bombs", f"--out={f}", f"--tables={f}", f"--count={len(data)}")
        for f in forms
    ]
    broker.heard(*listening, subject="bombs")
    before = max(map(memory, listening))
    publish("bombs", *(envelope(direct(n, b, "arrowtable")) for n, b in data.items()))
    peak = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(p.process.poll() is None for p in listening):
        peak = max([peak, *map(memory, listening)])
        time.sleep(0.01)
    for form, process in zip(forms, listening, strict=True):
        process.ended()
        files = saved(natsbridge.cwd / form)
        assert len(files) == len(data)
        kept = {
            n.removesuffix(".arrow") for n, content in files.items() if content in data.values()
        }
        assert {"zeros", "forged"} <= kept
        if form != "parquet":  # which has dictionaries, runs and the like itself
            assert kept >= set(data) - {"columnless", "names"}, process.err
        assert process.err.count("stays as it came") == len(kept)
    assert peak - before < 150 << 20, (before, peak)


def memory(process: Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) << 10 if found else 0


def test_hostile_envelopes_are_said_and_the_next_one_is_received(
    natsbridge: Runner, broker: Broker, publish: Callable[..., None], send: Callable[..., Any]
) -> None:
    wide = [{f"key{i}": i} for i in range(20_000)]  # 4e8 cells, if it were a table
    messages: list[Any] = [
        b"",
        b"hello",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        {"payloads": 5},
        envelope(direct("a", b"x"), "x"),  # type: ignore[arg-type]
        envelope({**direct("a", b"x"), "size": 10**9}),
        envelope({**direct("a", b"x"), "data": "%%%"}),
        envelope({**direct("a", b"x"), "payload_type": "../x"}),
        envelope(direct("good", b"x"), {**direct("a", b"x"), "transport": "carrier pigeon"}),
        envelope(link("l", "file:///etc/passwd", 5)),
        envelope(link("l", "http://169.254.169.254/latest/meta-data", 5)),
        envelope(msg_id="\ud800"),
    ]
    fine = [
        envelope(direct("huge", json.dumps([{"n": 2**70}, {"n": 0.5}]).encode(), "jsontable")),
        envelope(direct("wide", json.dumps(wide).encode(), "jsontable")),
        envelope(direct("nested", json.dumps([{"n": [{"x": {}}]}]).encode(), "jsontable")),
        envelope(direct("empty", b"[]", "jsontable")),
        envelope(direct("none", b"[{},{}]", "jsontable")),
        envelope(direct("deep", b"[" * 30 + b"]" * 30, "dictionary")),
        envelope(direct("arrow", b"no table", "arrowtable")),
        envelope(direct("t", b"\xff", "text"), direct("beside", b"x")),
        envelope(direct("d", b"{", "dictionary"), direct("r", b"{}", "jsontable")),
        envelope(),
        {"correlation_id": "c", "error": {"code": "UPLOAD_FAILED", "message": "why"}},
    ]
    count = len(messages) + len(fine)
    runs = [
        natsbridge.start(*("receive", "odd", f"--out={form}", f"--tables={form}", "--count", count))
        for form in ("parquet", "csv")
    ]
    broker.heard(*runs, subject="odd")
    publish("odd", *messages, *fine)
    for form, process in zip(("parquet", "csv"), runs, strict=True):
        process.ended(1)
        assert len(envelopes(natsbridge.cwd / form)) == len(fine), process.err
        files = saved(natsbridge.cwd / form)
        told = ("stays as it came", "is kept in")
        errors = [e for e in process.err.splitlines() if not any(t in e for t in told)]
        assert len(errors) == len(messages), process.err
        assert files.pop("t.txt") == b"\xff"
        assert (files.pop("d.json"), files.pop("r.json")) == (b"{", b"{}")
        assert files.pop("beside") == b"x"
        failed = [json.loads(files.pop(name)) for name in list(files) if ".failed" in name]
        assert {f["payloads"][0]["data"] for f in failed} == {
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data",
        }
        assert json.loads(files["huge.json"]) == [{"n": 2**70}, {"n": 0.5}]
        assert json.loads(files["wide.json"]) == wide
        assert {"empty.json", "none.json", "deep.json", "arrow.arrow"} <= set(files)
        assert "good" not in files
        assert "UPLOAD_FAILED: why" in process.out
        assert "(no payload)" in process.out
        assert "--allow http://169.254.169.254 (a message on odd)" in process.err


def test_count_timeout_max_size_and_nack(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any]
) -> None:
    limited = natsbridge.start("receive", "opt.b", "--count", 2, "--max-size", 10, "--nack")
    broker.heard(limited, subject="opt.b")
    with sync.connect(broker.url, name="asker") as nc, nc.subscribe("answers") as answers:
        for data in (bytes(11), bytes(10)):
            send("opt.b", [("x", data, "binary")], reply_to="answers", nats_connection=nc)
        limited.failed("PAYLOAD_TOO_LARGE", "raise --max-size (a message on opt.b)")
        answer = answers.next(5)
    assert saved(natsbridge.cwd / "received") == {"x": bytes(10)}
    assert answer is not None
    assert json.loads(answer.data)["error"]["code"] == "PAYLOAD_TOO_LARGE"
    natsbridge.inside("receive", "opt.a", "--count", 2, "--timeout", 0.1).ended(3)
    nothing = natsbridge.inside("receive", "opt.a", "--timeout", 0.1, "--json").ended().out
    assert json.loads(nothing) == {"listening": "opt.a", "server": broker.url, "out": "received"}


def test_two_workers_share_a_subject(natsbridge: Runner, broker: Broker, file_url: str) -> None:
    """... and fifty senders at once lose nothing."""
    arguments = ("receive", "work.*", "--queue", "q", "--json")
    workers = [natsbridge.start(*arguments, "--out", name) for name in ("one", "two")]
    everything = natsbridge.start("receive", "work.*", "--count", 200, "--out", "all")
    broker.heard(*workers, everything, subject="work.*")

    async def device(n: int) -> None:
        async with await nb.connect(broker.url, name=f"device-{n}") as nc:
            for i in range(4):
                size = 700_000 if i == 3 and n % 10 == 0 else 100
                data = (f"{n}-{i}", n.to_bytes(2, "big") * (size // 2), "binary")
                await nb.smartsend(f"work.{n}", [data], nats_connection=nc, fileserver_url=file_url)
            await nc.flush()

    async def devices() -> None:
        await asyncio.gather(*(device(n) for n in range(50)))

    asyncio.run(devices())
    everything.ended()
    until(lambda: sum(len(worker.records) for worker in workers) == 200, "the workers")
    for worker in workers:
        worker.stop().ended(130)
    expected = {f"{n}-{i}": n.to_bytes(2, "big") for n in range(50) for i in range(4)}
    for folders in (["all"], ["one", "two"]):
        files = [saved(natsbridge.cwd / folder) for folder in folders]
        assert all(files)
        assert sum(map(len, files)) == 200
        got = {name: data for some in files for name, data in some.items()}
        assert {name: data[:2] for name, data in got.items()} == expected
        assert sum(len(data) > 600_000 for data in got.values()) == 5


def test_a_file_that_is_there_is_kept_and_a_folder_that_cannot_be_is_said(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any]
) -> None:
    folder = natsbridge.cwd / "received"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"mine")
    (folder / "link.txt").symlink_to(natsbridge.cwd / "elsewhere")
    process = natsbridge.start("receive", "kept", "--count", 1)
    (natsbridge.cwd / "file").write_text("x")
    broker.heard(process, subject="kept")
    send("kept", [("photo.jpg", b"theirs", "image"), ("link", "text", "text")])
    process.ended()
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert files["photo.jpg"] == b"mine"
    assert files["photo-1.jpg"] == b"theirs"
    assert files["link-1.txt"] == b"text"
    assert not (natsbridge.cwd / "elsewhere").exists()
    bad = natsbridge.inside("receive", "kept", "--out", "file/sub")
    bad.failed("file/sub cannot be made", "--out")


def test_dropped_messages_are_said_and_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when more waits than memory should hold."""
    from natsbridge.cli import receive
    from natsbridge.cli.output import Output
    from natsbridge.errors import PAYLOAD_TOO_LARGE, NATSBridgeError

    turns = iter([NATSBridgeError(PAYLOAD_TOO_LARGE, "3 messages were dropped"), None])

    class Fake:
        url = "nats://somewhere"
        connected = True
        client = SimpleNamespace(stats={"reconnects": 0})

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *exc: object) -> None:
            pass

        _waiting = ()

        async def subscribe(self, subject: str, queue: str) -> Any:
            return self

        async def next(self, timeout: float | None) -> Any:
            turn = next(turns)
            if turn is not None:
                raise turn
            return None

        async def connect(self) -> Any:
            return self

        async def flush(self) -> None:
            pass

    receiver = receive._Receiver(
        *(Output(False, False), Fake(), tmp_path, None, None, "", "", "csv", None, (), False)  # type: ignore[arg-type]
    )
    assert asyncio.run(receiver.run("x")) == 1
    assert "3 messages were dropped" in capsys.readouterr().err


def test_only_the_receiver_that_it_is_for_deletes_a_file(
    natsbridge: Runner, broker: Broker, file_url: str
) -> None:
    """send --to, receive --name."""
    data = os.urandom(600_000)
    (natsbridge.cwd / "big.bin").write_bytes(data)
    other = natsbridge.start(
        "receive", "to", "--count", 1, "--name", "other", "--out", "o", "--json"
    )
    broker.heard(other, subject="to")
    natsbridge.inside("send", "to", "--file", "big.bin", "--to", "desk").ended()
    other.ended()
    desk = natsbridge.start("receive", "to", "--count", 2, "--name", "desk", "--out", "d", "--json")
    broker.heard(desk, subject="to")
    kept = json.loads(natsbridge.inside("send", "to", "--file", "big.bin", "--json").ended().out)
    gone = json.loads(
        natsbridge.inside("send", "to", "--file=big.bin", "--to=desk", "--json").ended().out
    )
    desk.ended()
    assert kept["payloads"][0]["transport"] == gone["payloads"][0]["transport"] == "link"
    digests = [hashlib.sha256(d).digest() for d in saved(natsbridge.cwd / "d").values()]
    assert digests == [hashlib.sha256(data).digest()] * 2
    assert saved(natsbridge.cwd / "o") == {"big.bin": data}


def test_it_ends_quietly_when_whoever_reads_its_output_has_gone(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any]
) -> None:
    for option, lines in (("", 2), ("--json", 1)):
        subject = f"gone{option}"
        line = f"{sys.executable} -m natsbridge receive {subject} {option} | head -{lines}"
        pipe = natsbridge.start(f"set -o pipefail; {line}", line=("bash", "-c"))
        pipe.says(f'listening": "{subject}' if option else f"Listening on {subject}")
        while pipe.process.poll() is None:
            send(subject, [("x", b"x", "binary")])
            time.sleep(0.2)
        pipe.ended(1)
        assert pipe.err == ""
    assert len(envelopes(natsbridge.cwd / "received")) >= 2


def test_a_broker_that_goes_is_told_and_that_it_is_back(bare: Runner, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    servers = tmp_path / "servers"
    servers.mkdir()
    url = f"nats://127.0.0.1:{port}"
    with NatsServer(servers, port=port):
        runs = [bare.start(what, "b.x", "--server", url) for what in ("receive", "watch")]
        for run in runs:
            run.says(" b.x at ")
    for run in runs:
        run.says(f"The connection to {url} is lost: trying again.")
    with NatsServer(servers, port=port):
        for run in runs:
            run.says("Connected again after")
            run.stop().ended(130)
            assert len(run.err.splitlines()) == 2


def test_a_message_whose_files_were_not_fetched_can_be_received_later(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any]
) -> None:
    data = os.urandom(600_000)
    for options, code in (
        (("--fileserver", "http://127.0.0.1:9"), "URL_NOT_ALLOWED"),
        (("--max-size", 1000), "PAYLOAD_TOO_LARGE"),
    ):
        folder = natsbridge.cwd / code
        line = ("receive", "later", "--count", 1, "--out", folder, "--json")
        other = natsbridge.start(*line, *options)
        broker.heard(other, subject="later")
        send("later", [("note", "x", "text"), ("p.jpg", data, "image")], correlation_id="c-5")
        other.ended(1)
        (record,) = other.records
        assert record["error"]["code"] == code
        assert (record["subject"], record["correlation_id"]) == ("later", "c-5")
        (kept,) = folder.iterdir()
        assert kept == Path(record["kept"])
        assert other.err.split() == f"The message is kept in {kept}".split()
        again = natsbridge.start(*line)
        broker.heard(again, subject="later")
        sync.publish_message(broker.url, "later", kept.read_text(), "c-5")
        again.ended()
        files = saved(folder)
        assert (files["p.jpg"], files["note.txt"]) == (data, b"x")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_in_order_it_saves_all_that_had_come(
    natsbridge: Runner, broker: Broker, slow: Slow, number: signal.Signals
) -> None:
    """And leaves to its colleague what comes after; no file is left that is not finished."""
    count = 1500
    lines = ("receive", "burst", "--queue", "q", "--json", "--fileserver", slow.url)
    first, second = (natsbridge.start(*lines, "--out", name) for name in ("one", "two"))
    broker.heard(first, second, subject="burst")
    big = link("big", f"{slow.url}/file/a/b/big", 50_000_000)
    with sync.connect(broker.url) as nc:
        for i in range(count):
            payloads = [direct(f"n{i}", str(i).encode(), "text")]
            if i in (5, 700):
                payloads.append(big)
            nc.publish("burst", json.dumps(envelope(*payloads, msg_id=str(i))).encode())
            if i == count // 2:
                nc.flush()
                first.says('"file"').process.send_signal(number)
        nc.flush()
    first.ended(128 + number)
    slow.reached.set()
    until(lambda: len(envelopes(natsbridge.cwd / "two")) + len(first.records) >= count - 2)
    second.stop().ended(130)
    folders = [natsbridge.cwd / name for name in ("one", "two")]
    ids = [env["msg_id"] for folder in folders for env in envelopes(folder)]
    kept = [json.loads(p.read_bytes()) for folder in folders for p in folder.glob("*.failed*")]
    ids += [env["msg_id"] for env in kept]
    assert sorted(map(int, ids)) == list(range(count))
    assert {env["msg_id"] for env in kept} == {"5", "700"}
    assert [p for folder in folders for p in folder.glob(".*")] == []
    assert len(first.records) == len(envelopes(folders[0]))


def test_a_second_signal_ends_it_at_once_and_says_what_is_lost(
    natsbridge: Runner, broker: Broker
) -> None:
    process = natsbridge.start("receive", "twice", "--out", "in")
    broker.heard(process, subject="twice")
    message = json.dumps(envelope(direct("n", b"x" * 1000, "text"))).encode()
    with sync.connect(broker.url) as nc:
        for _ in range(8000):
            nc.publish("twice", message)
        nc.flush()
    process.says("n.txt")
    process.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.process.send_signal(signal.SIGTERM)
    process.ended(143)
    assert "messages that had come are not saved" in process.err
    assert list((natsbridge.cwd / "in").glob(".*")) == []


def test_files_that_take_long_hold_up_no_message_without_files(
    natsbridge: Runner, broker: Broker, slow: Slow, publish: Callable[..., None]
) -> None:
    process = natsbridge.start("receive", "jam", "--fileserver", slow.url)
    broker.heard(process, subject="jam")
    jam = envelope(link("big", f"{slow.url}/file/a/b/big", 50_000_000))
    publish("jam", *[jam] * 20, envelope(direct("quick", b"x")))
    process.says("quick").stop().ended(130)
    assert process.err.count("is kept in") == 20


def test_standard_output_that_becomes_full_ends_it(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any], tmp_path: Path
) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    for options in ([], ["--json"]):
        process = natsbridge.start("receive", "full.out", *options, preexec_fn=small)
        broker.heard(process, subject="full.out")
        deadline = time.monotonic() + 40
        while process.process.poll() is None and time.monotonic() < deadline:
            send("full.out", [("n", b"x", "binary")])
        process.ended(1)
        assert "the output can't be written: [Errno 27]" in process.err
        assert len(process.err.splitlines()) == 1


def test_names_that_programs_would_take_for_something_else(
    natsbridge: Runner, broker: Broker, send: Callable[..., Any]
) -> None:
    process = natsbridge.start("receive", "n", "--count", 1)
    broker.heard(process, subject="n")
    text = [("rep.csv", "a,b\n", "text"), ("note", "x", "text"), ("สวัสดีครับ.md", "x", "text")]
    odd = [("-rf", b"x", "binary"), ("natsbridge.toml", b"x", "binary")]
    send("n", [*odd, ("NATSbridge.TOML", "x", "text"), *text, ("e\u0301.bin", b"x", "binary")])
    process.ended()
    assert set(saved(natsbridge.cwd / "received")) == {
        *("_-rf", "_natsbridge.toml", "_NATSbridge.TOML", "rep.csv", "note.txt"),
        *("สวัสดีครับ.md", "é.bin"),
    }
