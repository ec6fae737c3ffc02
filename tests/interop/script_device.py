"""One script for both sides: firmware on MicroPython, natsbridge.sync on CPython.

Called with the URLs of broker and file server, an empty folder, the URL of a broker with TLS that
takes one NKEY user alone, the path of its CA, the user's public key, and the URL of the first
broker over a line that can be cut; no file may be longer than 400 KB. Prints a line of JSON for
each step: its result, or the code of its error. What may differ (ids, times, wording) is left out.
"""

import hashlib
import json
import os
import sys
import time
from array import array
from binascii import hexlify
from io import BytesIO

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

BROKER, FILES, FOLDER, SECURE, CA, NKEY, LINK = sys.argv[1:8]
NOBODY = "nats://127.0.0.1:1"
PHOTO = bytes(range(256)) * 20


def plain(value):
    """A value that JSON can carry, the same on both sides."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return [len(value), str(hexlify(hashlib.sha256(bytes(value)).digest()), "utf-8")]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return sorted([key, plain(value[key])] for key in value)
    if hasattr(value, "to_pydict"):
        return "a table"
    return value


def step(name, function, *arguments, **options):
    """Print what a call gives, or the code of its error (whose message must say something)."""
    try:
        result = ["ok", plain(function(*arguments, **options))]
    except natsbridge.NATSBridgeError as e:
        good = len(e.message) > 10 and str(e) == e.code + ": " + e.message
        good = good and e.to_dict()["error"]["code"] == e.code
        result = ["error", e.code, good]
    except Exception as e:  # none should come; the steps after it count too
        result = ["raised", repr(e)]
    print(json.dumps([name, result]))


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def payloads(env):
    """What came, with files read and ids left out."""
    came = []
    for name, value, kind in env["payloads"]:
        if isinstance(value, str) and kind not in ("text", "dictionary"):
            value = [value.split("/")[-1], contents(value)]
        came.append([name, value, kind])
    return came


nc = natsbridge.connect(BROKER, name="twin", id="twin-1")
sub = nc.subscribe("twin.>")


def there_and_back(data, **options):
    """Send to ourselves, and receive: the payloads and some fields."""
    receive = {}
    for key in ("sink", "max_payload_size", "allowed_urls", "fileserver_download_handler"):
        if key in options:
            receive[key] = options.pop(key)
    env, msg_json = natsbridge.smartsend(
        "twin.a", data, nats_connection=nc, fileserver_url=FILES, **options
    )
    size = len(msg_json) if hasattr(msg_json, "write_to") else len(msg_json.encode())
    msg = sub.next(10)
    same = size == len(msg)
    got = natsbridge.smartreceive(msg, fileserver_url=FILES, **receive)
    how = [[p["transport"], p["encoding"], p["size"]] for p in env["payloads"]]
    fields = [got[k] for k in ("send_to", "msg_purpose", "sender_name", "sender_id", "metadata")]
    return [payloads(got), how, fields, same, env["correlation_id"] == got["correlation_id"]]


EVERY = [
    ("t", "Grüße, 世界 🙂", "text"),
    ("d", {"a": [1, 2.5, None, True, 'x\n"\\'], "b": {}}, "dictionary"),
    ("j", [{"x": 1}, {"x": 2}], "jsontable"),
    ("i", PHOTO, "image"),
    ("au", bytearray(b"abc"), "audio"),
    ("v", memoryview(b"abcd"), "video"),
    ("b", b"", "binary"),
    ("s", BytesIO(PHOTO), "binary"),
]

# what travels, and how
step("every type", there_and_back, EVERY)
step("every type by link", there_and_back, EVERY, size_threshold=0)
step("an ACK without payloads", there_and_back, [], msg_purpose="ACK", metadata={"k": [1]})
step("below the threshold", there_and_back, [("b", b"123", "binary")], size_threshold=4)
step("at the threshold", there_and_back, [("b", b"1234", "binary")], size_threshold=4)
step(
    "into a folder", there_and_back, [("a b.jpg", PHOTO, "image"), ("t", "x", "text")], sink=FOLDER
)
step("a second one beside it", there_and_back, [("a b.jpg", b"2", "image")], sink=FOLDER)
step("a hostile name", there_and_back, [("../../x", b"3", "binary")], sink=FOLDER, size_threshold=0)
step("a hidden name", there_and_back, [(".x", b"4", "binary")], sink=FOLDER)
step("nothing else in the folder", lambda: sorted(os.listdir(FOLDER)))


def into_streams(threshold):
    asked = []
    streams = {}

    def sink(name, kind, size):
        asked.append([name, kind, size])
        if name == "memory":
            return None
        streams[name] = BytesIO()
        return streams[name]

    data = [("memory", b"123", "binary"), ("stream", PHOTO, "binary"), ("text", "hi", "text")]
    natsbridge.smartsend(
        "twin.a", data, nats_connection=nc, fileserver_url=FILES, size_threshold=threshold
    )
    env = natsbridge.smartreceive(sub.next(10), fileserver_url=FILES, sink=sink)
    same = env["payloads"][1][1] is streams["stream"]
    return [asked, streams["stream"].getvalue(), streams["text"].getvalue(), same]


step("a callable sink, direct", into_streams, 10**6)
step("a callable sink, by link", into_streams, 0)


class Full:
    """A stream that has no room: it fails, takes a part or nothing; or it is closed."""

    def __init__(self, fault):
        self.fault = fault

    def write(self, data):
        if isinstance(self.fault, Exception):
            raise self.fault
        return self.fault


def no_room(fault, threshold):
    """What comes of such a sink; and whether the message after it is taken well."""
    data = [("first", b"1", "binary"), ("full", PHOTO, "binary")]
    fetched = []

    def sink(name, kind, size):
        return Full(fault) if name == "full" else None

    for where in (sink, None):
        natsbridge.smartsend(
            "twin.a", data, nats_connection=nc, fileserver_url=FILES, size_threshold=threshold
        )
        try:
            env = natsbridge.smartreceive(
                sub.next(10),
                fileserver_url=FILES,
                sink=where,
                base_delay=2000,
                on_progress=lambda *progress: fetched.append(progress[0]),
            )
        except natsbridge.NATSBridgeError as e:
            code = e.code
    return [code, payloads(env), nc.connected, fetched.count("first")]


for threshold in (0, 10**6):
    for fault in (OSError(28), OSError(5), ValueError("closed"), 0):
        how = "a sink without room, %r, threshold %d" % (fault, threshold)
        step(how.replace(",)", ")"), no_room, fault, threshold)


def full_disk(threshold):
    """What comes of a file that is longer than files may be here, and what is left of it."""
    before = sorted(os.listdir(FOLDER))
    data = [("a", b"1", "binary"), ("b", bytes(500000), "binary")]
    try:
        there_and_back(data, sink=FOLDER, size_threshold=threshold)
    except natsbridge.NATSBridgeError as e:
        there_and_back(data)
        return [e.code, nc.connected, sorted(os.listdir(FOLDER)) == before]


step("a full disk, by link", full_disk, 0)
step("a full disk, direct", full_disk, 10**6)


def sink_that(returns):
    """What comes of a sink that gives no stream; None: it can't open one."""

    def sink(name, kind, size):
        return open(FOLDER + "/no/file", "wb") if returns is None else returns

    natsbridge.smartsend("twin.a", [("s", b"1", "binary")], nats_connection=nc)
    try:
        return natsbridge.smartreceive(sub.next(10), sink=sink)["payloads"]
    finally:
        natsbridge.smartsend("twin.a", [("t", "x", "text")], nats_connection=nc)
        natsbridge.smartreceive(sub.next(10))


