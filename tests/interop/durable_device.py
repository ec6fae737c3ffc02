"""One script for both sides, of what streams keep: firmware on MicroPython, natsbridge.sync on
CPython.

Called with the URLs of a broker with JetStream and of a file server, and an empty folder. Prints a
line of JSON for each step: its result, or the code of its error.
"""

import json
import sys
import time

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

BROKER, FILES, FOLDER = sys.argv[1:4]
LARGE = bytes(range(256)) * 2000


def step(name, function, *arguments, **options):
    """Print what a call gives, or the code of its error and what its message must say."""
    says = options.pop("says", "")
    try:
        result = ["ok", function(*arguments, **options)]
    except natsbridge.NATSBridgeError as e:
        result = ["error", e.code, says in e.message or e.message]
    except Exception as e:  # none should come; the steps after it count too
        result = ["raised", repr(e)]
    print(json.dumps([name, result]))


nc = natsbridge.connect(BROKER, name="twin", id="twin-1")


def api(what, order=None):
    """Ask JetStream."""
    data = nc.request("$JS.API." + what, json.dumps(order) if order else b"").data
    answer = json.loads(bytes(data))
    return answer.get("error", {}).get("description", "")


def stream(name, **config):
    """Make a stream."""
    config.update({"name": name, "storage": "file"})
    return api("STREAM.CREATE." + name, config)


def send(subject, text="x", **options):
    """Send a text durably."""
    natsbridge.smartsend(
        subject, [("a", text, "text")], nats_connection=nc, durable=True, **options
    )


def texts(box, n=10, timeout=0.3, after="ack"):
    """Fetch messages, and say `after` of each: their texts."""
    came = []
    for msg in box.fetch(n, timeout):
        came.append(natsbridge.smartreceive(msg)["payloads"][0][1])
        if after:
            getattr(msg, after)()
    return came


step("no stream at all", send, "twin.a", says="natsbridge stream create")
step("a stream", stream, "TWIN", subjects=["twin.>"])
step("another subject", send, "other.a", says="no stream takes")
step("a subject with a wildcard", send, "twin.*")
step("no such stream", nc.inbox, "NOPE", "dev", says="stream not found")
step("a stream's name with a dot", nc.inbox, "A.B", "dev", says="no dots")
step("a consumer's name with a dot", nc.inbox, "TWIN", "a.b", says="no dots")
step("a consumer without a name", nc.inbox, "TWIN", "", says="is no name")
step("a stream that is a number", nc.inbox, 5, "dev", says="5 is no name of a stream")
step("a consumer's name with a quote", nc.inbox, "TWIN", 'a"b', says="quotes")
step("a stream's name with a backslash", nc.inbox, "TW\\IN", "dev", says="is no name")
step("a wrong time", nc.inbox, "TWIN", "dev", ack_wait=0)
step("a time without an end", nc.inbox, "TWIN", "dev", ack_wait=10**40, says="1000000000 s")
step("a wrong subject", nc.inbox, "TWIN", "dev", "a b")

box = nc.inbox("TWIN", "dev", ack_wait=1)
step("nothing waits", texts, box, 1, 0)
step("nothing comes", texts, box, 1, 0.3)
step("none of it", texts, box, 0)
step("a wrong timeout", texts, box, 1, -1)
step("send", send, "twin.a", "one")
step("send again with the same id", send, "twin.a", "two", msg_id="the-id")
step("once more", send, "twin.a", "three", msg_id="the-id")
step("they come once", texts, box)
step("and not again", texts, box, 1, 1.2)

step("send what is not acknowledged", send, "twin.a", "again")
step("it comes", texts, box, 1, 1, None)
step("not at once", texts, box, 1, 0)
step("it comes again", texts, box, 1, 3, "nak")
step("at once", texts, box, 1, 1, "term")
step("and not any more", texts, box, 1, 1.2)


def later():
    """Have it come again later."""
    send("twin.a", "later")
    for msg in box.fetch(1):
        msg.nak(0.5)
    return [texts(box, 1, 0), texts(box, 1, 2)]


def longer():
    """Take longer than ack_wait."""
    send("twin.a", "longer")
    for msg in box.fetch(1):
        for _ in range(5):
            time.sleep(0.4)
            msg.in_progress()
        again = len(list(box.fetch(1, 0)))
        msg.ack()
    return [again, texts(box, 1, 1.2)]


def twice():
    """Acknowledge twice."""
    send("twin.a", "twice")
    for msg in box.fetch(1):
        msg.ack()
        msg.ack()
    return texts(box, 1, 0)


def never():
    """Have it come again in an age."""
    send("twin.a", "never")
    for msg in box.fetch(1):
        try:
            msg.nak(10**40)
        finally:
            msg.ack()


step("in an age", never, says="1000000000 s")
step("later", later)
step("longer than it may", longer)
step("acknowledged twice", twice)


def exists(url):
    """Whether the file server still has a file."""
    try:
        return len(natsbridge.fetch_with_backoff(url, 1, 1, 1, ""))
    except natsbridge.NATSBridgeError as e:
        return e.code


def send_file():
    """Send a file for this receiver alone."""
    return natsbridge.smartsend(
        "twin.a",
        [("f", LARGE, "binary")],
        nats_connection=nc,
        fileserver_url=FILES,
        durable=True,
        receiver_id="twin-1",
        size_threshold=1000,
    )


