"""plik.py: uploads to the embedded file server, and to servers that misbehave."""

import hashlib
import json
import socket
import time
import urllib.error
import urllib.request

import pytest

from harness import run_micropython
from scripted import Peer, ScriptedServer, answer

#: The beginning of each script: the result of `work()`, or its error, is printed as JSON.
PRELUDE = """
import io, json, sys, time
import natsbridge
url = sys.argv[1]
def report(work):
    try:
        print(json.dumps(work()))
    except natsbridge.NATSBridgeError as e:
        print(json.dumps([e.code, e.message, e.details]))
class Endless:
    "A stream that can't seek: `size` bytes."
    def __init__(self, size):
        self.left = size
    def readinto(self, buf):
        n = min(len(buf), self.left, 700)
        for i in range(n):
            buf[i] = self.left - i & 255
        self.left -= n
        return n
"""
CREATED = answer(json.dumps({"id": "up", "uploadToken": "token"}).encode())


def run(server, script, **options):
    """Run a script; return the values it reported."""
    out = run_micropython(PRELUDE + script, getattr(server, "url", server), **options)
    return [json.loads(line) for line in out.splitlines()]


def stored(size, name="f1", **more):
    """Return Plik's answer for a file that it stored."""
    return answer(json.dumps({"id": name, "fileSize": size, **more}).encode())


def get(url, method="GET"):
    """Return (status, body)."""
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "plik_client/t"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read()


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ("b'x' * 10000", b"x" * 10000),
        ("bytearray(b'abc')", b"abc"),
        ("memoryview(b'abcdef')[2:4]", b"cd"),
        ("io.BytesIO(b'abc')", b"abc"),
        ("b''", b""),
        ("Endless(5000)", bytes(i & 255 for i in range(5000, 0, -1))),
        ("Endless(0)", b""),
    ],
)
def test_what_is_uploaded_can_be_fetched(file_url, data, content):
    [result] = run(file_url, f"report(lambda: natsbridge.plik_upload(url, 'a b.bin', {data}))")
    assert get(result["url"]) == (200, content)
    assert result["url"] == (f"{file_url}/file/{result['uploadid']}/{result['fileid']}/a_b.bin")
    assert result["status"] == 200
    assert result["size"] == len(content)
    assert result["sha256"] == hashlib.sha256(content).hexdigest()
    assert result["uploadtoken"]


def test_a_stream_is_sent_from_where_it_stands(file_url):
    [result] = run(
        file_url,
        "f = io.BytesIO(b'0123456789')\nf.seek(4)\n"
        "report(lambda: natsbridge.plik_upload(url, 'x', f))",
    )
    assert get(result["url"])[1] == b"456789"


@pytest.mark.parametrize("removable", [True, False])
def test_only_a_removable_file_can_be_deleted_by_who_knows_its_url(file_url, removable):
    [result] = run(
        file_url,
        f"report(lambda: natsbridge.plik_upload(url, 'x', b'abc', removable={removable}))",
    )
    assert (get(result["url"], "DELETE")[0] == 200) is removable
    assert get(result["url"])[0] == (404 if removable else 200)


def test_a_oneshot_file_can_be_fetched_once_and_its_result_has_the_walkthroughs_keys(file_url):
    [result] = run(file_url, "report(lambda: natsbridge.plik_oneshot_upload(url, 'x', b'abc'))")
    assert sorted(result) == ["fileid", "status", "uploadid", "url"]
    assert get(result["url"]) == (200, b"abc")
    assert get(result["url"])[0] == 404