for value in (5, "path", b"", True, [], {}):
    step("a sink that returns %r" % (value,), sink_that, value)
step("a sink that opens what cannot be", sink_that, None)


def progress():
    seen = []
    natsbridge.smartsend(
        "twin.a",
        [("p", PHOTO, "binary")],
        nats_connection=nc,
        fileserver_url=FILES,
        size_threshold=0,
        on_progress=lambda name, done, total: seen.append([name, done, total]),
    )
    natsbridge.smartreceive(sub.next(10), fileserver_url=FILES)
    return [seen[-1], seen == sorted(seen)]


step("progress", progress)


def whole(data, **options):
    """What a message says, on both ends, without what is new in each: ids and the time."""
    env, msg_json = natsbridge.smartsend(
        "twin.a", data, nats_connection=nc, fileserver_url=FILES, **options
    )
    msg = sub.next(10)
    got = natsbridge.smartreceive(msg, fileserver_url=FILES)
    same = [env["payloads"][i]["data"] is data[i][1] for i in range(len(data))]
    text = str(msg_json)
    for e in (env, json.loads(text), got):
        e["broker_url"] = e["broker_url"] == BROKER
        for key in ("correlation_id", "msg_id", "timestamp"):
            e[key] = len(e[key])
    for p in env["payloads"]:
        p["id"] = len(p["id"])
    return [env, sorted(json.loads(text)), got, same, msg.reply]


step("an envelope", whole, [("t", "x", "text"), ("b", b"abc", "binary")], metadata={"a": [1]})
step(
    "an addressed answer",
    whole,
    [],
    reply_to="twin.back",
    reply_to_msg_id="m",
    receiver_name="x",
    sender_name="me",
    sender_id="i",
    msg_id="m2",
    correlation_id="c",
    msg_purpose="command",
)
step("a reply_to that is no subject", whole, [], reply_to="a b")
step("an array of two-byte items", there_and_back, [("a", array("H", [1, 770]), "binary")])
step(
    "a view of them, by link",
    there_and_back,
    [("a", memoryview(array("H", [1, 770] * 999)), "binary")],
    size_threshold=0,
)
step(
    "values given as bytes",
    there_and_back,
    [("t", b"abc", "text"), ("d", b'{"a": [1]}', "dictionary"), ("j", BytesIO(b"[]"), "jsontable")],
)
step("bytes that are no text", there_and_back, [("t", b"\xff", "text")])
step("bytes that are no dictionary", there_and_back, [("d", b"{", "dictionary")])
for value in (None, True, 0, -5, 2.5, "", [], {}, (1, (2,)), 10**18, 1e300, {"a": (1,)}):
    step("the dictionary %r" % (value,), there_and_back, [("v", value, "dictionary")])


class Unseekable:
    """A stream that can only be read."""

    def __init__(self, data):
        self.rest = BytesIO(data)

    def readinto(self, buf):
        return self.rest.readinto(buf)


class Failing:
    """A stream that promises 100,000 bytes, and fails or ends after half of them."""

    def __init__(self, fails):
        self.fails = fails
        self.at = 0

    def seek(self, offset, whence=0):
        self.at = 100000 if whence == 2 else offset if whence == 0 else self.at
        return self.at

    def readinto(self, buf):
        n = min(len(buf), 50000 - self.at)
        if not n and self.fails:
            raise self.fails
        self.at += n
        return n


class FailingUnseekable(Unseekable):
    """A stream that fails after its data, or says that it has none yet."""

    def __init__(self, fails):
        self.rest = BytesIO(PHOTO)
        self.fails = fails

    def readinto(self, buf):
        n = self.rest.readinto(buf)
        if not n and self.fails:
            raise self.fails
        return n or None


def closed():
    stream = open(FOLDER + "/closed", "wb")
    stream.close()
    return stream


