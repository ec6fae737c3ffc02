"""How inboxes and spools begin: what is done once, and dropped."""

import json
import os

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


def scan(spool):
    """Make the folder of a spool if it is not there, and find what it has. Raises
    INVALID_ARGUMENT."""
    path = folder = spool.folder
    spool.size = spool.dropped = spool.damaged = 0
    spool._sid = 0  # the number of the next message: none that is there has it, or a greater one
    aside = []
    spool._queue = []  # numbers, with gaps where a stray file was
    try:
        try:
            os.mkdir(folder)
        except OSError:
            pass  # it is there
        for name in os.listdir(folder):
            path = folder + "/" + name
            number = name.split(".")[0]
            if name == "part":
                os.remove(path)
            elif number.isdigit():
                spool._sid = max(spool._sid, int(number) + 1)
                if name == number:
                    spool._queue.append(int(number))
                    spool.size += os.stat(path)[6]
                else:
                    aside.append(name)
        for name in aside:  # also one whose message would take its name
            path = folder + "/" + name
            if name[:-4].isdigit() and int(name[:-4]) in spool._queue:
                os.rename(path, "%s/%d.bad" % (folder, spool._sid))
                spool._sid += 1
    except (OSError, TypeError) as e:
        raise fail(INVALID_ARGUMENT, "spool", path, e)
    spool._queue.sort()
