"""download.py: from the embedded file server, and from servers that misbehave."""

import hashlib
import json
import time

import pytest

from harness import run_micropython
from scripted import Peer, ScriptedServer, answer

#: The beginning of each script. `got(...)` downloads into a target that collects; the result, or
#: the error, and what was written are printed as JSON.
PRELUDE = """
import json, sys, time
import natsbridge
from natsbridge.download import Claims
from natsbridge.sink import Sink
from natsbridge.urls import home, links, parse
url = sys.argv[1]
def download(url, target, size=None, sha256="", allow=None, limit=None, dataname="x",
             max_retries=5, base_delay=100, max_delay=5000, correlation_id="", on_progress=None,
             idle=None, deadline=None):
    sink = Sink(lambda *a: target, None, limit)
    where = parse(url)
    server = home(where[0])
    job = Claims(None, {"correlation_id": correlation_id}, sink, server, [where[0] + "/"], deadline)
    sink.open = lambda *a: target
    job.idle = idle
    job.asked = True
    if allow:
        job.check = allow
    item = {"dataname": dataname, "data": url, "where": where, "payload_type": "binary",
            "size": size, "metadata": {"sha256": sha256}}
    tries = max_retries, base_delay, max_delay
    job.fetch(item, None, tries, on_progress, bytearray(1024))
    return job.done
class Target:
    def __init__(self, rewinds):
        self.rewinds = rewinds
        self.data = b""
    def write(self, view):
        self.data += bytes(view)
    def rewind(self):
        if self.rewinds:
            self.data = b""
        return self.rewinds
def report(work):
    try:
        print(json.dumps(work()))
    except natsbridge.NATSBridgeError as e:
        print(json.dumps([e.code, e.message, e.details]))
def got(rewinds=True, target=None, **options):
    target = target or Target(rewinds)
    options["base_delay"] = options.get("base_delay", 1)
    report(lambda: download(url + "/file/a/b/x", target, **options))
    print(json.dumps(str(target.data, "utf-8")))
"""
BODY = b"0123456789" * 1000
SHA = hashlib.sha256(BODY).hexdigest()
VERIFIED = f"size=10000, sha256='{SHA}'"


def run(server, script, heap="128K"):
    """Run a script; return the values it printed. (Its target copies what it collects.)"""
    out = run_micropython(PRELUDE + script, getattr(server, "url", server), heap=heap)
    return [json.loads(line) for line in out.splitlines()]


def cut(size):
    """Return an answer that promises BODY and breaks off after `size` bytes of it."""
    return answer(BODY)[: size - len(BODY)]