step("a stream of unknown size", there_and_back, [("s", Unseekable(PHOTO), "binary")])
FAULTS = {"fails": OSError(5), "is closed": ValueError("closed"), "ends early": None}
for threshold in (0, 10**6):
    for how in sorted(FAULTS):
        step(
            "a stream that %s, threshold %d" % (how, threshold),
            there_and_back,
            [("a", PHOTO, "binary"), ("s", Failing(FAULTS[how]), "binary")],
            size_threshold=threshold,
        )
        if not threshold:
            step("by link, one that %s costs no connection" % how, lambda: nc.connected)
            step(
                "one of no known size that %s" % how,
                there_and_back,
                [("s", FailingUnseekable(FAULTS[how]), "binary")],
            )
            step(
                "one that %s for a handler" % how,
                there_and_back,
                [("s", Failing(FAULTS[how]), "binary")],
                size_threshold=0,
                fileserver_upload_handler=lambda *_: None,
            )
            step(
                "one that %s for plik_upload" % how,
                natsbridge.plik_upload,
                FILES,
                "s",
                Failing(FAULTS[how]),
            )
    step(
        "a closed file, threshold %d" % threshold,
        there_and_back,
        [("s", closed(), "binary")],
        size_threshold=threshold,
    )


def settled():
    """Send what is sent on the connection that stands: on a device, such a stream costs one."""
    try:
        nc.flush()
    except natsbridge.NATSBridgeError:
        nc.flush()


settled()
step("nothing of it arrived", sub.next, 0.2)
step("a stream of text", there_and_back, [("s", open(__file__), "binary")])


def from_the_middle():
    stream = BytesIO(b"0123456789")
    stream.seek(3)
    env, msg_json = natsbridge.smartsend("twin.a", [("s", stream, "binary")], nats_connection=nc)
    got = natsbridge.smartreceive(sub.next(10))
    texts = [str(msg_json), str(natsbridge.envelope_to_json(env))]
    return [got["payloads"], [json.loads(text)["payloads"][0]["data"] for text in texts]]


step("a stream is sent from where it stands, again too", from_the_middle)
error = {"error": {"code": "A", "message": "m", "details": {}}}
step("an error response to JSON", lambda: json.loads(str(natsbridge.envelope_to_json(error))))


def reported(size_threshold):
    """What on_progress is told of a short payload and an empty one."""
    seen = []
    natsbridge.smartsend(
        "twin.a",
        [("p", b"123", "binary"), ("e", b"", "binary")],
        nats_connection=nc,
        fileserver_url=FILES,
        size_threshold=size_threshold,
        on_progress=lambda *a: seen.append(a),
    )
    natsbridge.smartreceive(
        sub.next(10), fileserver_url=FILES, on_progress=lambda *a: seen.append(a)
    )
    return [a for a in seen if a[1] == a[2]]  # more of them where a read is short


step("progress, direct", reported, 10)
step("progress, by link", reported, 0)


def named(name):
    return there_and_back([(name, b"1", "binary")], sink=FOLDER)[0]


for name in ("", ".", "..", "/etc/passwd", "con", "CON.txt", "com1.x", "coma", "a.", "x.tar.gz"):
    step("named %r" % name, named, name)
for name in ("a" * 150, "a" * 150 + ".jpeg", "a." + "e" * 30, "a." + "e" * 60, "a\\b", " ", "a\n"):
    step("named %s of %d" % (name[:9], len(name)), named, name)


# the claim check
def exists(url):
    try:
        natsbridge.fetch_with_backoff(url, 1)
        return True
    except natsbridge.NATSBridgeError as e:
        return e.code


def consumed(**options):
    """Whether a link's file is still there after it was received."""
    options.setdefault("fileserver_url", FILES)
    env, _ = natsbridge.smartsend(
        "twin.a",
        [("c", PHOTO, "binary")],
        nats_connection=nc,
        size_threshold=0,
        **options,
    )
    natsbridge.smartreceive(sub.next(10), fileserver_url=FILES)
    p = env["payloads"][0]
    if p["transport"] == "direct":
        return "direct"
    return [p["metadata"]["removable"], len(p["metadata"]["sha256"]), exists(p["data"])]


step("broadcast: the file stays", consumed)
step("to us by id: it goes", consumed, receiver_id="twin-1")
step("to us by name: it goes", consumed, receiver_name="twin")
step("to another id: it stays", consumed, receiver_id="twin-2", receiver_name="twin")
step("one-shot", consumed, fileserver_upload_handler=natsbridge.plik_oneshot_upload)


def upload(function):
    answer = function(FILES, "näme.bin", PHOTO)
    name = answer["url"].split("/")[-1]
    return [sorted(answer), answer["status"], name, natsbridge.fetch_with_backoff(answer["url"])]


step("plik_upload", upload, natsbridge.plik_upload)
step("plik_oneshot_upload", upload, natsbridge.plik_oneshot_upload)

step("plik_upload of nothing", lambda: natsbridge.plik_upload(FILES + "/", "", b"")["size"])
step("plik_upload of a path", natsbridge.plik_upload, FILES, "x", "path")
step("plik_upload to no URL", natsbridge.plik_upload, "nope", "x", b"")
step("plik_upload to nobody", natsbridge.plik_upload, "http://127.0.0.1:1", "x", b"", timeout=0.2)
step("fetch of no URL", natsbridge.fetch_with_backoff, None)
step("fetch by another scheme", natsbridge.fetch_with_backoff, "ftp://x/y")
step("fetch from nobody", natsbridge.fetch_with_backoff, "http://127.0.0.1:1/x", 2, 1, 1)

stored = {}


def store(url, name, data):
    stored["data"] = bytes(data)
    return {"status": 200, "uploadid": "u", "fileid": "f", "url": url + "/file/u/f/" + name}


def restore(url, max_retries, base_delay, max_delay, correlation_id):
    stored["call"] = [url[len(FILES) :], max_retries, base_delay, max_delay]
    return stored["data"]


step(
    "handlers of one's own",
    there_and_back,
    [("h", PHOTO, "binary")],
    size_threshold=0,
    fileserver_upload_handler=store,
    fileserver_download_handler=restore,
)
step("what they were called with", lambda: stored["call"])


