"""Whether a stream keeps messages for longer than the file server keeps their files. Loaded where
somebody reads the log."""

import json

from .jetstream import request
from .log import trace


def compare(nc, stream, ttl):
    """Tell, once for each stream of a connection, if it keeps messages for more than `ttl` s."""
    known = nc._options.setdefault("ages", {})
    if stream not in known:
        msg = request(nc, "$JS.API.STREAM.INFO." + stream, b"", None, None)
        if not msg or not len(msg):
            return
        known[stream] = json.loads(msg.data).get("config", {}).get("max_age", 0)
    age = known[stream] // 1000000000
    if not age or age > ttl:
        trace(
            "-",
            "The stream %s keeps messages for %s s, and the file server files for %d s: whoever"
            " receives later finds none" % (stream, age or "any number of", ttl),
        )
