"""A device that does jobs: each is a line of JSON on its stdin, and what came of it one on stdout.

Messages to receive come over NATS, before their job does.
"""

import gc
import json
import sys
import time

import natsbridge
from natsbridge import errors, stream

broker, subject = sys.argv[1:3]
peak = 0
reads = -1  # not looked at


def receive(job):
    """Into a folder, or into memory."""
    msg = sub.next(10)
    options = {"sink": job["folder"], "fileserver_url": job["files"]}
    options.update(max_retries=job["retries"], base_delay=1, max_delay=2, timeout=job["timeout"])
    if reads >= 0:
        options["on_progress"] = sample
    payloads = natsbridge.smartreceive(msg, **options)["payloads"]
    return [p[1] if job["folder"] else len(p[1]) for p in payloads]


def measured(job):
    """Likewise: what came of it, and by how many bytes the heap grew, for good and at most."""
    global peak, reads
    errors.make_room(1 << 30, "none")
    gc.collect()
    peak = before = gc.mem_alloc()
    reads = 0
    try:
        result = receive(job)
    except natsbridge.NATSBridgeError as e:
        result = e.code
    reads = -1
    errors.make_room(1 << 30, "none")
    gc.collect()
    return result, gc.mem_alloc() - before, peak - before


def sample(*_):
    global peak, reads
    reads += 1
    if reads < 200 or reads & 31 == 0:
        gc.collect()
        peak = max(peak, gc.mem_alloc())


def readinto(self, buf, n, wait=True):
    if reads >= 0:
        sample()
    return plain(self, buf, n, wait)


def upload(job):
    """A file, or a stream that can't be read again."""
    from natsbridge.upload import Upload

    Upload.pauses = (1, 5000)
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


plain = stream.Stream.readinto
stream.Stream.readinto = readinto
does = {"receive": receive, "measured": measured, "upload": upload}
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
        got = {"code": "", "result": does[job["do"]](job)}
    except natsbridge.NATSBridgeError as e:
        got = {"code": e.code, "message": e.message, "details": e.details}
    got["ms"] = time.ticks_diff(time.ticks_ms(), begin)
    print(json.dumps(got))
    got = job = line = None
nc.close()