def refuse(*arguments):
    raise ValueError("no")


step(
    "an upload that fails goes direct",
    there_and_back,
    [("f", b"123", "binary")],
    size_threshold=0,
    fileserver_upload_handler=refuse,
)
step(
    "or fails",
    there_and_back,
    [("f", b"123", "binary")],
    size_threshold=0,
    fileserver_upload_handler=refuse,
    fallback_direct=False,
)
step(
    "a download that fails",
    there_and_back,
    [("f", b"123", "binary")],
    size_threshold=0,
    fileserver_download_handler=refuse,
)


step("a file server that is not there", consumed, fileserver_url="http://127.0.0.1:1")


def claimed(size, digest):
    """Receive a link to b"abc" with this size and digest."""
    p = {"dataname": "a", "payload_type": "text", "transport": "link"}
    p["data"] = natsbridge.plik_upload(FILES, "a", b"abc")["url"]
    p["size"] = size
    p["metadata"] = {"sha256": digest}
    nc.publish("twin.w", json.dumps({"payloads": [p]}))
    msg = sub.next(10)
    return natsbridge.smartreceive(msg, fileserver_url=FILES, base_delay=1, max_delay=1)["payloads"]


DIGEST = str(hexlify(hashlib.sha256(b"abc").digest()), "utf-8")
step("the right size and digest", claimed, 3, DIGEST)
step("no size", claimed, None, DIGEST)
step("a size too large", claimed, 4, DIGEST)
step("a size too small", claimed, 2, DIGEST)
step("another digest", claimed, 3, "0" * 64)


# answers to failures
def nack(reply, reply_to, wait=5, **options):
    """What is answered to a message that fails."""
    payload = {"dataname": "a", "payload_type": "zz", "transport": "direct", "data": ""}
    wire = {"correlation_id": "c", "reply_to": reply_to, "payloads": [payload]}
    with natsbridge.connect(BROKER) as other, other.subscribe("back.>") as back:
        other.flush()
        nc.publish("twin.w", json.dumps(wire), reply)
        try:
            natsbridge.smartreceive(sub.next(10), nack=True, **options)
        except natsbridge.NATSBridgeError:
            nc.flush()
        msg = back.next(wait)
        if msg is None:
            return None
        time.sleep(1.05)  # at most one a second
        keys = sorted(json.loads(bytes(msg.data)))
        env = natsbridge.smartreceive(msg)
        return [keys, msg.subject, env["error"]["code"], env["correlation_id"], env["send_to"]]


step("nack to the reply subject", nack, "back.1", "back.1")
step("nack to a subject that is listed", nack, "", "back.1", nack_subjects=["back.1"])
step("nack to one that matches", nack, "", "back.x.y", nack_subjects=["front", "back.>"])
step("no nack to another", nack, "", "back.1", 0.3, nack_subjects=["back.2", "back", "back.1.*"])
step("no nack to ourselves", nack, "twin.z", "twin.z", 0.3)
step("no nack to the system", nack, "$SYS.x", "$SYS.x", 0.3, nack_subjects=[">"])
step("not even to ourselves was it sent", sub.next, 0.1)


# the last steps alone
def by_hand(nats):
    env, _ = natsbridge.smartsend("twin.a", [("t", "x", "text")], nats_connection=nc)
    sub.next(10)
    natsbridge.publish_message(nats, "twin.b", natsbridge.envelope_to_json(env), "c")
    return natsbridge.smartreceive(sub.next(10))["payloads"]


step("publish_message on a connection", by_hand, nc)
step("publish_message to a URL", by_hand, BROKER)


def alone():
    natsbridge.smartsend("twin.a", [("t", "x", "text")], broker_url=BROKER)
    return natsbridge.smartreceive(sub.next(10))["payloads"]


step("without a connection", alone)


# what is refused, before anything is sent
def send(data, subject="twin.a", **options):
    natsbridge.smartsend(subject, data, nats_connection=nc, fileserver_url=FILES, **options)
    return "sent"


def recursive():
    v = []
    v.append(v)
    return v


for name, value, kind in (
    ("unknown type", "x", "txt"),
    ("no type", "x", None),
    ("text of an int", 5, "text"),
    ("text of None", None, "text"),
    ("binary of a path", "photo.jpg", "binary"),
    ("table of a dict", {"a": 1}, "jsontable"),
    ("table of lists", [[1]], "jsontable"),
    ("nan", {"a": float("nan")}, "dictionary"),
    ("a key that is no str", {1: 2}, "dictionary"),
    ("bytes in a dictionary", [b"a"], "dictionary"),
    ("itself", recursive(), "dictionary"),
    ("arrow of a str", "x", "arrowtable"),
):
    step(name, send, [("x", value, kind)])
for subject in ("", "a b", "a\tb", "a\nb", "a..b", ".a", "a.", "a.*", ">", 5, None, b"a"):
    step("subject %r" % (subject,), send, [("t", "x", "text")], subject)
for data in (None, "x", [("a", "b")], ["abc"], [(5, "x", "text")], [("n" * 1025, "x", "text")]):
    step("data %.20r" % (data,), send, data)
step("too many payloads", send, [("t", "x", "text")] * 65)
step("metadata that is none", send, [], metadata=[1])
step("metadata too long", send, [], metadata={"k": "x" * 5000})
step("a name too long", send, [], receiver_name="x" * 1025)
for threshold in (-1, 1.5, "5", True):
    step("threshold %r" % (threshold,), send, [], size_threshold=threshold)
step(
    "no file server",
    send,
    [("b", PHOTO, "binary")],
    size_threshold=0,
    fallback_direct=False,
    timeout=3,
    fileserver_upload_handler=lambda u, n, d: {"status": 500},
)
step("nothing of that was published", sub.next, 0.3)

