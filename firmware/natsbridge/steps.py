"""The last steps of smartsend by hand: an envelope's text, and its message."""

import json

from . import log
from .compose import open_source
from .dial import connect
from .envelope import EnvelopeJSON
from .errors import INVALID_ARGUMENT, check_type, fail


def envelope_to_json(env):
    """The JSON text of an envelope as smartsend returned it (see EnvelopeJSON), or of an error
    response.

    Raises INVALID_ARGUMENT if a source can't be read again.
    """
    if "payloads" not in env:
        return json.dumps(env)
    sources = []
    for p in env["payloads"]:
        source = None
        if p["transport"] == "direct":
            source = open_source(p["dataname"], p["data"], p["payload_type"])
            size = source.size or 0
            if source.stream:  # it stands where sending left it
                source.at += size - p["size"]
                source.size = p["size"]
            elif size != p["size"]:
                raise fail(INVALID_ARGUMENT, "rewind", "it has another size now")
        sources.append(source)
    return EnvelopeJSON(env, sources)


def publish_message(nats, subject, msg_json, correlation_id=""):
    """Publish the envelope's text on a Connection, or by one to a broker's URL.

    Raises as Connection.publish and connect do.
    """
    if log.enabled:  # the length of an envelope costs composing its text
        log.trace(correlation_id, "Publishing %d bytes to %s" % (len(msg_json), subject))
    if isinstance(nats, str):
        with connect(nats) as nc:
            nc.publish(subject, msg_json)
            nc.flush()
    else:
        check_type(nats or 1)
        nats.publish(subject, msg_json)
