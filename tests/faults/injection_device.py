"""The script of test_injection.py, for the firmware and for the desktop: puts each character into
each thing that a caller may choose, and prints what came of each call: "sent", or the error's code.

The broker and the file server of the test note what they are sent; each call's payload is its tag.
"""

import sys

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

what, broker, files, characters = sys.argv[1:]
CODES = range(256) if characters == "all" else [int(code) for code in characters.split(",")]
PLACES = ("%sab", "a%sb", "ab%s")


def attempt(tag, call, *arguments, **options):
    try:
        call(*arguments, **options)
        result = "sent"
    except natsbridge.NATSBridgeError as e:
        result = e.code
    print(tag, result)


def send(nc, tag, subject="s", name="n", **options):
    natsbridge.smartsend(
        subject, [(name, tag, "text")], nats_connection=nc, fileserver_url=files, **options
    )


def publish_message(nc, tag, subject):
    natsbridge.publish_message(nc, subject, '{"tag":"%s"}' % tag)


def subscribe(nc, tag, subject, queue=""):
    nc.subscribe(subject, queue).unsubscribe()


def request(nc, tag, subject):
    nc.request(subject, tag, 0)


NATS = {
    "subject": lambda nc, tag, v: nc.publish(v, tag),
    "reply": lambda nc, tag, v: nc.publish("s", tag, v),
    "header name": lambda nc, tag, v: nc.publish("s", tag, headers={v: "x"}),
    "header value": lambda nc, tag, v: nc.publish("s", tag, headers={"x": v}),
    "subject and reply, with headers": lambda nc, tag, v: nc.publish(v, tag, v, {"x": "y"}),
    "subscribed": subscribe,
    "queue": lambda nc, tag, v: subscribe(nc, tag, "s", v),
    "request": request,
    "publish_message": publish_message,
    "smartsend": lambda nc, tag, v: send(nc, tag, v),
    "dataname": lambda nc, tag, v: send(nc, tag, name=v),
    "metadata key": lambda nc, tag, v: send(nc, tag, metadata={v: "x"}),
    "metadata value": lambda nc, tag, v: send(nc, tag, metadata={"x": v}),
}
FIELDS = (
    "correlation_id",
    "msg_id",
    "msg_purpose",
    "sender_name",
    "sender_id",
    "receiver_name",
    "receiver_id",
    "reply_to",
    "reply_to_msg_id",
)


def field(key):
    def call(nc, tag, v):
        send(nc, tag, **{key: v})

    return call


for key in FIELDS:
    NATS[key] = field(key)


def link(tag, v):
    """A payload that goes by link, in a message to nobody."""
    nc = natsbridge.connect(broker, reconnect=False)
    try:
        send(nc, tag, name=v, size_threshold=0, fallback_direct=False)
    finally:
        nc.close()


def upload(tag, name="n", url=files, **options):
    natsbridge.plik_upload(url, name, tag.encode(), **options)


def inside(v):
    """The text where it would be another host's name: what begins a path is escaped."""
    for c in "/?#":
        v = v.replace(c, "%%%02x" % ord(c))
    return v


FILES = {
    "dataname": lambda tag, v: upload(tag, v),
    "dataname of a link": link,
    "oneshot": lambda tag, v: natsbridge.plik_oneshot_upload(files, v, tag.encode()),
    "header name": lambda tag, v: upload(tag, headers={v: "x"}),
    "header value": lambda tag, v: upload(tag, headers={"X-A": v}),
    "server": lambda tag, v: upload(tag, url=files + "/" + v),
    "login": lambda tag, v: upload(
        tag, url=files.replace("//", "//%s:%s@" % (inside(v), inside(v)))
    ),
    "file": lambda tag, v: natsbridge.fetch_with_backoff(files + "/" + v, 1),
    "query": lambda tag, v: natsbridge.fetch_with_backoff(files + "/?" + v, 1),
    "correlation id": lambda tag, v: natsbridge.fetch_with_backoff(files + "/a", 1, 0, 0, v),
}


def login(tag, **options):
    natsbridge.connect(broker, reconnect=False, **options).close()


CONNECT = {
    "name": lambda tag, v: login(tag, name=v, id=tag),
    "user": lambda tag, v: login(tag, user=v, password="x", id=tag),
    "password": lambda tag, v: login(tag, user="x", password=v, id=tag),
    "token": lambda tag, v: login(tag, token=v, id=tag),
}


def each(calls, *first):
    for name in calls:
        for code in CODES:
            for place in range(3):
                tag = "%s/%d/%d" % (name.replace(" ", "_"), code, place)
                attempt(tag, calls[name], *first, tag, PLACES[place] % chr(code))


def main():
    if what == "nats":
        nc = natsbridge.connect(broker, reconnect=False, timeout=30)
        each(NATS, nc)
        nc.flush(30)
        nc.close()
    else:
        each(FILES if what == "files" else CONNECT)


main()