# what is refused when it comes
for name, wire in (
    ("no JSON", "{"),
    ("no envelope", "[1 2}"),
    ("no payloads", "{}"),
    ("a cut message", '{"payloads":[{"dataname":"a"'),
    (
        "transport",
        '{"payloads":[{"dataname":"a","payload_type":"text","transport":"x","data":""}]}',
    ),
    ("type", '{"payloads":[{"dataname":"a","payload_type":"x","transport":"direct","data":""}]}'),
    (
        "base64",
        '{"payloads":[{"dataname":"a","payload_type":"text","transport":"direct","data":"?"}]}',
    ),
    (
        "size",
        '{"payloads":[{"dataname":"a","payload_type":"text","transport":"direct","size":4,'
        '"data":"QUJD"}]}',
    ),
    (
        "URL",
        '{"payloads":[{"dataname":"a","payload_type":"text","transport":"link",'
        '"data":"http://10.0.0.1/file/a/b/c"}]}',
    ),
    (
        "not there",
        '{"payloads":[{"dataname":"a","payload_type":"text","transport":"link",'
        '"data":"' + FILES + '/file/a/b/c"}]}',
    ),
    ("an error response", '{"error":{"code":"UPLOAD_FAILED","message":"m"}}'),
):
    nc.publish("twin.c", wire)
    step(
        "received: " + name,
        lambda: sorted(natsbridge.smartreceive(sub.next(10), fileserver_url=FILES).items())[5:7],
    )
step("too large", there_and_back, [("b", PHOTO, "binary")], max_payload_size=100)
WIRE_LINK = '{"payloads":[{"dataname":"a","payload_type":"text","transport":"link","data":"%s/x"}]}'
WIRE_LINK %= FILES
step("smartreceive of nothing", natsbridge.smartreceive, None)


def said(function, *arguments):
    """The message of a call's error."""
    try:
        function(*arguments)
    except natsbridge.NATSBridgeError as e:
        return e.message


def nothing_said():
    """Whether an error tells a newcomer that nothing came."""
    message = said(natsbridge.smartreceive, sub.next(0))
    return "nothing came" in message and "next() returns" in message


def named(value, kind):
    """Whether an error tells of which type a value is that cannot be sent as `kind`."""
    message = said(natsbridge.smartsend, "twin.x", [("a", value, kind)])
    return "it is of type " + type(value).__name__ in message


step("smartreceive of nothing says so", nothing_said)
for value, kind in ((5, "text"), (5, "binary"), ("x", "binary"), (5, "jsontable")):
    step("a wrong %s is named: %r" % (kind, value), named, value, kind)

NAN = float("nan")
INF = float("inf")
nc.publish("twin.o", '{"payloads":[]}')
msg = sub.next(10)
BAD = {
    "max_retries": (0, -1, "3", 2.5, None, True),
    "base_delay": (-1, "1", None, NAN, INF, True),
    "max_delay": (-1, "1", None, NAN, INF),
    "max_payload_size": (-1, "9", 1.5, True),
    "nack_subjects": ("x", 5, None, [5], ["a b"], [""], ["a..b"]),
    "spool_dir": (5, "", FOLDER + "/no", FOLDER + "/closed", b"x"),
    "sink": (5, 0, "", b"x", False, FOLDER + "/closed"),
    "timeout": (-1, "5", NAN, INF, True),
}
for name in sorted(BAD):
    for value in BAD[name]:
        what = "smartreceive with %s=%r" % (name, value)
        step(what.replace(FOLDER, ""), natsbridge.smartreceive, msg, **{name: value})
for options in ({"nack_subjects": []}, {"spool_dir": FOLDER}, {"base_delay": 0.5, "max_delay": 0}):
    options["timeout"] = 10**6
    step("smartreceive with %s" % sorted(options), natsbridge.smartreceive, msg, **options)
for value in (5, None, [5], [None], "nope", ["nope"], {}):
    nc.publish("twin.o", WIRE_LINK)
    step(
        "allowed_urls=%r" % (value,),
        natsbridge.smartreceive,
        sub.next(10),
        fileserver_url=FILES,
        allowed_urls=value,
    )
step(
    "no time for a message without links",
    natsbridge.smartsend,
    "twin.x",
    [("a", "x", "text")],
    broker_url=BROKER,
    timeout=0,
)
for value in (-1, "5", NAN, INF, True):
    step("next for %r" % value, sub.next, value)
    step("next of any for %r" % value, nc.next, value)
    step("flush for %r" % value, nc.flush, value)
    step("request for %r" % value, nc.request, "interop.echo", b"", value)
    step("drain for %r" % value, nc.drain, value)
    step("smartsend for %r" % value, send, [], timeout=value)
    step("plik_upload for %r" % value, natsbridge.plik_upload, FILES, "x", b"", timeout=value)
    step("connect for %r" % value, natsbridge.connect, BROKER, timeout=value)
    step("ttl=%r" % value, natsbridge.plik_upload, FILES, "x", b"", ttl=value)


def uploaded(headers):
    return natsbridge.plik_upload(FILES, "x", b"", headers=headers)["status"]


HEADERS = [[1], {1: "2"}, {"a": 5}, {"a": "b\n"}, 5, "ab", {"a b": "c"}, {"a": "é"}, {"a": "b"}, {}]
for i, headers in enumerate(HEADERS):
    step("plik_upload with headers %d" % i, uploaded, headers)
for value in (1, "x", None):
    step("removable=%r" % value, natsbridge.plik_upload, FILES, "x", b"", removable=value)