def chunked(data, size=1000):
    """Return an answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "good", [answer(BODY), chunked(BODY), chunked(BODY, 1), b"HTTP/1.1 200 OK\r\n\r\n" + BODY]
)
def test_a_body_however_framed_is_delivered_whole_and_verified(good):
    with ScriptedServer([good]) as server:
        assert run(server, f"got({VERIFIED})") == [10000, BODY.decode()]
        request = server.requests[0]
    assert request.line == "GET /file/a/b/x HTTP/1.1"
    assert request.headers["user-agent"].startswith("plik_client")
    assert request.headers["accept-encoding"] == "identity"


def test_an_empty_file_is_a_file():
    digest = hashlib.sha256(b"").hexdigest()
    for good in (answer(), chunked(b""), b"HTTP/1.1 200 OK\r\n\r\n"):
        with ScriptedServer([good]) as server:
            assert run(server, f"got(size=0, sha256='{digest}')") == [0, ""]


@pytest.mark.parametrize("rewinds", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        cut(0),
        cut(1),
        cut(5000),
        cut(9999),
        chunked(BODY)[:5000],
        chunked(BODY[:7000]),  # well-formed, but short
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:3000],
        answer(b"busy", 503),
        answer(b"", 408),
        answer(b"", 429, "Retry-After: 0"),
        answer(b"", 500),
        b"nonsense\r\n\r\n",
        b"",
        lambda peer: (peer.request(), peer.send(cut(5000)), peer.reset()),
    ],
)
def test_after_a_fault_the_file_is_fetched_again_and_delivered_once(fault, rewinds):
    with ScriptedServer([fault], [fault], [answer(BODY)]) as server:
        assert run(server, f"got({rewinds}, {VERIFIED})") == [10000, BODY.decode()]
        assert server.connections == 3


TAG = 'ETag: "v1"'


def tagged(size, *headers):
    """Return an answer with an ETag that promises BODY and breaks off after `size` bytes of it."""
    return answer(BODY, 200, *headers)[: size - len(BODY)]


def rest(start, *headers, body=BODY, total=None):
    """Return the answer to a Range request from `start` on, cut where `body` ends."""
    total = len(BODY) if total is None else total
    head = [
        "HTTP/1.1 206 Partial Content",
        f"Content-Range: bytes {start}-{len(BODY) - 1}/{total}",
        f"Content-Length: {len(BODY) - start}",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body[start:]


@pytest.mark.parametrize("rewinds", [True, False])
def test_a_cut_download_goes_on_where_it_broke_off(rewinds):
    attempts = [tagged(5000, TAG), rest(5000, TAG, body=BODY[:7000]), rest(7000, total="*")]
    with ScriptedServer(*[[a] for a in attempts]) as server:
        assert run(server, f"got({rewinds}, {VERIFIED})") == [10000, BODY.decode()]
        ranges = [(r.headers.get("range"), r.headers.get("if-range")) for r in server.requests]
    assert ranges == [(None, None), ("bytes=5000-", '"v1"'), ("bytes=7000-", '"v1"')]


@pytest.mark.parametrize("rewinds", [True, False])
def test_a_server_that_ignores_ranges_is_asked_for_all_of_it(rewinds):
    attempts = [tagged(5000, TAG), answer(BODY, 200, TAG)]
    with ScriptedServer(*[[a] for a in attempts]) as server:
        assert run(server, f"got({rewinds}, {VERIFIED})") == [10000, BODY.decode()]
        assert server.requests[1].headers["range"] == "bytes=5000-"


@pytest.mark.parametrize("rewinds", [True, False])
def test_between_faults_of_every_kind_the_file_is_delivered_once(rewinds):
    attempts = [
        tagged(3000, TAG),
        answer(b"busy", 503),
        b"",
        rest(3000, TAG, body=BODY[:4000]),
        tagged(2000, TAG),
        tagged(6000, TAG),
        answer(BODY),
    ]
    with ScriptedServer(*[[a] for a in attempts]) as server:
        assert run(server, f"got({rewinds}, max_retries=9, max_delay=1, {VERIFIED})") == [
            10000,
            BODY.decode(),
        ]
        assert server.connections == 7


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        ((), "", (None, None)),
        ((), VERIFIED, ("bytes=5000-", None)),
        (('ETag: W/"v1"',), "", (None, None)),
        (('ETag: W/"v1"',), VERIFIED, ("bytes=5000-", None)),
        (("ETag: v1",), "", (None, None)),
        (('ETag: "\r"',), "", (None, None)),
        (('ETag: "é"',), VERIFIED, ("bytes=5000-", '"??"')),
        ((TAG,), "", ("bytes=5000-", '"v1"')),
        ((TAG,), "size=10000", ("bytes=5000-", '"v1"')),
    ],
)
def test_the_rest_is_asked_for_only_if_something_vouches_for_the_pieces(headers, options, expected):
    with ScriptedServer([tagged(5000, *headers)], [answer(BODY)]) as server:
        assert run(server, f"got({options})")[1] == BODY.decode()
        asked = server.requests[1].headers
    assert (asked.get("range"), asked.get("if-range")) == expected


def test_of_an_attempt_that_was_longer_nothing_stays_in_the_file(tmp_path):
    script = """
