"""What an upload or a download needs only when its first attempt did not go well.

A job has ``attempt()``, which raises Fault where another attempt may help, and the attributes
code and what (the beginning of its error), url, tries (attempts begun), deadline, idle and
correlation_id.
"""

import os
import time

from .errors import URL_NOT_ALLOWED, NATSBridgeError
from .http import Fault
from .log import trace
from .urls import allowed

_AGAIN = (408, 429, 500, 502, 503, 504)  # answers after which another attempt may help


def again(job, fault, tries, base_delay, max_delay):
    """The result of `job` after its first attempt ended in `fault`: it is tried up to `tries`
    times in all, after longer and longer pauses (see `pause`). Raises the job's error."""
    while True:
        why, status, retry_after = fault.args
        trace(job.correlation_id, job.what + why)
        if job.tries >= tries or not pause(job, base_delay, max_delay, retry_after):
            raise error(job, why, {"status": status})
        job.tries += 1
        try:
            return job.attempt()
        except Fault as e:
            fault = e


def pause(job, base_delay, max_delay, retry_after):
    """Sleep `base_delay` ms, doubled for each failed attempt but the first, or `retry_after` s;
    with jitter, at most `max_delay` ms, and until the deadline at most: False then."""
    ms = min(max_delay, base_delay << min(job.tries - 1, 16))
    ms -= ms * os.urandom(1)[0] >> 9  # up to half: many devices must not come back in step
    ms = min(max_delay, max(ms, retry_after * 1000))
    end = time.ticks_add(time.ticks_ms(), ms)
    if job.deadline is not None and time.ticks_diff(job.deadline, end) < 0:
        end = job.deadline
    while True:
        if job.idle:
            job.idle()
        ms = time.ticks_diff(end, time.ticks_ms())
        if ms <= 0:
            return end != job.deadline
        time.sleep_ms(min(ms, 100))


def error(job, why, details):
    """The NATSBridgeError of `job`."""
    details.update(url=job.url, attempts=job.tries, correlation_id=job.correlation_id)
    return NATSBridgeError(job.code, job.what + why, details)


def refusal(connection, job):
    """The exception for an answer that is not the one hoped for: a Fault, if another attempt may
    help, else the job's error with the beginning of the server's text."""
    r = connection.response
    try:
        text = connection.body(200)
    except Fault:
        text = b""
    text = "".join(chr(c) if 32 <= c < 127 else " " for c in text).strip()
    text = "%s answered %d %s" % (connection.origin, r.status, text)
    if r.status in _AGAIN:
        return Fault(text, r.status, r.retry_after)
    if not r.location:
        return error(job, text, {"status": r.status})
    to = r.location[:200]
    return error(job, "%s (to %s)" % (text, to), {"status": r.status, "location": to})


def redirection(connection, job, left):
    """The URL to which a download is redirected, if it may be followed and `left` is not 0.

    Raises as `refusal`, and URL_NOT_ALLOWED.
    """
    r = connection.response
    to = r.location
    if not left or not to or r.status not in (301, 302, 303, 307, 308):
        raise refusal(connection, job)
    if to[:1] == "/" and to[1:2] != "/":
        to = connection.origin + to
    if job.allow:
        job.allow(to)
    elif not allowed(to, (connection.origin,)):
        job.code = URL_NOT_ALLOWED
        raise error(job, "it is redirected to another server, " + to, {"location": to})
    return to