step("a dataname that is none", natsbridge.plik_upload, FILES, 5, b"")
step("a dataname too long", natsbridge.plik_upload, FILES, "x" * 1025, b"")
step("attempts that are none", natsbridge.fetch_with_backoff, FILES + "/x", 0)
step("attempts that are text", natsbridge.fetch_with_backoff, FILES + "/x", "1")
step("a delay that is none", natsbridge.fetch_with_backoff, FILES + "/x", 1, None)
step("a delay that is text", natsbridge.fetch_with_backoff, FILES + "/x", 1, 1, "2")
step("delays that are fractions", natsbridge.fetch_with_backoff, FILES + "/x", 2, 0.5, 1.5)
for text in ("abc", "1.5", "-1", " 1", "5", ""):
    if sys.implementation.name == "micropython":
        os.putenv("SIZE_THRESHOLD", text)
    else:
        os.environ["SIZE_THRESHOLD"] = text
    step("$SIZE_THRESHOLD=%r" % text, there_and_back, [("b", b"12345", "binary")])
for function in (5, "x", [1]):
    step("the upload handler %r" % (function,), send, [], fileserver_upload_handler=function)
    step(
        "the download handler %r" % (function,),
        natsbridge.smartreceive,
        msg,
        fileserver_download_handler=function,
    )
    step("the connection %r" % (function,), natsbridge.smartsend, "a", [], nats_connection=function)
    step(
        "the receiving connection %r" % (function,),
        natsbridge.smartreceive,
        msg,
        nats_connection=function,
    )
    step("publish_message on %r" % (function,), natsbridge.publish_message, function, "twin.x", "x")
step("publish_message of an int", natsbridge.publish_message, nc, "twin.x", 5)
step("a broker_url that is none", natsbridge.smartsend, "a", [], broker_url=5)
step("nor was any of that", lambda: sub.next(0.2) is None)
step("a sink that is none", there_and_back, [("b", b"1", "binary")], sink=5)
step("a folder that is not there", there_and_back, [("b", b"1", "binary")], sink=FOLDER + "/no")

# the connection
step("next: nothing", sub.next, 0.1)
nc.publish("twin.x", b"one", "twin.reply")
nc.publish("twin.x", "zwölf")


def take(source):
    msg = source.next(5)
    return [msg.subject, msg.reply, msg.data, len(msg)]


step("bytes", take, sub)
step("a str, from any subscription", take, nc)
nc.publish("twin.x", b"")
step("an empty message is one too", lambda: bool(sub.next(5)))
step("pings of the caller's own", lambda: [nc.flush(None), nc.flush(1), nc.url == BROKER])
step("an answer", lambda: bytes(nc.request("interop.echo", b"hello", 5).data))
step("an answer, however late", lambda: bytes(nc.request("interop.echo", "hello", None).data))
nc.publish("twin.x", b"")
step("an empty message is true", lambda: [bool(m) and len(m) for m in [nc.next(5)]])
step("an int is no payload", nc.publish, "twin.x", 5)
step("nor is nothing", nc.publish, "twin.x", None)
step("a reply that is none", nc.publish, "twin.x", b"", "a b")
step("a queue that is none", nc.subscribe, "twin.x", "a b")
nc.publish("twin.x", array("H", [1, 770]))
step("an array of two-byte items, published", take, sub)
step("nobody listens", nc.request, "nobody.there", b"", 2)
step("no answer", lambda: nc.request("twin.silent", b"", 0.3))
sub.next(1)
step("publish to a wildcard", nc.publish, "a.*", b"")
step("subscribe to white space", nc.subscribe, "a b")
step("more than the broker takes", nc.publish, "twin.x", bytes(nc.max_payload + 1))
step("flush", nc.flush)
with nc.subscribe("queue", "workers") as one, nc.subscribe("queue", "workers") as two:
    for _ in range(10):
        nc.publish("queue", b"job")
    nc.flush()
    got = 0
    while nc.next(0.3):
        got += 1
    step("a queue group shares", lambda: got)


def iterate():
    came = []
    with nc.subscribe("iterate") as it:
        for data in (b"1", b"2", b"3"):
            nc.publish("iterate", data)
        for msg in it:
            came.append(bytes(msg.data))
            if len(came) == 2:
                it.unsubscribe()
    it.unsubscribe()
    return came


step("connected", lambda: [nc.connected, nc.pending, nc.tls])


# headers
def headed(headers, payload=b"x", reply=""):
    nc.publish("twin.h", payload, reply, headers)
    msg = sub.next(5)
    return [msg.headers, msg.data, msg.reply, len(msg), msg.headers]


step("headers", headed, {"a": "b", "Content-Type": "text/plain; charset=utf-8", "X_1.~": "1"})
step("headers of any text", headed, {"name": "Grüße: 世界\t🙂", "empty": ""})
step("headers of one name but for its case", headed, {"name": "1", "Name": "2"})
step("blanks around a header", headed, {"a": "  b c  "})
step("no headers", headed, None)
step("not one header", headed, {})
step("headers without a payload", headed, {"a": "b"}, b"")
step("headers of a large message", headed, {"a": "b"}, bytes(5000), "twin.reply")
step("large headers", headed, {"a": "x" * 900, "b": "y" * 900}, b"z" * 3000)
for i, bad in enumerate(["a: b", [("a", "b")], 5]):
    step("headers that are none %d" % i, nc.publish, "twin.h", b"", "", bad)
for i, bad in enumerate(["", "a b", "a:", "ä", "a\nb", 5, b"a"]):
    step("a name that is none %d" % i, nc.publish, "twin.h", b"", "", {bad: "x"})
for i, bad in enumerate([5, None, b"x", ["x"], "x\r\nb: y", "x\n", "x\0", "\x7f"]):
    step("a value that is none %d" % i, nc.publish, "twin.h", b"", "", {"a": bad})
step("nor in a request", nc.request, "interop.echo", b"", 1, {"a": "b\n"})
step("they count", nc.publish, "twin.h", bytes(nc.max_payload - 17), "", {"a": "b"})
step("nothing of that was published either", sub.next, 0.2)
step("to the byte", headed, {"a": "b"}, bytes(nc.max_payload - 18))


