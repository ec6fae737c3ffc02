"""The device of test_secrets.py: fails in many ways, its log on, and prints all that it can."""

import json
import sys

import natsbridge
from natsbridge import errors, log, tls

log.enabled = True
with open(sys.argv[1]) as f:
    S = json.load(f)


def show(e):
    print("ERROR", str(e), repr(e), e.message, e.details)
    sys.print_exception(e)
    print(json.dumps(e.to_dict("x")))


def fails(name, function, *arguments, **options):
    """Call what should fail, and print how."""
    print("BEGIN", name)
    try:
        got = function(*arguments, **options)
        print("DID", repr(got), str(got))
    except natsbridge.NATSBridgeError as e:
        show(e)


def sign(nonce):
    return bytes(64)


def refused(nonce):
    raise OSError("no chip")


login = {"user": "device", "password": S["password"]}
for name, options in (
    ("password", login),
    ("token", {"token": S["token"]}),
    ("jwt", {"jwt": S["jwt"], "sign": sign}),
    ("chip", {"jwt": S["jwt"], "sign": refused}),
    ("nkey", {"nkey": "U" + "A" * 55, "sign": sign}),
):
    fails("denied " + name, natsbridge.connect, S["denies"], **options)
    fails("closed " + name, natsbridge.connect, "nats://127.0.0.1:1", **options)
    fails("silent " + name, natsbridge.connect, S["silent"], timeout=0.2, **options)
    fails("no tls " + name, natsbridge.connect, S["denies"], tls={"verify": False}, **options)
    fails("odd " + name, natsbridge.connect, "http://127.0.0.1:1", **options)
    fails("twice " + name, natsbridge.connect, S["broker"], ping_interval=-1, **options)
for start in ("nats://", "tls://", "", "http://"):
    for end in ("127.0.0.1:1", "127.0.0.1:x", "[::1", "", "127.0.0.1:1/x"):
        url = start + "device:" + S["password"] + "@" + end
        fails("url", natsbridge.connect, url, timeout=1)
        fails("url", natsbridge.connect, start + S["token"] + "@" + end, timeout=1)
fails("key", natsbridge.connect, S["denies"], tls={"ca": S["key"], "cert": S["key"], "key": "x"})
fails("key", tls.context, {"verify": False, "cert": S["key"], "key": S["key"]})
fails("long", natsbridge.connect, S["denies"], password=S["password"] * 200, user="x")

files = S["files"].replace("://", "://device:" + S["files_login"] + "@")
headers = {"X-PlikToken": S["plik_token"]}
for name, url in (
    ("refuses", files),
    ("closed", "http://device:%s@127.0.0.1:1" % S["files_login"]),
    ("https", "https://device:%s@127.0.0.1:1" % S["files_login"]),
    ("odd", "http://device:%s@127.0.0.1:x" % S["files_login"]),
    ("scheme", "ftp://device:%s@127.0.0.1" % S["files_login"]),
    ("escape", "http://device:%s%%zz@127.0.0.1" % S["files_login"]),
):
    fails("upload " + name, natsbridge.plik_upload, url, "x", b"abc", headers=headers)
    fails("oneshot " + name, natsbridge.plik_oneshot_upload, url, "x", b"abc")
    fails("fetch " + name, natsbridge.fetch_with_backoff, url + "/x", 2, 1, 1)
for headers in ({"X-PlikToken": S["plik_token"] + "\n"}, {"X Y": S["plik_token"]}):
    fails("headers", natsbridge.plik_upload, files, "x", b"abc", headers=headers)

nc = natsbridge.connect(S["broker"], name="me", base_delay=1, max_delay=1, **login)
sub = nc.subscribe("secrets")
print(repr(nc), str(nc), repr(sub), str(sub), nc.url)
fails("send", natsbridge.smartsend, "x", [("a", b"abc", "binary")], nats_connection=nc,
      fileserver_url=files, size_threshold=0)  # fmt: skip
fails("send", natsbridge.smartsend, "x", [("a", b"abc", "binary")], nats_connection=nc,
      fileserver_url=files, size_threshold=0, fallback_direct=False)  # fmt: skip
for url in (S["files"] + "/file/u/f/x", "http://127.0.0.1:1/x", "file:///x", files + "/x"):
    message = {"dataname": "x", "payload_type": "binary", "transport": "link", "data": url}
    message = {"receiver_name": "me", "payloads": [dict(message, size=3)], "reply_to": "back"}
    nc.publish("secrets", json.dumps(message), "back")
    msg = sub.next(5)
    print(repr(msg), str(msg))
    fails("receive", natsbridge.smartreceive, msg, fileserver_url=files, max_retries=2,
          base_delay=1, nack=True)  # fmt: skip
nc.publish("secrets", b"x")
nc.publish("not.permitted", b"x")
fails("permissions", nc.flush)
fails("permissions", nc.subscribe("not.permitted").next, 1)
print("CUT")
sys.stdin.readline()
fails("lost", nc.flush, 0.5)
fails("lost", nc.request, "secrets", b"x", 0.2)
nc.close()
fails("closed", nc.flush)
errors.drop("tls")
print("END")