@pytest.mark.parametrize(
    ("dataname", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ('../a"b\r\nX: y', "___a_b__X__y"),
        ("..", "__"),
        (".hidden", "_hidden"),
        ("größe", "gr__e"),
        ("", "payload"),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_file_name_is_safe_in_a_url_and_in_a_header(dataname, name):
    with ScriptedServer([CREATED, stored(3)]) as server:
        [result] = run(server, f"report(lambda: natsbridge.plik_upload(url, {dataname!r}, b'abc'))")
        assert result["url"] == f"{server.url}/file/up/f1/{name}"
        assert f'filename="{name}"\r\n'.encode() in server.requests[1].body


def test_both_requests_go_over_one_connection_and_carry_what_plik_wants():
    with ScriptedServer([CREATED, stored(3)]) as server:
        run(server, "report(lambda: natsbridge.plik_upload(url + '/plik/', 'x', b'abc', ttl=60))")
        create, send = server.requests
    assert create.line == "POST /plik/upload HTTP/1.1"
    assert json.loads(create.body) == {"ttl": 60, "removable": False, "oneShot": False}
    assert send.line == "POST /plik/file/up HTTP/1.1"
    assert send.headers["x-uploadtoken"] == "token"
    assert send.headers["user-agent"].startswith("plik_client")
    assert send.headers["accept-encoding"] == "identity"
    boundary = send.headers["content-type"].partition("boundary=")[2].encode()
    assert send.body.startswith(b"--" + boundary + b"\r\n")
    assert send.body.endswith(b"\r\n\r\nabc\r\n--" + boundary + b"--\r\n")


def test_progress_is_told_in_bytes_and_ends_with_all(file_url):
    script = """
seen = []
natsbridge.plik_upload(url, "x", b"a" * 5000, on_progress=lambda *a: seen.append(a))
natsbridge.plik_upload(url, "y", Endless(1000), on_progress=lambda *a: seen.append(a))
report(lambda: seen)
"""
    [seen] = run(file_url, script)
    x = [s for s in seen if s[0] == "x"]
    assert [s[1] for s in x] == sorted({s[1] for s in x})
    assert x[-1] == ["x", 5000, 5000]
    assert seen[-1] == ["y", 1000, None]


def test_the_download_domain_is_the_host_of_the_url():
    created = {"id": "up", "uploadToken": "token", "downloadDomain": "https://dl.example/"}
    with ScriptedServer([answer(json.dumps(created).encode()), stored(3)]) as server:
        [result] = run(server, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))")
    assert result["url"] == "https://dl.example/file/up/f1/x"


def test_a_ttl_that_the_server_finds_too_long_becomes_its_default():
    refused = answer(b"invalid TTL. (maximum allowed is : 60)", 400)
    with ScriptedServer([refused, CREATED, stored(3)]) as server:
        [result] = run(server, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))")
        assert result["status"] == 200
        assert [json.loads(r.body)["ttl"] for r in server.requests[:2]] == [86400, 0]


def refuse_early(peer: Peer) -> None:
    """Answer 400 while the body is still coming, then reset, as Plik does."""
    peer.head()
    peer.read(1000)
    peer.send(answer(b"file too big (limit is set to 1 kB)\r\nX: \x00" + b"." * 500, 400))
    peer.reset()


def test_an_upload_refused_with_a_reset_is_final_and_tells_the_servers_text(tmp_path):
    (tmp_path / "big").write_bytes(bytes(1000000))
    script = "report(lambda: natsbridge.plik_upload(url, 'x', open(sys.argv[2], 'rb')))"
    with ScriptedServer([CREATED, refuse_early], [answer(b"ok")]) as server:
        out = run_micropython(PRELUDE + script, server.url, str(tmp_path / "big"))
        assert server.lines[-1] == "DELETE /upload/up HTTP/1.1"
        assert server.requests[-1].headers["x-uploadtoken"] == "token"
    code, message, details = json.loads(out)
    assert code == "UPLOAD_FAILED"
    assert r"400 file too big (limit is set to 1 kB)\r\nX: \x00..." in message
    assert len(message) < 400
    assert details["status"] == 400


@pytest.mark.parametrize(
    "fault",
    [
        answer(b"busy", 503, "Retry-After: 0"),
        answer(b"", 500),
        answer(b"slow down", 429),
        stored(2, "f0"),
        stored("3", "f0"),
        stored(3, "f0", fileMd5="0" * 32),
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"",
        lambda peer: peer.reset(),
    ],
)
def test_after_a_fault_a_new_file_of_the_same_upload_is_sent_and_the_first_removed(fault):
    files = [{"id": "f0", "fileName": "x"}, {"id": "f1", "fileName": "x"}, "?", {"id": 7}]
    listing = answer(json.dumps({"files": files}).encode())
    ok = answer(b"ok")
    md5 = hashlib.md5(b"abc").hexdigest()
    with ScriptedServer(
        [CREATED, fault], [stored(3, fileMd5=md5)], [listing], [ok], [ok]
    ) as server:
        [result] = run(server, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))")
        assert result["url"] == f"{server.url}/file/up/f1/x"
        assert server.lines.count("POST /upload HTTP/1.1") == 1
        assert b"\r\n\r\nabc\r\n--" in server.requests[-4].body
        assert "DELETE /file/up/f0/x HTTP/1.1" in server.lines
        assert "DELETE /file/up/f1/x HTTP/1.1" not in server.lines