def asked(subject, payload, **options):
    msg = nc.request(subject, payload, 5, **options)
    return [msg.headers, bytes(msg.data), msg.status, msg.description]


step("a request with headers", asked, "interop.echo", b"?", headers={"n": "1"})
step("and one without", asked, "interop.echo", b"?")


def odd(i):
    """What comes of odd headers, and whether the connection stands that."""
    with natsbridge.connect(BROKER) as other:
        msg = other.request("interop.odd", str(i), 1)
        other.flush()
        return [msg.headers, bytes(msg.data), msg.status, msg.description]


for i in range(14):
    step("odd headers %d" % i, odd, i)


# limits and draining
def limited(limit, before, after, taken=0):
    """The sizes of the messages that come."""
    with nc.subscribe("limit") as it:
        for n in range(before):
            nc.publish("limit", bytes(n))
        nc.flush()
        came = [len(it.next(1)) for _ in range(taken)]
        it.unsubscribe(limit)
        for n in range(before, before + after):
            nc.publish("limit", bytes(n))
        nc.flush()
        for msg in it:
            came.append(len(msg))
        return [came, it.next(1), it.next()]


step("a limit", limited, 3, 0, 5)
step("a limit counts from the start", limited, 3, 2, 3)
step("a limit that is reached just now", limited, 2, 2, 1)
step("a limit that is passed", limited, 2, 3, 1)
step("a limit that is passed by one that was taken", limited, 1, 3, 1, 2)
step("a limit, some of it taken", limited, 4, 3, 3, 2)
step("nothing of that is left", nc.next, 0.2)
for limit in (-1, 1.5, "2", True, None):
    with nc.subscribe("limit") as it:
        step("limit %r" % (limit,), it.unsubscribe, limit)


def draining():
    it = nc.subscribe("drain")
    for n in range(3):
        nc.publish("drain", bytes(n))
    it.drain()
    nc.publish("drain", bytes(9))
    nc.flush()
    it.drain()
    came = [len(msg) for msg in it]
    last = [it.next(1), it.next()]
    it.unsubscribe()
    it.drain()
    try:
        it.next(1)
    except natsbridge.NATSBridgeError as e:
        return [came, last, e.code]


step("drain a subscription", draining)


def drain_all():
    with natsbridge.connect(BROKER) as other:
        one = other.subscribe("drain.one")
        two = other.subscribe("drain.*", "queue")
        for n in range(3):
            other.publish("drain.one", bytes(n))
        other.publish("twin.d", b"flushed")
        other.drain(5)
        nc.publish("drain.one", bytes(9))
        nc.flush()
        last = len(sub.next(1))
        first = len(one.next(1))
        came = 0
        while other.next(1) is not None:
            came += 1
        ends = [one.next(), two.next(1), other.next(), list(two)]
        other.publish("twin.d", b"an answer")
        other.flush()
        after = len(sub.next(1))
        with other.subscribe("drain.again") as again:
            other.publish("drain.again", b"")
            more = len(other.next(1))
            again.drain()
        return [last, first, came, ends, after, more, other.connected]


step("drain a connection", drain_all)
step("drain for no time", nc.drain, -1)


def line(state):
    """Cut or mend the line to the broker."""
    nc.request("interop." + state, b"", 5)
    time.sleep(0.1)


def lost(**options):
    """A connection that was just lost, with what it subscribes to: two messages of four came."""
    line("mend")
    options["base_delay"] = 20
    other = natsbridge.connect(LINK, max_delay=100, **options)
    it = other.subscribe("line")
    it.unsubscribe(4)
    other.publish("line", b"1")
    other.publish("line", b"22")
    other.flush()
    line("cut")
    try:
        other.flush(0.2)
    except natsbridge.NATSBridgeError as e:
        return other, it, e.code


def rest(it):
    return [len(msg) for msg in it]


def waiting():
    other, it, code = lost(pending_size=1000)
    states = [code, other.connected, other.pending]
    other.publish("line", b"333", "", {"a": "b"})
    states += [other.connected, other.pending]
    try:
        other.publish("line", bytes(950))
    except natsbridge.NATSBridgeError as e:
        states += [e.code]
    line("mend")
    other.flush(5)
    states += [other.connected, other.pending]
    other.publish("line", b"4444")
    other.publish("line", b"55555")
    other.flush()
    states += [rest(it)]
    other.close()
    return states


def unsent(**options):
    other, _, _ = lost(**options)
    other.publish("line", b"333")
    other.close()


def late(**options):
    other, it, _ = lost(timeout=0.3, **options)
    try:
        other.publish("line", b"333")
    except natsbridge.NATSBridgeError as e:
        code = e.code
    line("mend")
    other.publish("line", b"333")
    other.flush()
    other.publish("line", b"4444")
    it.drain()
    came = rest(it)
    other.close()
    return [code, came]


def unsure():
    """A message that may have gone with the connection."""
    line("mend")
    with natsbridge.connect(LINK, base_delay=20) as other:
        other.publish("line", b"1")
        line("cut")
        line("mend")
        try:
            other.flush(2)
        except natsbridge.NATSBridgeError as e:
            other.flush(2)
            return e.code


def for_good():
    other, it, _ = lost(reconnect=False)
    line("mend")
    codes = []
    took = [len(it.next(1)), len(other.next(1))]
    for function in (other.flush, other.next, lambda: other.publish("line", b""), it.drain):
        try:
            codes.append(function())
        except natsbridge.NATSBridgeError as e:
            codes.append(e.code)
    states = [other.connected, other.pending, other.url == LINK]
    other.close()
    return [took, codes, states]


