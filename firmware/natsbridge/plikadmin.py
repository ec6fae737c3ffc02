"""What else a Plik file server is asked: to remove files, and where its files can be had."""

import json
import time

from micropython import const

from .errors import NATSBridgeError
from .http import Connection, Fault
from .log import trace
from .urls import origin

_ANSWER = const(4096)  # bytes of an answer's JSON
_CLEANUP = const(2000)  # ms that a request may take here


def _ask(method, url, token="", idle=None, deadline=None):
    """(status, or the reason that there is none; the JSON object answered or {})."""
    headers = ("X-UploadToken: " + token,) if token else ()
    answer = None
    end = time.ticks_add(time.ticks_ms(), _CLEANUP)
    if deadline is not None and time.ticks_diff(deadline, end) < 0:
        end = deadline
    try:
        connection = Connection(url, end, idle)
        try:
            connection.request(method, connection.path, headers)
            status = connection.answer().status
            if method == "GET":
                answer = json.loads(connection.body(_ANSWER))
        finally:
            connection.close()
    except (Fault, NATSBridgeError, ValueError) as e:
        status = e
    return status, answer if isinstance(answer, dict) else {}


def remove(url, token="", correlation_id="", idle=None):
    """Delete a file or, with its token, an upload: whether that worked. Never raises."""
    status, _ = _ask("DELETE", url, token, idle)
    trace(correlation_id, "Removed %s: %s" % (url, status))
    return status == 200


def remove_others(base, upload, token, kept, correlation_id=""):
    """Remove an upload's files but the one `kept`: those of failed attempts. Never raises."""
    files = _ask("GET", "%s/upload/%s" % (base, upload), token)[1].get("files")
    for f in files if isinstance(files, list) else ():
        if isinstance(f, dict) and f.get("id") != kept:
            name = "%s/file/%s/%s/%s" % (base, upload, f.get("id"), f.get("fileName"))
            remove(name, token, correlation_id)


def download_domains(url, deadline=None, idle=None):
    """The origins from which the file server `url` says itself that its files can be had."""
    config = _ask("GET", url.split("?")[0].rstrip("/") + "/config", "", idle, deadline)[1]
    others = config.get("downloadDomainAlias")
    domains = []
    for domain in [config.get("downloadDomain")] + (others if isinstance(others, list) else []):
        try:
            domains.append(origin(domain))
        except NATSBridgeError:
            pass  # none, or nothing that this device could fetch from
    return domains