def test_when_all_attempts_fail_the_error_says_what_to_do_and_the_upload_is_removed():
    busy = answer(b"busy", 503)
    with ScriptedServer([CREATED, busy], *[[busy]] * 4, [answer(b"ok")]) as server:
        script = """
begin = time.ticks_ms()
report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))
report(lambda: time.ticks_diff(time.ticks_ms(), begin))
"""
        [[code, message, details], ms] = run(server, script)
        assert server.lines[-1] == "DELETE /upload/up HTTP/1.1"
    assert code == "UPLOAD_FAILED"
    assert "503 busy" in message
    assert server.url in message
    assert (details["status"], details["attempts"]) == (503, 5)
    assert 370 <= ms <= 2500  # 100 + 200 + 400 + 800 ms, less up to three quarters


def test_a_server_that_is_not_there_is_named_and_a_timeout_ends_the_attempts():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    script = """
begin = time.ticks_ms()
report(lambda: natsbridge.plik_upload(url, 'x', b'abc', timeout=0.3))
report(lambda: time.ticks_diff(time.ticks_ms(), begin))
"""
    [[code, message, details], ms] = run(url, script)
    assert code == "UPLOAD_FAILED"
    assert url in message
    assert 1 < details["attempts"] < 5
    assert ms < 700


def test_a_server_that_stops_reading_is_left_when_the_time_is_over():
    def stop(peer: Peer) -> None:
        peer.head()
        time.sleep(1.5)

    script = """
begin = time.ticks_ms()
report(lambda: natsbridge.plik_upload(url, 'x', Endless(100000000), timeout=0.5))
report(lambda: time.ticks_diff(time.ticks_ms(), begin))
"""
    with ScriptedServer([CREATED, stop], [answer(b"ok")]) as server:
        [[code, _, _], ms] = run(server, script)
    assert code == "UPLOAD_FAILED"
    assert 400 < ms < 4000


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"{}",
        b"\xff\xfe",
        b'{"id": 5, "uploadToken": "t"}',
        b'{"id": ["x"], "uploadToken": "t"}',
        b'{"id": "a/../b", "uploadToken": "t"}',
        b'{"id": "up", "uploadToken": "t\\r\\nX: y"}',
        b'{"id": "up", "uploadToken": null}',
        b'{"id": "up", "uploadToken": "t", "downloadDomain": 5}',
        b'{"id": "up", "uploadToken": "t", "downloadDomain": "dl example"}',
        b'{"id": "up", "uploadToken": "t", "x": "' + b"x" * 5000 + b'"}',
    ],
)
def test_what_is_not_a_plik_server_fails_at_once(body):
    with ScriptedServer([answer(body)], [answer()]) as server:
        [[code, message, _]] = run(
            server, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))"
        )
        assert len(server.requests) == 1
    assert code == "UPLOAD_FAILED"
    assert "\r" not in message


def test_a_redirected_upload_is_not_followed():
    moved = answer(b"", 301, "Location: http://elsewhere/")
    with ScriptedServer([moved], [answer()]) as server:
        [[code, message, details]] = run(
            server, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc', ttl=0))"
        )
    assert (code, details["status"]) == ("UPLOAD_FAILED", 301)
    assert "http://elsewhere/" in message