def claimed(says):
    """Receive a file for this receiver alone."""
    env, _ = send_file()
    url = env["payloads"][0]["data"]
    found = []
    for msg in box.fetch(1):
        env = natsbridge.smartreceive(msg, sink=FOLDER, fileserver_url=FILES)
        found.append(exists(url))
        getattr(msg, says)()
        found.append(exists(url))
    return url, found


def kept():
    """Not acknowledged: the file is still there when the message comes again."""
    _, found = claimed("nak")
    for msg in box.fetch(1):
        env = natsbridge.smartreceive(msg, sink=FOLDER, fileserver_url=FILES)
        with open(env["payloads"][0][1], "rb") as f:
            found.append(f.read() == LARGE)
        msg.ack()
    return found


def gone():
    """The message comes when its file is there no longer."""
    text = str(send_file()[1])
    for msg in box.fetch(1):
        natsbridge.smartreceive(msg, fileserver_url=FILES)
        msg.ack()
    nc.publish("twin.a", text)
    for msg in box.fetch(1):
        msg.term()
        natsbridge.smartreceive(msg, fileserver_url=FILES)


step("a file that is gone", gone, says="stream TWIN")
step("a file goes when its message is acknowledged", lambda: claimed("ack")[1])
step("and stays before", kept)


def large(size):
    """A message that is larger than what is held of one."""
    data = LARGE[:size]
    natsbridge.smartsend(
        "twin.a",
        [("b", data, "binary"), ("t", "end", "text")],
        nats_connection=nc,
        durable=True,
        size_threshold=1000000,
    )
    for msg in box.fetch(1):
        (_, got, _), (_, end, _) = natsbridge.smartreceive(msg)["payloads"]
        msg.ack()
        return bytes(got) == data and end == "end"


step("a large one", large, 20000)
step("a larger one", large, 499999)

other = nc.inbox("TWIN", "filtered", "twin.b.*", ack_wait=5)
step("of other subjects", texts, other, 1, 0.3)
step("send to others", send, "twin.b.x", "b")
step("of this one", texts, other)
same = nc.inbox("TWIN", "filtered", "twin.b.*", ack_wait=5)
step("of another subject", nc.inbox, "TWIN", "filtered", "twin.c", says="for twin.b.*, not for")
step("of all subjects", nc.inbox, "TWIN", "filtered", says="not for all subjects")
step("send to it", send, "twin.b.x", "c")
step("another inbox of that name", texts, same)
step("has taken it", texts, other, 1, 0)


def consumer(name, **config):
    """Make a consumer, or tell it something else."""
    config.update({"durable_name": name, "filter_subject": "twin.d"})
    return api("CONSUMER.DURABLE.CREATE.TWIN." + name, {"stream_name": "TWIN", "config": config})


def told(name):
    """What a consumer was told."""
    data = nc.request("$JS.API.CONSUMER.INFO.TWIN." + name, b"").data
    config = json.loads(bytes(data))["config"]
    return [config.get(key) for key in ("ack_wait", "max_deliver", "filter_subject", "description")]


def quoted():
    """A subject that JSON has to escape."""
    subject = 'twin.e."\\'
    mine = nc.inbox("TWIN", "quoted", subject)
    send(subject, "quoted")
    return texts(mine)


def opened(ack_wait):
    """One that is there already, and what it is told then."""
    nc.inbox("TWIN", "theirs", "twin.d", ack_wait)
    return told("theirs")


def gone(what, subject):
    """Acknowledge a message of what is gone."""
    send(subject, "gone")
    for msg in box.fetch(1):
        api(what)
        msg.ack()


step("a subject with a quote", quoted)
more = {"ack_policy": "explicit", "max_deliver": 7, "description": "of the lab"}
step("a consumer of somebody else", consumer, "theirs", ack_wait=9000000000, **more)
step("opened as it is", opened, 9)
step("opened with another time", opened, 5)
step("one that needs no acknowledgement", consumer, "none", ack_policy="none")
step("is none of ours", nc.inbox, "TWIN", "none", "twin.d", says="ack_policy")
step("one that is pushed", consumer, "push", ack_policy="explicit", deliver_subject="to.me")
step("nor is that", nc.inbox, "TWIN", "push", "twin.d", says="deliver_subject")
box = nc.inbox("TWIN", "going", "twin.f")
step("its consumer is gone", gone, "CONSUMER.DELETE.TWIN.going", "twin.f", says="not found")
box = nc.inbox("TWIN", "dev", ack_wait=1)
step("the rest", texts, box)

step("a stream for two", stream, "FULL", subjects=["full"], max_msgs=2, discard="new")
step("one", send, "full")
step("two", send, "full")
step("three", send, "full", says="maximum messages exceeded")
step("the consumer goes", api, "CONSUMER.DELETE.TWIN.filtered")
step("from it", texts, other, 1, 1, says="consumer not found")
step("the stream goes", gone, "STREAM.DELETE.TWIN", "twin.a", says="not found")
step("from that", texts, box, 1, 1, says="not found")
step("to it", send, "twin.a")
step("nothing else has come", nc.next, 0)
nc.close()
step("closed", texts, box, 1, 1)
