"""A device that does jobs: each is a line of JSON on its stdin, and what came of it one on stdout.

Messages to receive come over NATS, before their job does.
"""

import json
import sys
import time

import natsbridge

broker, subject, folder = sys.argv[1:4]


def receive(job):
    """Into the folder."""
    msg = sub.next(10)
    options = {"sink": folder, "fileserver_url": job["files"], "max_retries": job["retries"]}
    options.update(base_delay=1, max_delay=2, timeout=job["timeout"])
    payloads = natsbridge.smartreceive(msg, **options)["payloads"]
    return [payload[1] for payload in payloads]


def upload(job):
    """A file, or a stream that can't be read again."""
    from natsbridge.upload import Upload

    Upload.base_delay = 1
    source = open(job["path"], "rb")
    if job["once"]:
        source = Once(source)
    try:
        return natsbridge.plik_upload(job["files"], "f.bin", source, timeout=job["timeout"])
    finally:
        source.close()


class Once:
    def __init__(self, file):
        self.readinto = file.readinto
        self.close = file.close


nc = natsbridge.connect(broker, name="device")
sub = nc.subscribe(subject)
nc.flush()
print(json.dumps("ready"))
while True:
    line = sys.stdin.readline()
    if not line:
        break
    job = json.loads(line)
    begin = time.ticks_ms()
    try:
        got = {"code": "", "result": {"receive": receive, "upload": upload}[job["do"]](job)}
    except natsbridge.NATSBridgeError as e:
        got = {"code": e.code, "message": e.message, "details": e.details}
    got["ms"] = time.ticks_diff(time.ticks_ms(), begin)
    print(json.dumps(got))
    got = job = line = None
nc.close()
