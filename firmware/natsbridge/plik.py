"""What users call or pass themselves: the file server alone, a login for it, handlers."""

import gc
from binascii import hexlify
from hashlib import sha256

from micropython import const

from .errors import (
    DOWNLOAD_FAILED,
    INTEGRITY_ERROR,
    INVALID_ARGUMENT,
    PAYLOAD_TOO_LARGE,
    UPLOAD_FAILED,
    NATSBridgeError,
    check,
    fail,
    make_room,
)
from .http import read
from .stream import until
from .upload import Upload
from .urls import home, odd, parse

_RESERVE = const(4096)  # bytes of heap that a file in memory must leave free


# -- for the other parts


def use_handler(job, handler, url):
    """Have a user's handler do the uploads of `job`, unless it is one of ours."""
    if handler is not plik_upload:
        job.form["removable"] = False
        job.form["oneShot"] = handler is plik_oneshot_upload
        if not job.form["oneShot"]:
            job.handler = handler, job.base if url is None else url


def upload_by(job, value):
    """What the user's upload handler of `job` did with a payload: (URL, size, SHA-256)."""
    handler, url = job.handler
    source = job.source
    name = job.dataname
    if isinstance(value, (bytes, bytearray)):
        data = value
    elif source.size is None:
        raise fail(INVALID_ARGUMENT, "unsized")
    else:
        data = bytearray(source.size)
        source.rewind()
        source.fill(memoryview(data), source.size, name)
    try:
        answer = handler(url, name, data)
    except NATSBridgeError:
        raise
    except Exception as e:
        answer = e
    if not isinstance(answer, dict) or answer.get("status") != 200 or not answer.get("url"):
        raise fail(UPLOAD_FAILED, "handler", answer, name)
    return answer["url"], len(data), str(hexlify(sha256(data).digest()), "utf-8")


def download_by(job, handler, payload_type):
    """The target with what a user's download handler returned, verified; None for ours."""
    if handler is fetch_with_backoff:
        return None
    url = job.url
    try:
        data = handler(url, *job.tries, job.correlation_id)
    except NATSBridgeError:
        raise
    except Exception as e:
        data = e
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise fail(DOWNLOAD_FAILED, "handler", data, url)
    job.fits(len(data), True)
    if job.sha256 and str(hexlify(sha256(data).digest()), "utf-8") != job.sha256:
        raise fail(INTEGRITY_ERROR, "digest", job.dataname, url=url)
    target = job.sink.open(job.dataname, payload_type, len(data))
    target.write(data)
    return target


def read_whole(job):
    """The body of an answer, as bytes. Raises PAYLOAD_TOO_LARGE for more than the heap can hold."""
    size = job.length
    gc.collect()
    try:
        if size is not None and size + _RESERVE > gc.mem_free():
            raise MemoryError
        return read(job) if size is None else read(job, size)
    except MemoryError:
        free = gc.mem_free()
        raise fail(PAYLOAD_TOO_LARGE, "heap", size or free, free)


# -- for users


def plik_upload(
    file_server_url,
    dataname,
    data,
    *,
    ttl=86400,
    removable=False,
    headers=None,
    tls=None,
    correlation_id="",
    on_progress=None,
    timeout=None,
):
    """Upload a file that any number of receivers can download until `ttl` seconds have passed.

    file_server_url: may carry a login, http://user:password@host, for that server alone.
    data: bytes-like or a binary stream. ttl 0, and one that the server finds too long: the
    server's default. removable: who knows the URL may delete the file.
    headers: more of them, {"X-PlikToken": "..."}; tls: options for https, as connect takes them.
    on_progress: called as on_progress(dataname, done, total), in bytes, total None if not known.
    timeout: s for all of it, None: as long as bytes move.

    Returns {"status": 200, "uploadid", "fileid", "url", "size", "sha256", "uploadtoken"}.
    Raises UPLOAD_FAILED, INVALID_ARGUMENT, INVALID_PAYLOAD_TYPE.
    """
    check("ttl", ttl)
    if type(removable) is not bool:
        raise fail(INVALID_ARGUMENT, "kinds")
    job = Upload(home(file_server_url), None, until(timeout))
    if headers:
        from .headers import join

        job.extra += join(headers)
        if len(job.extra.encode()) > len(job.extra):
            raise fail(INVALID_ARGUMENT, "headers")
    job.tls = tls
    job.correlation_id = correlation_id
    result = _upload(job, dataname, data, ttl, removable, False, on_progress)
    result.update(size=job.size, sha256=job.digest, uploadtoken=job.token)
    return result


def plik_oneshot_upload(file_server_url, dataname, data):
    """Upload a file that the server removes at its first download, even if that breaks off.

    Returns {"status": 200, "uploadid", "fileid", "url"}; raises as `plik_upload`, which is safer.
    """
    job = Upload(home(file_server_url), None, None)
    return _upload(job, dataname, data, 86400, False, True, None)


def _upload(job, dataname, data, ttl, removable, oneshot, on_progress):
    from .compose import check_field, open_source

    check_field("dataname", dataname)
    job.form = {"ttl": ttl, "removable": removable, "oneShot": oneshot}
    job.on_progress = on_progress
    job.buf = bytearray(1032)
    source = open_source(dataname, data, "binary")
    check_field = open_source = None  # free to be dropped
    make_room(12288, "plik", "envelope", "upload", "http")
    url, job.size, job.digest = job.send(dataname, source, None)
    return {"status": 200, "uploadid": job.id, "fileid": job.file, "url": url}


def fetch_with_backoff(url, max_retries=5, base_delay=100, max_delay=5000, correlation_id=""):
    """The file at `url`, as bytes. At most `max_retries` attempts, `base_delay` ms apart, doubled
    each time up to `max_delay`.

    Raises DOWNLOAD_FAILED, INVALID_ARGUMENT, URL_NOT_ALLOWED for a redirection to another server,
    and PAYLOAD_TOO_LARGE for the heap.
    """
    from .download import Claims
    from .sink import Sink

    check("max_retries", max_retries, 1)
    check("base_delay", base_delay, 0, float)
    check("max_delay", max_delay, 0, float)
    try:
        where = parse(url)
    except ValueError:
        raise odd(url)
    server = where[0], "", where[2], where[3], ""
    job = Claims(
        None,
        {"correlation_id": correlation_id},
        Sink(None, None, None),
        server,
        [where[0] + "/"],
        None,
    )
    job.asked = True
    item = {"dataname": url, "data": url, "where": where, "payload_type": None, "metadata": {}}
    job.fetch(item, None, (max_retries, base_delay, max_delay), None, "")
    return item["target"].data
