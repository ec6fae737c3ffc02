"""sync: the same names, parameters, results and errors, anywhere."""

import ast
import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.aio.msg
import pytest

import natsbridge as asynchronous
from natsbridge import client, sync
from natsbridge.errors import NATSBridgeError

pytestmark = pytest.mark.usefixtures("environment")

PACKAGE = Path(client.__file__).parent


def signatures(module: str) -> dict[str, str]:
    """Return each function's and method's parameters with their defaults, from the source."""
    found = {}
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in ast.walk(tree):
        for item in node.body if isinstance(node, (ast.Module, ast.ClassDef)) else []:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for argument in ast.walk(item.args):
                    if isinstance(argument, ast.arg):
                        argument.annotation = None
                owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                found[owner + item.name] = ast.unparse(item.args)
    return found


def test_parameters_and_defaults_are_those_of_the_coroutines() -> None:
    ours = signatures("sync")
    theirs: dict[str, str] = {}
    modules = ("dial", "client", "subscription", "send", "receive", "plik", "download", "envelope")
    for module in modules:
        theirs.update(signatures(module))
    names = [n for n in sync.__all__ if n not in ("NATSBridgeError", "__version__")]
    names += [
        f"{kind}.{name}"
        for kind, methods in {
            "Connection": ("publish", "subscribe", "next", "request", "flush", "drain", "close"),
            "Subscription": ("next", "unsubscribe", "drain"),
        }.items()
        for name in methods
    ]
    for name in names:
        mine = ours[name].replace("plik.DEFAULT_TTL", "DEFAULT_TTL")
        assert mine == theirs[name], name
        assert "*args" not in mine
        assert "**" not in mine


def test_public_names_are_the_same() -> None:
    assert sync.__all__ == asynchronous.__all__
    assert sync.__version__ == asynchronous.__version__ == "0.1.0"
    assert sync.NATSBridgeError is asynchronous.NATSBridgeError


def test_the_version_is_that_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "host" / "pyproject.toml").read_text()
    assert f'version = "{sync.__version__}"' in text


def test_a_round_trip() -> None:
    with sync.connect(name="desk", id="d-1") as nc:
        assert (nc.name, nc.id, nc.max_payload) == ("desk", "d-1", 1 << 20)
        assert nc.url.startswith("nats://127.0.0.1:")
        with nc.subscribe("s.round") as sub:
            assert (sub.subject, sub.queue) == ("s.round", "")
            data = [("m", "x", "text"), ("b", io.BytesIO(b"y" * 600_000), "binary")]
            env, text = sync.smartsend("s.round", data, nats_connection=nc, receiver_id="d-1")
            assert env["payloads"][1]["transport"] == "link"
            assert sync.envelope_to_json(env) == text
            msg = sub.next(timeout=2)
            assert msg is not None
            assert len(msg) == len(text)
            got = sync.smartreceive(msg)
            assert got["payloads"] == [("m", "x", "text"), ("b", b"y" * 600_000, "binary")]
            with pytest.raises(NATSBridgeError) as e:
                sync.fetch_with_backoff(env["payloads"][1]["data"], 1)
            assert e.value.details["status"] == 404
            assert nc.next(timeout=0) is None


def test_calls_without_a_connection(file_url: str, nats_url: str) -> None:
    with sync.connect() as nc, nc.subscribe("s.once") as sub:
        _, text = sync.smartsend("s.once", [("m", "x", "text")])
        sync.publish_message(nats_url, "s.once", text)
        sync.publish_message(nc, "s.once", text)
        messages = [sub.next(2) for _ in range(3)]
    for msg in messages:  # of a connection that is closed by now
        assert sync.smartreceive(msg)["payloads"] == [("m", "x", "text")]
    result = sync.plik_upload(file_url, "a", b"abc")
    assert sync.fetch_with_backoff(result["url"]) == b"abc"
    assert sync.plik_oneshot_upload(file_url, "a", b"abc")["status"] == 200


def test_our_own_calls_are_handlers() -> None:
    with sync.connect() as nc, nc.subscribe("s.handler") as sub:
        for handler in (sync.plik_upload, sync.plik_oneshot_upload):
            sync.smartsend(
                "s.handler",
                [("a", b"abc", "binary")],
                nats_connection=nc,
                size_threshold=0,
                fileserver_upload_handler=handler,
            )
            got = sync.smartreceive(
                sub.next(2), fileserver_download_handler=sync.fetch_with_backoff
            )
            assert got["payloads"] == [("a", b"abc", "binary")]


def test_a_plain_message_cannot_be_nacked_without_a_connection() -> None:
    plain: Any = nats.aio.msg.Msg(_client=None, subject="a", data=b"{}")  # type: ignore[arg-type]
    with pytest.raises(NATSBridgeError) as e:
        sync.smartreceive(plain, nack=True)
    assert e.value.code == "INVALID_ARGUMENT"
    plain.data = b'{"payloads":[]}'
    assert sync.smartreceive(plain)["payloads"] == []


