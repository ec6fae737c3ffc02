"""What a transfer needs rarely: another attempt, the rest of a file, redirections and refusals,
bodies whose length nobody knew, files to be removed, download domains.

A job is a Connection with ``attempt()``, which raises Fault where another attempt may help.
"""

import hashlib
import json
import os
import time

from micropython import const

from .errors import INTEGRITY_ERROR, UPLOAD_FAILED, URL_NOT_ALLOWED, NATSBridgeError, fail
from .http import Connection, Fault, read
from .log import trace
from .stream import until

_ANSWER = const(4096)  # bytes of an answer's JSON
_MAX_HEX = const(12)  # digits of a chunk's size
_MAX_LINE = const(4096)  # bytes of a chunk's extensions

# -- after a fault


def again(job, e):
    """The result of `job` after its first attempt ended with `e`: it is tried up to
    job.tries[0] times in all, after longer and longer pauses. Raises its error.

    The pauses are job.tries[1] ms, doubled for each but the first, or what the server asks for;
    with jitter, and at most job.tries[2].
    """
    most, base_delay, max_delay = job.tries
    result = None
    while result is None:
        # Another attempt gets the same certificate.
        final = job.stream and not job.stream.out
        job.close()
        trace(job.correlation_id, "%s: %s" % (job.dataname, e))
        if final or not isinstance(e, Fault) or job.attempts >= most:
            break
        ms = int(min(max_delay, base_delay * (1 << min(job.attempts - 1, 16))))
        ms = ms * (85 + os.urandom(1)[0]) // 340  # a quarter at least: many must not be in step
        if job.status > 399:
            after = job.headers[5] or ""  # Retry-After; as a date it would need a clock
            if after.isdigit() and len(after) < 7:
                ms = int(min(max_delay, max(ms, int(after) * 1000)))
        if job.done:
            # What is missing only, if there is a way to tell whether the pieces belong together:
            # the digest, or a strong ETag (the others begin with W/).
            if job.status // 100 == 2:
                job.etag = job.headers[6] or ""
            job.range = ""
            if job.hash and job.total is not None:
                mark = "Range: bytes=%d-\r\n" % job.done
                if repr(job.etag)[:2] == "'\"" and repr(job.etag) == "'%s'" % job.etag:
                    job.range = "%sIf-Range: %s\r\n" % (mark, job.etag)
                elif job.sha256:
                    job.range = mark
        end = time.ticks_add(time.ticks_ms(), ms)
        try:
            job.tick()  # also where there is no pause
            while ms > 0:
                time.sleep_ms(min(ms, 50))
                job.tick()
                ms = time.ticks_diff(end, time.ticks_ms())
        except Fault:
            break  # the time is over: what came before says more
        job.attempts += 1
        try:
            result = job.attempt()
        except Exception as other:
            e = other
    if isinstance(e, Fault) and result is None:
        e = _error(job, "attempts", e)
    if job.id:  # an upload: remove what failed attempts left behind, or all of it
        url = job.base + "/upload/" + job.id
        try:
            files = ask(job, "DELETE" if result is None else "GET", url).get("files")
            for f in files if isinstance(files, list) else ():
                if isinstance(f, dict) and f.get("id") != job.file:
                    url = "%s/file/%s" % (job.base, job.id)
                    ask(job, "DELETE", url + "/%s/%s" % (f.get("id"), f.get("fileName")))
        except MemoryError:
            pass  # the upload's own outcome matters more; the server forgets the rest by itself
    if result is None:
        raise e
    return result


def _error(job, key, why):
    return fail(
        job.code,
        key,
        job.dataname,
        job.origin,
        why,
        url=job.url,
        status=job.status,
        attempts=job.attempts,
        correlation_id=job.correlation_id,
    )


def follow(job, left):
    """Where the answer to a GET leads: to its body, then None, or to another URL, parsed, if `left`
    is not 0.

    job.done bytes are in job.target already, and the body is read up to what comes next. Raises as
    `refuse`, and URL_NOT_ALLOWED.
    """
    status = job.status
    if job.done and status < 300:
        if job.hash:
            if status == 206 and job.total is not None:
                mark = "bytes %d-%d/" % (job.done, job.total - 1)
                if (job.headers[7] or "").startswith(mark):
                    return None
            job.digest = job.hash.digest()
            job.hash = None
        if status == 206:
            raise Fault("bad range")
        # The file again, from its first byte: pass over what the target has, if it must.
        whole = hashlib.sha256()
        if job.target.rewind():
            job.done = 0
        else:
            known = hashlib.sha256()
            at = 0
            n = 1
            while n and at < job.done:
                n = job.readinto(job.buf, min(len(job.buf), job.done - at))
                known.update(job.buf[:n])
                whole.update(job.buf[:n])
                at += n
            if known.digest() != job.digest:
                raise fail(INTEGRITY_ERROR, "changed", job.dataname, url=job.url)
            if job.length is not None:
                job.length -= at
        job.hash = whole
        return None
    to = job.headers[4]
    if not left or not to or not 300 < status < 309 or 303 < status < 307:
        refuse(job)
    if to[:1] == "/" and to[1:2] != "/":
        to = job.origin + to
    job.close()
    from .urls import parse

    try:
        where = parse(to)
    except ValueError:
        where = None
    job.check(where, to)
    return where