def silence(**options):
    """What those hear who wait on a lost connection, and whether in time."""
    other, it, _ = lost(**options)
    came = [len(it.next(1)), len(other.next(1))]

    def request(timeout):
        return other.request("interop.echo", b"", timeout)

    for function in (it.next, other.next, request):
        for timeout in (0.3, 0):
            begin = time.time()
            try:
                heard = function(timeout)
            except natsbridge.NATSBridgeError as e:
                heard = e.code
            came.append([heard, time.time() - begin < 2])
    line("mend")
    other.publish("line", b"333")
    came.append(len(it.next(5)))
    other.close()
    return came


step("a lost connection is no silence", silence)
step("a lost connection with room is none either", silence, pending_size=1000)
step("a lost connection, with room", waiting)
step("what waits when it is closed", unsent, pending_size=1000)
step("a lost connection, without room", late)
step("a message that may be lost", unsure)
step("a connection lost for good", for_good)
line("mend")

step("iterate until unsubscribed", iterate)
step("what was left is gone", nc.next, 0.2)
late = nc.subscribe("late")
nc.publish("late", b"1")
nc.flush()
late.unsubscribe()
step("so is what came before unsubscribe", nc.next, 0.2)
sub.unsubscribe()
step("next after unsubscribe", sub.next, 0.1)
silent = nc.subscribe("silent")
nc.close()
nc.close()
step("publish after close", nc.publish, "twin.x", b"")
step("smartsend after close", send, [])
step("next after close", silent.next, 0.1)
step("subscribe after close", nc.subscribe, "x")
step("flush after close", nc.flush)
step("drain after close", nc.drain)
step("drain a subscription after close", silent.drain)
step("connected after close", lambda: [nc.connected, nc.pending])
step("request after close", nc.request, "x", b"")
step("nothing to iterate after close", lambda: list(silent))
step("unsubscribe after close", silent.unsubscribe)
step("publish_message to no broker", natsbridge.publish_message, "nats://127.0.0.1:1", "a", "x")
step("smartsend to no broker", natsbridge.smartsend, "a", [], broker_url="nats://127.0.0.1:1")
step("the second broker of two", lambda: natsbridge.connect([NOBODY, BROKER]).close())
step("however long it takes", lambda: natsbridge.connect(BROKER, timeout=None).close())
step("no broker", natsbridge.connect, "nats://127.0.0.1:1", timeout=1)
step("a URL of another kind", natsbridge.connect, "http://127.0.0.1")
step("no servers", natsbridge.connect, [])


# how to connect
def talk(url=SECURE, **options):
    """Connect, and hear oneself."""
    options.setdefault("tls", {"ca": CA})
    with natsbridge.connect(url, timeout=5, **options) as other, other.subscribe("talk") as it:
        other.publish("talk", b"x" * 9999, "", {"a": "b"})
        msg = it.next(5)
        return [len(msg), msg.headers, other.connected, other.pending, other.tls == options["tls"]]


def signed(nonce):
    if type(nonce) is not bytes:
        raise TypeError("the nonce is no bytes")
    return bytes(signer.request("interop.sign", nonce, 5).data)


signer = natsbridge.connect(BROKER)
step("TLS and a signature", talk, nkey=NKEY, sign=signed)
step("TLS by its URL", talk, SECURE.replace("nats:", "tls:"), nkey=NKEY, sign=signed)
with open(CA, "rb") as f:
    step("a CA as bytes", talk, tls={"ca": f.read()}, nkey=NKEY, sign=signed)
step("unverified", talk, tls={"verify": False}, nkey=NKEY, sign=signed)
step("another host name", talk, tls={"ca": CA, "hostname": "x.example"}, nkey=NKEY, sign=signed)
step("nobody's signature", talk, nkey=NKEY, sign=lambda nonce: bytes(64))
step("a signature too short", talk, nkey=NKEY, sign=lambda nonce: bytes(63))
step("no signature", talk, nkey=NKEY, sign=lambda nonce: None)
step("no login", talk)
step("another login", talk, user="a", password="b")
step("no TLS is no TLS", talk, BROKER, tls={"verify": False})
step("no TLS by its URL", talk, BROKER.replace("nats:", "tls:"), tls={"verify": False})
signer.close()


def connected(options):
    natsbridge.connect(options.pop("servers", BROKER), **options).close()
    return "connected"


TLS = [5, "x", {"cafile": CA}, {"ca": CA + "x"}, {"ca": 5}, {"ca": ""}, {"ca": CA, "key": CA}]
LOGIN = [{"sign": signed}, {"nkey": "U"}, {"jwt": "x"}, {"nkey": "U", "sign": 5}]
LOGIN += [{"nkey": 5, "sign": signed}, {"jwt": b"x", "sign": signed}]
TIMES = [{"base_delay": -1}, {"base_delay": "1"}, {"max_delay": None}, {"max_delay": -1}]
TIMES += [{"ping_interval": -1}, {"ping_interval": "1"}]
SIZES = [{"pending_size": -1}, {"pending_size": "1"}, {"pending_size": 1.5}]
NAMES = [{"id": 5}, {"user": 5}, {"token": b"x"}, {"password": 5}, {"name": None}]
NAMES += [
    {"name": "x" * 1025},
    {"user": "é" * 513, "password": "x"},
    {"user": "a", "password": None},
]
TIMES += [{"base_delay": NAN}, {"max_delay": INF}, {"ping_interval": NAN}, {"ping_interval": INF}]
SERVERS = [
    {"servers": value} for value in (5, [None], [5], (), {}, {"a": 1}, b"x", [BROKER, 5], "")
]
every = [{"tls": value} for value in TLS] + LOGIN + TIMES + SIZES + NAMES + SERVERS
for i, options in enumerate(every):
    step("options that cannot be %d" % i, connected, options)
options = {"base_delay": 1, "max_delay": 2, "ping_interval": 1.5, "pending_size": 5000}
with natsbridge.connect(BROKER, ping_interval=0) as other:
    step("no PINGs", other.flush)
with natsbridge.connect(BROKER, **options) as other:
    step("options that are fine", other.flush)