def test_iteration_and_requests() -> None:
    with sync.connect() as nc:
        sub = nc.subscribe("s.iter")
        for n in range(3):
            nc.publish("s.iter", b"%d" % n)
        got = []
        for msg in sub:
            got.append(msg.data)
            if len(got) == 3:
                sub.unsubscribe()
        assert got == [b"0", b"1", b"2"]
        with pytest.raises(NATSBridgeError, match="nobody listens"):
            nc.request("s.nobody", b"")
        with nc.subscribe("s.ask") as asked:
            answers: list[Any] = []
            thread = threading.Thread(target=lambda: answers.append(nc.request("s.ask", b"?")))
            thread.start()
            question = asked.next(2)
            assert question is not None
            nc.publish(question.reply, b"!")
            thread.join(2)
            assert answers[0].data == b"!"
        nc.flush()


def test_closing_ends_an_iteration_in_another_thread() -> None:
    nc = sync.connect()
    sub = nc.subscribe("s.closing")
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(list(sub)))
    thread.start()
    time.sleep(0.05)
    nc.close()
    thread.join(2)
    assert seen == [[]]


def test_inside_a_running_loop_as_in_jupyter() -> None:
    async def cell() -> list[Any]:
        with sync.connect() as nc, nc.subscribe("s.jupyter") as sub:
            sync.smartsend("s.jupyter", [("m", "x", "text")], nats_connection=nc)
            payloads: list[Any] = sync.smartreceive(sub.next(2))["payloads"]
            return payloads

    assert asyncio.run(cell()) == [("m", "x", "text")]


def test_errors_are_the_same() -> None:
    with pytest.raises(NATSBridgeError) as e:
        sync.connect("nats://127.0.0.1:9")
    assert e.value.code == "NATS_CONNECTION_FAILED"
    with sync.connect() as nc:
        with pytest.raises(NATSBridgeError) as e:
            sync.smartsend("a b", [], nats_connection=nc)
        assert e.value.code == "INVALID_ARGUMENT"
        with pytest.raises(NATSBridgeError) as e:
            nc.publish("a.*", b"")
        assert e.value.code == "INVALID_ARGUMENT"
    for work in (lambda: nc.publish("a", b""), nc.next, nc.flush, lambda: nc.subscribe("a")):
        with pytest.raises(NATSBridgeError) as e:
            work()
        assert e.value.code == "NATS_CONNECTION_FAILED"
    nc.close()


def test_an_asynchronous_connection_is_refused(nats_url: str) -> None:
    async def main() -> None:
        async with await asynchronous.connect(nats_url) as nc:
            with pytest.raises(NATSBridgeError) as e:
                sync.smartsend("a", [], nats_connection=nc)
            assert e.value.code == "INVALID_ARGUMENT"
        with sync.connect(nats_url) as ours:
            with pytest.raises(NATSBridgeError) as e:
                await asynchronous.smartsend("a", [], nats_connection=ours)
            assert e.value.code == "INVALID_ARGUMENT"

    asyncio.run(main())


def test_calling_from_a_callback_is_refused_and_does_not_hang() -> None:
    codes: list[str] = []
    with sync.connect() as nc:

        def progress(*args: object) -> None:
            try:
                nc.publish("a", b"")
            except NATSBridgeError as e:
                codes.append(e.code)

        sync.smartsend("s.cb", [("a", "x", "text")], nats_connection=nc, on_progress=progress)
    assert codes == ["INVALID_ARGUMENT"]


def test_nothing_stays_open(things: Callable[[], tuple[int, int]]) -> None:
    def once() -> None:
        with sync.connect() as nc:
            sub = nc.subscribe("s.leak")
            sync.smartsend("s.leak", [("a", b"x", "binary")], nats_connection=nc, size_threshold=0)
            sync.smartreceive(sub.next(2))
        with pytest.raises(NATSBridgeError):
            sync.connect("nats://127.0.0.1:9")
        sync.smartsend("s.leak", [])

    once()
    before, threads = things(), threading.active_count()
    for _ in range(5):
        once()
    assert things() == before
    assert threading.active_count() == threads


def test_ctrl_c_leaves_no_half_file(nats_url: str, file_url: str, tmp_path: Path) -> None:
    code = """
import sys
from natsbridge import sync
nc = sync.connect()
sub = nc.subscribe("s.ctrlc")
sync.smartsend("s.ctrlc", [("a", b"x" * (64 << 20), "binary")], nats_connection=nc)
msg = sub.next(5)
try:
    sync.smartreceive(msg, sink=sys.argv[1], on_progress=lambda *p: print("go", flush=True))
except KeyboardInterrupt:
    nc.close()
    print("interrupted", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NATS_URL": nats_url, "FILESERVER_URL": file_url},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert output.endswith("interrupted\n")
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_connection_does_not_keep_the_program(nats_url: str) -> None:
    code = "from natsbridge import sync; nc = sync.connect(); nc.subscribe('a')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        timeout=10,
        capture_output=True,
        check=True,
        env={**os.environ, "NATS_URL": nats_url},
    )
    assert done.stderr == b""


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_ends_the_program_ends_it(leave: type[BaseException]) -> None:
    def progress(*_: object) -> None:
        raise leave

    with sync.connect() as nc:
        with pytest.raises(leave):
            sync.smartsend("bye", [("t", "x", "text")], nats_connection=nc, on_progress=progress)
        nc.publish("bye", b"still here")
        nc.flush()