sink = Sink(sys.argv[2], None, None)
item = {"dataname": "x", "data": url + "/file/a/b/x", "payload_type": "binary", "metadata": {}}
job = Claims(None, {"correlation_id": ""}, sink, *links([item], url, ()), None)
job.fetch(item, None, (2, 1, 1), None, bytearray(1024))
item["target"].finish("x", "binary")
sink.commit()
"""
    with ScriptedServer([chunked(BODY + b"more")[:-5]], [answer(BODY)]) as server:
        run_micropython(PRELUDE + script, server.url, str(tmp_path))
    assert (tmp_path / "x").read_bytes() == BODY


@pytest.mark.parametrize("rewinds", [True, False])
@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 0-9999/10000", "bytes 5001-9999/10000", "bytes 5000-9998/10000", "bytes */10000"],
)
def test_another_range_than_asked_for_is_not_used(content_range, rewinds):
    other = answer(b"x" * 5000, 206, "Content-Range: " + content_range)
    with ScriptedServer([cut(5000)], [other], [answer(BODY)]) as server:
        assert run(server, f"got({rewinds}, {VERIFIED})") == [10000, BODY.decode()]
        assert "range" not in server.requests[2].headers


def test_pieces_of_two_versions_are_an_integrity_error():
    other = rest(5000, body=b"x" * 10000)
    with ScriptedServer([cut(5000)], [other], [answer(BODY)]) as server:
        [[code, message, _], _] = run(server, f"got({VERIFIED})")
        assert server.connections == 2
    assert code == "INTEGRITY_ERROR"
    assert "SHA-256" in message


def test_what_was_delivered_is_passed_over_even_when_later_attempts_break_off_sooner():
    attempts = [cut(6000), cut(2000), answer(b"", 503), cut(6000), answer(BODY)]
    with ScriptedServer(*[[a] for a in attempts]) as server:
        assert run(server, f"got(False, {VERIFIED})") == [10000, BODY.decode()]


@pytest.mark.parametrize("other", [b"x" + BODY[1:], BODY[:100]])
def test_a_file_that_changed_between_attempts_is_not_pieced_together(other):
    with ScriptedServer([cut(5000)], [answer(other)]) as server:
        [[code, message, details], data] = run(server, "got(False)")
    assert code == "INTEGRITY_ERROR"
    assert "changed" in message
    assert data == BODY[:5000].decode()
    assert details["url"].startswith("http://")


def test_a_content_length_that_is_not_the_size_is_refused_before_the_body_is_read():
    for size in (9999, 10001):
        with ScriptedServer([answer(BODY)], [answer(BODY)]) as server:
            [[code, message, _], data] = run(server, f"got(size={size})")
            assert server.connections == 1
        assert (code, data) == ("INTEGRITY_ERROR", "")
        assert "10000" in message
        assert str(size) in message


def test_a_body_that_grows_beyond_the_size_is_cut_off():
    with ScriptedServer([chunked(BODY)]) as server:
        [[code, _, _], data] = run(server, "got(size=4000)")
    assert code == "INTEGRITY_ERROR"
    assert len(data) <= 4000


def test_a_body_that_always_ends_early_is_an_integrity_error():
    with ScriptedServer(*[[chunked(BODY[:100])]] * 2) as server:
        [[code, _, details], _] = run(server, f"got({VERIFIED}, max_retries=2)")
    assert (code, details["attempts"]) == ("INTEGRITY_ERROR", 2)


def test_a_wrong_digest_is_an_integrity_error_and_final():
    with ScriptedServer([answer(b"x" * 10000)], [answer(BODY)]) as server:
        [[code, message, _], _] = run(server, f"got({VERIFIED})")
        assert server.connections == 1
    assert code == "INTEGRITY_ERROR"
    assert "SHA-256" in message


@pytest.mark.parametrize("good", [answer(BODY), chunked(BODY)])
def test_more_than_the_limit_is_never_delivered(good):
    with ScriptedServer([good], [good]) as server:
        [[code, message, _], data] = run(server, "got(limit=5000)")
        assert server.connections == 1
    assert code == "PAYLOAD_TOO_LARGE"
    assert "5000" in message
    assert len(data) <= 5000


@pytest.mark.parametrize("status", [204, 206, 400, 401, 403, 404, 410, 501])
def test_other_answers_are_final_and_tell_the_servers_text(status):
    with ScriptedServer([answer(b"" if status == 204 else b"no such file", status)]) as server:
        [[code, message, details], data] = run(server, "got()")
    assert (code, details["status"], details["attempts"], data) == (
        "DOWNLOAD_FAILED",
        status,
        1,
        "",
    )
    assert details["url"] == f"{server.url}/file/a/b/x"
    assert status == 204 or f"{status} no such file" in message


def test_when_all_attempts_fail_the_error_has_url_status_and_attempts():
    with ScriptedServer(*[[answer(b"busy", 503)]] * 3) as server:
        [[code, message, details], _] = run(server, "got(max_retries=3, correlation_id='c')")
        assert server.connections == 3
    assert code == "DOWNLOAD_FAILED"
    assert "503 busy" in message
    assert details == {
        "url": f"{server.url}/file/a/b/x",
        "status": 503,
        "attempts": 3,
        "correlation_id": "c",
    }


def test_delays_double_up_to_max_delay():
    script = """
begin = time.ticks_ms()
got(max_retries=5, base_delay=40, max_delay=100)
report(lambda: time.ticks_diff(time.ticks_ms(), begin))
"""
    with ScriptedServer(*[[answer(b"", 503)]] * 5) as server:
        ms = run(server, script)[-1]
    assert 80 <= ms <= 1000  # 40 + 80 + 100 + 100, less up to three quarters


def test_retry_after_is_honoured_up_to_max_delay():
    script = """
