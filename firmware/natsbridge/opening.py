"""How an inbox begins: what is done once, and dropped."""

import json

from .errors import INVALID_ARGUMENT, NATSBridgeError, check, fail
from .payload import check_subject, is_subject


def inbox(nc, stream, name, subject="", ack_wait=30):
    """See Connection.inbox."""
    from .jetstream import STREAM_FAILED, ask
    from .stored import Inbox, StoredMsg, check_seconds

    for word in (stream, name):
        for c in '."*/>\\':  # it is a token of subjects, a file's name, and stands in JSON below
            if not is_subject(word) or c in word:
                raise fail(INVALID_ARGUMENT, "name", word)
    if subject:
        check_subject(subject, True)
    check("ack_wait", ack_wait, 1)
    check_seconds("ack_wait", ack_wait)
    box = Inbox()
    box._nc = nc
    box._name = where = stream + "." + name
    box._wait = ack_wait
    config = (
        '{"durable_name":"%s","ack_policy":"explicit","ack_wait":%d000000000,"filter_subject":%s}'
    )
    config %= name, ack_wait, json.dumps(subject or "")
    order = '{"stream_name":"%s","config":%s,"action":"%s"}'
    where = "DURABLE.CREATE." + where
    try:
        ask(nc, where, order % (stream, config, "create"))
    except NATSBridgeError as e:
        if e.code != STREAM_FAILED:
            raise
        config = known(nc, box, subject, e)
        if config:
            ask(nc, where, order % (stream, config, "update"))
    nc._msg = StoredMsg
    return box


def known(nc, box, subject, error):
    """The configuration, for an update, of a consumer that is there and differs, as the server said
    with `error`; None where that is not in what an inbox is told.

    Raises STREAM_FAILED with what is in the way, or `error` if it is not there.
    """
    from .jetstream import STREAM_FAILED, ask

    try:
        config = ask(nc, "INFO." + box._name, "")["config"]
    except NATSBridgeError:
        raise error
    every = "all subjects"
    told = " ".join(config.get("filter_subjects", ())) or config.get("filter_subject", "")
    if told != (subject or ""):
        raise fail(STREAM_FAILED, "other", box._name, told or every, subject or every)
    for key, value in (("ack_policy", "explicit"), ("deliver_subject", None)):
        if config.get(key) != value:
            raise fail(STREAM_FAILED, "foreign", box._name, key, config[key])
    wait = box._wait * 10**9
    if config["ack_wait"] != wait:
        config["ack_wait"] = wait
        return json.dumps(config)