def refuse(job):
    """Raise what an answer that is not the one hoped for means: a Fault, if another attempt may
    help, else the job's error with the beginning of the server's text.

    Returns None for an upload that was refused because of its ttl: the server's default never is.
    """
    status = job.status
    try:
        text = read(job, 200)
    except Fault:
        text = ""
    text = "%d %s " % (status, repr(text.strip())[2:-1])
    if status in (408, 429, 500, 502, 503, 504):
        raise Fault(text)
    if status == 400 and job.code == UPLOAD_FAILED and not job.id and job.form["ttl"]:
        job.form["ttl"] = 0
        return
    to = (job.headers[4] or "")[:200]
    e = _error(job, "login" if status == 401 or status == 403 else "refused", text + repr(to)[1:-1])
    if to:
        e.details["location"] = to
    raise e


# -- what else a file server is asked


def ask(job, method, url):
    """The JSON object answered, {} where there is none. Never raises.

    It may take 2 s. What cleans up may do that after the deadline.
    """
    job.close()
    answer = None
    deadline = job.deadline
    end = until(2)
    if deadline is None or method != "GET" or time.ticks_diff(end, deadline) < 0:
        job.deadline = end
    try:
        from .urls import parse

        job.request(method, parse(url), "", "")
        status = job.answer()
        if status == 200 and method == "GET":
            answer = json.loads(read(job, _ANSWER))
    except (Fault, NATSBridgeError, ValueError, MemoryError) as e:
        status = e
    job.close()
    job.deadline = deadline
    trace(job.correlation_id, "%s %s: %s" % (method, url, status))
    return answer if isinstance(answer, dict) else {}


def undo(nc, url, done):
    """Remove the files `done`, (URL, token) each, of the file server `url`. Never raises."""
    from .urls import home

    job = Connection(home(url), nc, None)
    for url, job.token in done:
        ask(job, "DELETE", url)


def consume(nc, env, items, url, deadline):
    """Delete the files that were meant for this receiver alone, now that they are here.

    Only if the message names this receiver, its sender marked the file as removable, size and
    digest were verified, and the URL is that of one file.
    """
    who = env["receiver_" + "id"]  # in one piece it would not be a name, and cost the heap more
    mine = who == nc.id if who else env["receiver_" + "name"] == nc.name
    from .urls import home

    job = Connection(home(url), nc, deadline)
    job.correlation_id = env["correlation_id"]
    for item in items:
        metadata = item["metadata"]
        url = item["data"]
        parts = item["where"][1].split("/")
        if (
            mine
            and metadata.get("removable")
            and metadata.get("sha256")
            and item.get("size") is not None
            and len(parts) == 5
            and parts[1] == "file"
            and "" not in parts[2:]
            and "?" not in url
        ):
            ask(job, "DELETE", url)


def widen(job, where, url):
    """Allow what lies where the file server says itself that its files can be had. Raises
    URL_NOT_ALLOWED if `url` does not."""
    if not where:
        url = repr(url)
        raise fail(URL_NOT_ALLOWED, "odd", url[url.rfind("@") + 1 :][:200])
    if job.asked:
        raise fail(URL_NOT_ALLOWED, "url", url, job.base, where[0], url=url)
    job.asked = True
    config = ask(job, "GET", job.base + "/config")
    others = config.get("downloadDomainAlias")
    from .urls import parse, stem

    for domain in [config.get("downloadDomain")] + (others if isinstance(others, list) else []):
        try:
            domain = parse(domain)
            job.prefixes.append(domain[0] + stem(domain) + "/")
        except ValueError:
            pass  # none, or nothing that this device could fetch from
    job.check(where, url)


# -- chunked transfer coding (RFC 9112, 7.1)


def read_size(job):
    """Read the line that opens a chunk (no allocation): the chunk's size, 0 for the last."""
    one = job.one
    size = mark = c = 0
    count = -2 if job.chunked > 1 else 0  # first the line end of the chunk before
    job.chunked = 2
    while c != 10 or count < 1:
        if not job.stream.readinto(one, 1):
            raise ValueError("cut off")
        c = one[0]
        count += 1
        digit = c - 48 if c < 58 else (c | 32) - 87
        if count < 1:
            good = c == (13 if count else 10)
        elif mark:  # the line's end; after a semicolon extensions, which nobody needs
            good = count < _MAX_LINE
        elif c == 13 or c == 59:
            mark = 1
            good = count > 1
        else:
            good = 0 <= digit < 16 and (digit < 10) == (c < 58) and count <= _MAX_HEX
            size = size << 4 | digit
        if not good:
            raise ValueError("bad chunk")
    if not size:
        job.chunked = 0
        while job.line():  # trailers
            pass
    return size


def write_chunk(job, buf, n):
    """Write buf[6:6+n] as a chunk of a chunked body (n < 65,536); buf[:6] and the two bytes
    after the data are overwritten. Like Connection.write."""
    for i in range(4):
        buf[i] = b"0123456789abcdef"[n >> 12 - 4 * i & 15]
    buf[4] = buf[n + 6] = 13
    buf[5] = buf[n + 7] = 10
    return job.write(buf, 0, n + 8)