begin = time.ticks_ms()
got(max_retries=2, max_delay=300)
report(lambda: time.ticks_diff(time.ticks_ms(), begin))
"""
    with ScriptedServer([answer(b"", 503, "Retry-After: 60")], [answer(b"x")]) as server:
        ms = run(server, script)[-1]
    assert 300 <= ms <= 900


def test_redirects_are_followed_within_the_origin():
    with ScriptedServer(
        [answer(b"", 302, "Location: /other")],
        [lambda peer: (peer.request(), peer.send(answer(b"", 307, f"Location: {server.url}/x")))],
        [answer(BODY)],
    ) as server:
        assert run(server, f"got({VERIFIED})") == [10000, BODY.decode()]
        assert server.lines[0::1][-1] == "GET /x HTTP/1.1"


def test_more_than_three_redirects_are_an_error():
    with ScriptedServer(*[[answer(b"", 301, "Location: /x")]] * 5) as server:
        [[code, _, details], _] = run(server, "got()")
        assert server.connections == 4
    assert (code, details["status"], details["location"]) == ("DOWNLOAD_FAILED", 301, "/x")


@pytest.mark.parametrize(
    "location", ["http://elsewhere/x", "//elsewhere/x", "http://u@127.0.0.1/", "x y", "javascript:"]
)
def test_a_redirect_to_elsewhere_is_not_followed(location):
    with ScriptedServer([answer(b"", 301, f"Location: {location}")], [answer(b"")]) as server:
        [[code, _, _], data] = run(server, "got()")
        assert server.connections == 1
    assert code in ("DOWNLOAD_FAILED", "URL_NOT_ALLOWED")
    assert data == ""


def test_the_caller_decides_which_redirects_may_be_followed():
    script = """
def allow(where, to):
    print(json.dumps(to))
    if "evil" in to:
        raise natsbridge.NATSBridgeError("URL_NOT_ALLOWED", "no")
got(allow=allow)
"""
    with (
        ScriptedServer([answer(b"abc")]) as other,
        ScriptedServer([answer(b"", 302, f"Location: {other.url}/y")]) as server,
    ):
        assert run(server, script) == [f"{other.url}/y", 3, "abc"]
    with ScriptedServer([answer(b"", 302, "Location: http://evil/")]) as server:
        assert run(server, script)[1][0] == "URL_NOT_ALLOWED"


@pytest.mark.parametrize("status", [300, 304, 305, 306])
def test_only_redirects_are_followed(status):
    with ScriptedServer([answer(b"", status, "Location: /other")], [answer(BODY)]) as server:
        [[code, _, details], _] = run(server, "got()")
        assert server.connections == 1
    assert (code, details["status"]) == ("DOWNLOAD_FAILED", status)


def test_a_redirect_without_a_location_is_an_error():
    with ScriptedServer([answer(b"", 301)]) as server:
        [[code, _, details], _] = run(server, "got()")
    assert (code, details["status"]) == ("DOWNLOAD_FAILED", 301)


@pytest.mark.parametrize(
    "write", ["raise OSError(28)", "raise ValueError('closed')", "return 5", "return 0"]
)
def test_a_sink_that_does_not_take_it_ends_the_download_at_once(write):
    script = f"""
from natsbridge.sink import Target
class Full:
    def write(self, view):
        {write}
try:
    download(url + "/file/a/b/x", Target(Full()), base_delay=1)
except OSError as e:  # smartreceive says INVALID_ARGUMENT
    print(json.dumps(str(e)))
"""
    with ScriptedServer([answer(BODY)], [answer(BODY)]) as server:
        [why] = run(server, script)
        assert server.connections == 1
    assert ("closed" if "closed" in write else "28") in why


def test_an_error_of_the_callers_progress_is_not_taken_for_the_networks():
    script = """
def on_progress(name, done, total):
    raise OSError(104)
try:
    got(on_progress=on_progress)
except OSError as e:
    print(e.errno)
"""
    with ScriptedServer([answer(BODY)], [answer(BODY)]) as server:
        assert run(server, script) == [104]
        assert server.connections == 1


def test_progress_never_goes_back_and_ends_with_all():
    script = """
seen = []
got(False, dataname="img", on_progress=lambda *a: seen.append(a))
report(lambda: seen)
"""
    with ScriptedServer([cut(5000)], [answer(BODY)]) as server:
        seen = run(server, script, heap="2M")[-1]
    done = [s[1] for s in seen]
    assert done == sorted(set(done))
    assert seen[-1] == ["img", 10000, 10000]


def drip(peer: Peer) -> None:
    """Promise a body and send none of it."""
    peer.request()
    peer.send(cut(100))
    time.sleep(1.2)


def test_the_deadline_ends_a_download_that_stalls_and_one_that_is_retried():
    script = """
