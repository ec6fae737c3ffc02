"""One script for both sides: firmware on MicroPython, natsbridge.sync on CPython.

Called with the URLs of broker and file server and an empty folder. Prints a line of JSON for each
step: its result, or the code of its error. What may differ (ids, times, wording) is left out.
"""

import hashlib
import json
import os
import sys
from binascii import hexlify
from io import BytesIO

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

BROKER, FILES, FOLDER = sys.argv[1:4]
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


# the claim check
def exists(url):
    try:
        natsbridge.fetch_with_backoff(url, 1)
        return True
    except natsbridge.NATSBridgeError as e:
        return e.code


def consumed(**options):
    """Whether a link's file is still there after it was received."""
    env, _ = natsbridge.smartsend(
        "twin.a",
        [("c", PHOTO, "binary")],
        nats_connection=nc,
        fileserver_url=FILES,
        size_threshold=0,
        **options,
    )
    natsbridge.smartreceive(sub.next(10), fileserver_url=FILES)
    p = env["payloads"][0]
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
step("smartreceive of nothing", natsbridge.smartreceive, None)
step("a sink that is none", there_and_back, [("b", b"1", "binary")], sink=5)
sub.next(1)
step("a folder that is not there", there_and_back, [("b", b"1", "binary")], sink=FOLDER + "/no")
sub.next(1)

# the connection
step("next: nothing", sub.next, 0.1)
nc.publish("twin.x", b"one", "twin.reply")
nc.publish("twin.x", "zwölf")


def take(source):
    msg = source.next(5)
    return [msg.subject, msg.reply, msg.data, len(msg)]


step("bytes", take, sub)
step("a str, from any subscription", take, nc)
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
sub.unsubscribe()
step("next after unsubscribe", sub.next, 0.1)
nc.close()
nc.close()
step("publish after close", nc.publish, "twin.x", b"")
step("smartsend after close", send, [])
step("no broker", natsbridge.connect, "nats://127.0.0.1:1", timeout=1)
step("a URL of another kind", natsbridge.connect, "http://127.0.0.1")
step("no servers", natsbridge.connect, [])