@pytest.mark.parametrize(
    ("readinto", "why"),
    [
        ("raise OSError(5)", "EIO"),
        ("raise ValueError('closed')", "closed"),
        ("return 0", "it ended"),
        ("return None", "it ended"),
    ],
)
def test_a_failing_source_ends_the_upload_at_once_and_leaves_nothing(readinto, why):
    script = f"""
class Source:
    def seek(self, at, whence=0):
        return 10 if whence == 2 else 0
    def readinto(self, buf):
        {readinto}
report(lambda: natsbridge.plik_upload(url, "x", Source()))
"""
    with ScriptedServer([CREATED, lambda peer: peer.request()], [answer(b"ok")]) as server:
        [[code, message, _]] = run(server, script)
        assert server.lines[-1] == "DELETE /upload/up HTTP/1.1"
        assert len(server.requests) == 2
    assert code == "INVALID_ARGUMENT"
    assert why in message


def test_a_stream_that_cannot_be_read_again_gets_one_attempt():
    with ScriptedServer([CREATED, answer(b"busy", 503)], [answer(b"ok")], [answer()]) as server:
        [[code, _, details]] = run(
            server, "report(lambda: natsbridge.plik_upload(url, 'x', Endless(100)))"
        )
        assert server.requests[1].headers["transfer-encoding"] == "chunked"
        assert server.connections == 2
    assert (code, details["attempts"]) == ("UPLOAD_FAILED", 1)


@pytest.mark.parametrize(
    "url", ["https://host", "ftp://host", "host:8080", "http://u:p@h h", "http://host:x", ""]
)
def test_a_url_that_cannot_be_used_is_an_argument_error(url):
    [[code, message, _]] = run(url, "report(lambda: natsbridge.plik_upload(url, 'x', b'abc'))")
    assert code == "INVALID_ARGUMENT"
    assert ("https" in message) or ("is refused" in message)


def test_files_are_removed_by_those_who_may_and_nothing_is_raised(file_url):
    script = """
from natsbridge.recover import undo
a = natsbridge.plik_upload(url, "x", b"abc")
b = natsbridge.plik_upload(url, "x", b"abc")
undo(None, url, [(a["url"], ""), ("http://127.0.0.1:1/x", "t"), (b["url"], b["uploadtoken"])])
report(lambda: [a["url"], b["url"]])
"""
    [[kept, removed]] = run(file_url, script)
    assert get(kept)[0] == 200
    assert get(removed)[0] == 404


def test_the_download_domains_are_those_of_the_servers_configuration():
    config = {"downloadDomain": "http://DL.lan:80/", "downloadDomainAlias": ["http://b:81", 5, "?"]}
    script = """
from natsbridge.download import Claims
from natsbridge.sink import Sink
from natsbridge.urls import links, parse
def domains(base):
    sink = Sink(None, None, None)
    claims = Claims(None, {"correlation_id": ""}, sink, *links([], base, ()), None)
    try:
        claims.check(parse("http://elsewhere/x"), "http://elsewhere/x")
    except natsbridge.NATSBridgeError as e:
        return claims.prefixes[1:]
report(lambda: domains(url + "/plik/"))
report(lambda: domains(url))
report(lambda: domains("http://127.0.0.1:1"))
"""
    with ScriptedServer([answer(json.dumps(config).encode())], [answer(b"nonsense")]) as server:
        assert run(server, script) == [["http://dl.lan/", "http://b:81/"], [], []]
        assert server.lines[0] == "GET /plik/config HTTP/1.1"


def test_five_megabytes_are_uploaded_in_64_kb_and_no_piece_allocates(file_url, tmp_path):
    (tmp_path / "big").write_bytes(content := bytes(range(256)) * 20480)
    script = """
import gc
class Watch:
    def __init__(self):
        self.last = self.latest = self.most = 0  # the last piece is short, and not counted
    def __call__(self, name, done, total):
        now = gc.mem_alloc()
        if done > 100000:
            self.most = max(self.most, self.latest)
            self.latest = now - self.last
        elif done > 90000:
            gc.disable()
        self.last = now
for f in (open(sys.argv[2], "rb"), Endless(300000)):
    watch = Watch()
    gc.collect()
    r = natsbridge.plik_upload(url, "big", f, on_progress=watch)
    gc.enable()
    report(lambda: [r["sha256"], watch.most])
"""
    out = run_micropython(PRELUDE.replace(", 700)", ")") + script, file_url, str(tmp_path / "big"))
    [digest, most], [_, most_chunked] = [json.loads(line) for line in out.splitlines()]
    assert digest == hashlib.sha256(content).hexdigest()
    assert (most, most_chunked) == (0, 0)