begin = time.ticks_ms()
got(deadline=time.ticks_add(begin, 500), base_delay=5000)
report(lambda: time.ticks_diff(time.ticks_ms(), begin))
"""
    for step in (drip, answer(b"", 503)):
        with ScriptedServer([step], [answer(BODY)]) as server:
            [[code, _, _], _, ms] = run(server, script)
        assert code == "DOWNLOAD_FAILED"
        assert 450 <= ms <= 900


def test_idle_is_called_at_least_every_100_ms_while_waiting_and_for_each_piece():
    script = """
calls = []
got(idle=lambda: calls.append(time.ticks_ms()), max_retries=2, base_delay=800)
report(lambda: max(time.ticks_diff(b, a) for a, b in zip(calls, calls[1:])))
report(lambda: len(calls))
"""
    with ScriptedServer([drip], [answer(BODY)]) as server:
        _, _, longest, count = run(server, script, heap="2M")
    assert longest < 160
    assert count > 18


def test_fetch_with_backoff_returns_bytes():
    script = """
data = natsbridge.fetch_with_backoff(url, 3, 1, 10, "c")
same = data == b"0123456789" * 1000
print(json.dumps([str(type(data)), len(data), str(data[:4], "utf-8"), same]))
"""
    for good in (answer(BODY), chunked(BODY), b"HTTP/1.1 200 OK\r\n\r\n" + BODY):
        with ScriptedServer([cut(5000)], [good]) as server:
            assert run(server, script) == [["<class 'bytes'>", 10000, "0123", True]]


def test_fetch_with_backoff_allocates_its_bytes_once():
    script = """
import gc
import natsbridge.plik
natsbridge.fetch_with_backoff(url)
gc.collect()
size = gc.mem_free() * 2 // 3
data = natsbridge.fetch_with_backoff(url + "/%d" % size)
print(json.dumps([len(data) == size, 2 * size > gc.mem_free() + size]))
"""

    def sized(peer: Peer) -> None:
        request = peer.request()
        peer.send(answer(b"x" * int(request.line.split()[1].strip("/"))))

    with ScriptedServer([answer(b"")], [sized]) as server:
        out = run_micropython(PRELUDE + script, server.url, heap="160K")
        assert json.loads(out) == [True, True]


@pytest.mark.parametrize(
    "huge",
    [
        answer(b"")[:-4].replace(b": 0", b": 999999") + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200000,
        chunked(b"x" * 200000, 50000),
    ],
)
def test_fetch_with_backoff_refuses_what_the_heap_cannot_hold(huge):
    with ScriptedServer([huge], [answer(b"")]) as server:
        [[code, message, _]] = run(server, "report(lambda: natsbridge.fetch_with_backoff(url))")
        assert server.connections == 1
    assert code == "PAYLOAD_TOO_LARGE"
    assert "heap" in message


@pytest.mark.parametrize("url", ["https://host/x", "http://u@host/", "file:///etc/passwd", "x"])
def test_a_url_that_cannot_be_used_is_an_argument_error(url):
    [[code, _, _]] = run(url, "report(lambda: natsbridge.fetch_with_backoff(url))")
    assert code == "INVALID_ARGUMENT"


def test_five_megabytes_are_fetched_in_64_kb_and_no_full_piece_allocates(file_url, tmp_path):
    (tmp_path / "big").write_bytes(content := bytes(range(256)) * 20480)
    script = """
import gc
class File:
    def __init__(self):
        self.file = open(sys.argv[2] + ".copy", "wb")
        self.full = self.before = self.last = self.most = self.pieces = 0
    def write(self, view):
        n = self.file.write(view)
        now = gc.mem_alloc()
        if n == self.full == self.before:  # short reads cost a slice
            self.most = max(self.most, now - self.last)
            self.pieces += 1
        self.full = max(self.full, n)
        self.before = n
        self.last = gc.mem_alloc()
        return n
r = natsbridge.plik_upload(url, "big", open(sys.argv[2], "rb"))
gc.collect()
target = File()
download(r["url"], target, size=r["size"], sha256=r["sha256"])
target.file.close()
print(json.dumps([target.most, target.pieces]))
"""
    out = run_micropython(PRELUDE + script, file_url, str(tmp_path / "big"))
    most, pieces = json.loads(out)
    assert (tmp_path / "big.copy").read_bytes() == content
    assert most == 0
    assert pieces > 1000
