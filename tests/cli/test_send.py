"""natsbridge send: several payloads in one message, and one clear line where that fails."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import csv, parquet

from command import Broker, Runner, cells, fits, lines_of_screen, until
from conftest import FileServerProcess
from natsbridge import sync

TABLE = pa.table({"a": [1, 2], "b": ["x", "ü"]})


@pytest.fixture
def inbox(broker: Broker) -> Iterator[Any]:
    """A subscription to everything on `s.`, and what smartreceive makes of it."""
    with sync.connect(broker.url, name="desk") as nc, nc.subscribe("s.>") as sub:

        def receive(file_url: str) -> dict[str, Any]:
            msg = sub.next(20)
            assert msg is not None
            return dict(sync.smartreceive(msg, fileserver_url=file_url))

        yield receive


def test_many_payloads_go_in_one_message(natsbridge: Runner, inbox: Any, file_url: str) -> None:
    folder = natsbridge.cwd
    large = os.urandom(700_000)
    (folder / "photo.jpg").write_bytes(b"jpg")
    (folder / "song.mp3").write_bytes(b"mp3")
    (folder / "film.mp4").write_bytes(b"mp4")
    (folder / "notes.txt").write_text("Grüße")
    (folder / "firmware.bin").write_bytes(large)
    (folder / "raw=image").write_bytes(b"raw")
    (folder / "a=b.txt").write_text("equals")
    csv.write_csv(TABLE, folder / "c.csv")
    parquet.write_table(TABLE, folder / "p.parquet")
    with pa.ipc.new_stream(folder / "stream.arrow", TABLE.schema) as writer:
        writer.write_table(TABLE)
    with pa.ipc.new_file(folder / "file.feather", TABLE.schema) as file:
        file.write_table(TABLE)
    (folder / "j.json").write_text(json.dumps(TABLE.to_pylist()))
    (folder / "late.json").write_text('[{"a": 1}, {"a": 2, "b": NaN}]'.replace("NaN", "0.5"))
    options = {
        "--file": [
            *("photo.jpg", "song.mp3", "film.mp4", "notes.txt", "firmware.bin"),
            *("raw=image=video", "a=b.txt", "photo.jpg=binary"),
        ],
        "--table": [
            *("c.csv", "p.parquet", "stream.arrow", "file.feather", "j.json"),
            *("c.csv=jsontable", "late.json=arrowtable"),
        ],
        "--dict": ['{"iso": 400}', "[1, null]"],
    }
    words = [word for option, values in options.items() for v in values for word in (option, v)]
    human = natsbridge.start("send", "s.many", "-", *words, stdin=subprocess.PIPE)
    assert human.process.stdin is not None
    human.process.stdin.write("from stdin: ü".encode())
    human.process.stdin.close()
    other = natsbridge.start(
        *("send", "s.one", "", "--json", "--to", "desk", "--purpose", "p", "--reply-to", "back"),
        *("--correlation-id", "c-9", "--name", "me", "--threshold", "0"),
    )
    got = {env["send_to"]: env for env in (inbox(file_url), inbox(file_url))}
    env = got["s.many"]
    values = [
        (n, v.to_pylist() if isinstance(v, pa.Table) else v, t) for n, v, t in env["payloads"]
    ]
    rows = TABLE.to_pylist()
    assert values == [
        ("text", "from stdin: ü", "text"),
        ("photo.jpg", b"jpg", "image"),
        ("song.mp3", b"mp3", "audio"),
        ("film.mp4", b"mp4", "video"),
        ("notes.txt", "Grüße", "text"),
        ("firmware.bin", large, "binary"),
        ("raw=image", b"raw", "video"),
        ("a=b.txt", "equals", "text"),
        ("photo.jpg", b"jpg", "binary"),
        ("c", rows, "arrowtable"),
        ("p", rows, "arrowtable"),
        ("stream", rows, "arrowtable"),
        ("file", rows, "arrowtable"),
        ("j", rows, "jsontable"),
        ("c", rows, "jsontable"),
        ("late", [{"a": 1, "b": None}, {"a": 2, "b": 0.5}], "arrowtable"),
        ("dict", {"iso": 400}, "dictionary"),
        ("dict-1", [1, None], "dictionary"),
    ]
    lines = human.ended().out.splitlines()
    fits(lines)
    assert human.err == ""
    assert f"correlation id  {env['correlation_id']}" in lines
    assert f"message id      {env['msg_id']}" in lines
    assert any(line.split() == ["firmware.bin", "binary", "700.0", "kB", "link"] for line in lines)
    (record,) = other.ended().records
    assert record["correlation_id"] == got["s.one"]["correlation_id"] == "c-9"
    assert record["send_to"] == "s.one"
    assert record["payloads"] == [
        {"dataname": "text", "payload_type": "text", "size": 0, "transport": "link"}
    ]
    assert got["s.one"]["msg_purpose"] == "p"
    assert got["s.one"]["reply_to"] == "back"
    assert got["s.one"]["receiver_name"] == "desk"
    assert got["s.one"]["sender_name"] == "me"


def test_every_failure_is_one_line(natsbridge: Runner, tmp_path: Path) -> None:
    folder = natsbridge.cwd
    (folder / "bad.csv").write_text('a,b\n1,2\n3\n"')
    (folder / "bad.parquet").write_bytes(b"PAR1")
    (folder / "bad.arrow").write_bytes(b"x")
    (folder / "bad.json").write_text("{")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "scalar.json").write_text("5")
    (folder / "latin.json").write_bytes(b'["\xff"]')
    (folder / "dates.json").write_text('[{"n": 99999999999999999999}]')
    (folder / "x.xlsx").write_bytes(b"x")
    (folder / "latin.txt").write_bytes(b"\xff")
    (folder / "latin.csv").write_bytes("n,ort\n1,Köln\n".encode("latin-1"))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        failing = {
            ("s.x", "--file", "missing.jpg"): ("missing.jpg cannot be read", "No such file"),
            ("s.x", "--file", "."): ("cannot be read", "directory"),
            ("s.x", "--table", "missing.csv"): ("missing.csv cannot be read",),
            ("s.x", "--table", "bad.csv"): ("bad.csv cannot be read",),
            ("s.x", "--table", "bad.parquet"): ("bad.parquet cannot be read",),
            ("s.x", "--table", "bad.arrow"): ("bad.arrow cannot be read",),
            ("s.x", "--table", "bad.json"): ("bad.json cannot be read",),
            ("s.x", "--table", "deep.json"): ("deep.json cannot be read",),
            ("s.x", "--table", "scalar.json"): ("'scalar'", "jsontable"),
            ("s.x", "--table", "scalar.json=arrowtable"): ("scalar.json cannot be read",),
            ("s.x", "--table", "dates.json=arrowtable"): ("dates.json cannot be read",),
            ("s.x", "--table", "latin.json"): ("latin.json cannot be read",),
            ("s.x", "--table", "x.xlsx"): ("x.xlsx is no table", ".parquet"),
            ("s.x", "--dict", "{"): ("--dict '{' is no JSON",),
            ("s.x", "--dict", '{"a": NaN}'): ("nan",),
            ("s.x", "--file", "latin.txt=dictionary"): ("latin.txt cannot be read", "not JSON"),
            ("s.x", "--file", "latin.txt=text"): ("no UTF-8 text", "latin.txt=binary"),
            ("s.x", "--file", "x.xlsx=jsontable"): ("'x.xlsx' is not JSON",),
            ("s.x", "--file", "x.xlsx=table"): ("'table' is no type", "arrowtable"),
            ("s.x", "--table", "latin.csv"): ("latin.csv cannot be read", "'ort' is no UTF-8"),
            ("s.x", "x", "--timeout", "nan"): ("timeout",),
            ("two words", "x"): ("'two words'",),
            ("s.*", "x"): ("wildcard",),
            ("", "x"): ("subject",),
            ("s.x", "x", "--server", f"nats://127.0.0.1:{port}"): ("cannot connect", str(port)),
            ("s.x", "x", "--server", "http://127.0.0.1"): ("http",),
            ("s.x", "x", "--fileserver", "ftp://x"): ("fileserver_url",),
            ("s.x", "x", "--threshold", "0", "--fileserver", f"http://127.0.0.1:{port}"): ("port",),
            ("s.x", "x", "--ca", "missing.pem"): ("the ca cannot be used", "No such file"),
        }
        for line, words in failing.items():
            run = natsbridge.inside("send", *line)
            if words == ("port",):  # it fits, and goes in the message then
                run.ended()
            else:
                run.failed(*words)
    natsbridge("send", "s.x", "--file", "missing.jpg").failed("missing.jpg cannot be read")


def test_wrong_arguments_are_told_with_exit_code_2(natsbridge: Runner) -> None:
    lines: list[tuple[str, ...]] = [
        ("send", "s.x"),
        ("send",),
        ("send", "s.x", "x", "--threshold", "-5"),
        ("send", "s.x", "x", "--nonsense"),
    ]
    runs = [natsbridge.inside(*line) for line in lines]
    words = ["Nothing to send", "Missing argument 'SUBJECT'", "--threshold", "--nonsense"]
    for process, word in zip(runs, words, strict=True):
        process.ended(2)
        assert word in process.err
        assert "Usage: natsbridge send" in process.err


def test_ctrl_c_while_it_waits_for_standard_input(natsbridge: Runner, inbox: Any) -> None:
    read, write = os.pipe()
    process = natsbridge.start("send", "s.wait", "-", stdin=read)
    # It reads, once its interpreter has got that far: it sleeps in a pipe then.
    until(lambda: "pipe" in Path(f"/proc/{process.pid}/wchan").read_text() or slept(process.pid))
    begun = time.monotonic()
    process.stop()
    os.close(read)
    os.close(write)
    assert (process.code, process.err) == (-signal.SIGINT, "")  # to a shell that is 130
    assert time.monotonic() - begun < 5


def slept(pid: int) -> bool:
    """Whether a process waits in a read of descriptor 0."""
    try:
        call = Path(f"/proc/{pid}/syscall").read_text().split()
    except OSError:
        return False
    return call[:2] == ["0", "0x0"]


def test_standard_input_that_is_no_text(natsbridge: Runner) -> None:
    (natsbridge.cwd / "latin").write_bytes(b"gr\xfcn")
    with (natsbridge.cwd / "latin").open("rb") as file:
        natsbridge("send", "s.x", "-", stdin=file).failed("standard input is no text", "--file")


def test_ctrl_c_in_a_large_upload_leaves_nothing_on_the_server(
    natsbridge: Runner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = FileServerProcess(tmp_path_factory.mktemp("uploads"))
    try:
        fifo = natsbridge.cwd / "endless.bin"
        os.mkfifo(fifo)
        stop = threading.Event()

        def feed() -> None:
            with fifo.open("wb", buffering=0) as file:
                try:
                    while not stop.is_set():
                        file.write(bytes(1 << 16))
                        time.sleep(0.001)
                except BrokenPipeError:
                    pass

        thread = threading.Thread(target=feed)
        thread.start()
        process = natsbridge.start("send", "s.big", "--file", fifo, "--fileserver", server.url)

        def stored() -> int:
            return sum(p.stat().st_size for p in server.folder.rglob("*") if p.is_file())

        until(lambda: stored() > 2_000_000 or process.process.poll() is not None)
        begun = time.monotonic()
        process.stop(signal.SIGINT)
        assert time.monotonic() - begun < 5
        stop.set()
        thread.join()
        assert process.ended(130).err == ""
        until(lambda: stored() < 10_000, "removing the upload")
    finally:
        server.stop()


def test_an_upload_shows_its_progress_on_a_terminal(natsbridge: Runner, inbox: Any) -> None:
    (natsbridge.cwd / "large.bin").write_bytes(bytes(60_000_000))
    code, text = natsbridge.on_terminal("send", "s.bar", "--file", "large.bin")
    assert code == 0
    assert "/60.0 MB" in text
    lines = lines_of_screen(text)
    assert max(map(cells, lines)) <= 80
    assert not any("/60.0 MB" in line for line in lines)
    assert [line.split()[0] for line in lines if line.strip()] == [
        *("Sent", "large.bin", "correlation", "message")
    ]


def test_secrets_are_in_no_error_and_no_log(natsbridge: Runner, broker: Broker) -> None:
    """... nor in what a broken natsbridge.toml says."""
    secret = "hunter2secret"
    address = broker.url.partition("://")[2]
    login = f"natsbridge:{secret}"
    environ = {"NATS_PASSWORD": secret, "NATS_USER": "u", "NATS_TOKEN": secret}
    (natsbridge.cwd / "bad.toml").write_text(f'password = "{secret}\nserver = 5')
    (natsbridge.cwd / "list.toml").write_text(f'password = ["{secret}"]\n')
    (natsbridge.cwd / "unknown.toml").write_text(f'passwort = "{secret}"\n')
    files = natsbridge.environ["FILESERVER_URL"].partition("://")[2]
    bare = natsbridge.inside
    send = ("send", "s.x", "x", "--threshold", "0")
    runs: list[Any] = [
        natsbridge.start(*send, "-v", "--server", f"nats://{login}@{address}"),
        natsbridge.start(*send, "-v", "--fileserver", f"http://{login}@{files}", environ=environ),
        natsbridge.start(*send, "-v", "--fileserver", f"http://{login}@127.0.0.1:1/"),
        bare(*send, "--server", f"nats://{login}@127.0.0.1:1"),
        bare(*send, "--server", f"nats://{login} @127.0.0.1:1"),
        bare(*send, "--server", f"nats://{login}@127.0.0.1:port"),
        bare(*send, "--server", f"http://{login}@127.0.0.1"),
        bare(*send, "--fileserver", f"ftp://{login}@127.0.0.1"),
        bare(*send, "--fileserver", f"http://{login} @127.0.0.1"),
        bare("doctor", "--server", f"nats://{login}@{address}"),
        bare("doctor", "--fileserver", f"http://{login}@127.0.0.1:1"),
        bare("--config", "bad.toml", *send),
        bare("--config", "list.toml", *send),
        bare("--config", "unknown.toml", *send),
    ]
    for process in runs:
        process.wait()
        assert "Traceback" not in process.err, process.err
        assert secret not in process.out + process.err, process.err
        assert base64.b64encode(login.encode()).decode() not in process.err
    for process in runs[:2]:
        assert process.ended().err.count("Correlation:") > 1
    for process in runs[-3:]:
        process.ended(2)


def test_the_reader_of_its_output_may_go(natsbridge: Runner) -> None:
    """As in `natsbridge watch x | head -1`."""
    for option in ("--json", "-v"):
        read, write = os.pipe()
        process = natsbridge.start("send", "s.x", "x", option, stdout=write)
        os.close(read)
        os.close(write)
        process.ended(1)
        assert "BrokenPipe" not in process.err


def test_a_stream_of_parquet_keeps_its_types(natsbridge: Runner, inbox: Any, file_url: str) -> None:
    """Dates, decimals and nested values become text or lists where JSON carries them."""
    import datetime

    table = pa.table(
        {
            "when": [datetime.datetime(2026, 1, 2, 3, 4, 5)],
            "nan": [float("nan")],
            "list": [[1, 2]],
        }
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    (natsbridge.cwd / "p.parquet").write_bytes(buffer.getvalue())
    natsbridge.inside(
        "send", "s.p", "--table", "p.parquet", "--table", "p.parquet=jsontable"
    ).ended()
    first, second = inbox(file_url)["payloads"]
    assert first[1].schema.equals(table.schema)
    assert second[1] == [{"when": "2026-01-02T03:04:05.000000", "nan": None, "list": [1, 2]}]


def test_a_text_file_that_is_no_utf_8_goes_as_what_it_is(
    natsbridge: Runner, inbox: Any, file_url: str
) -> None:
    content = "name;ort\nMüller;Köln\n".encode("latin-1")
    (natsbridge.cwd / "kunden.csv").write_bytes(content)
    (natsbridge.cwd / "a=b.txt").write_text("Grüße")
    natsbridge.inside("send", "s.l", "--file", "kunden.csv", "--file", "a=b.txt").ended()
    assert inbox(file_url)["payloads"] == [
        ("kunden.csv", content, "binary"),
        ("a=b.txt", "Grüße", "text"),
    ]


def test_standard_input_that_is_closed_and_a_full_standard_output(natsbridge: Runner) -> None:
    shell = ("sh", "-c")
    python = f"{sys.executable} -m natsbridge"
    run = natsbridge(f"exec {python} send s.x - <&-", line=shell)
    run.failed("standard input is closed")
    if Path("/dev/full").exists():
        for command in ("send s.x hello", "send s.x hello --json", "doctor"):
            run = natsbridge(f"exec {python} {command} >/dev/full", line=shell).ended(1)
            assert run.err.count("the output can't be written: [Errno 28]") == 1
            assert "Exception" not in run.err
