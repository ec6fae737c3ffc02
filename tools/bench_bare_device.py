"""The bare loops of bench.py, with arguments and output as bench_device.py: what a good programmer
writes for one job on a blocking socket, without any of the checks that a library owes.
"""

import json
import os
import socket
import sys
import time
from binascii import a2b_base64, b2a_base64, hexlify
from hashlib import md5, sha256

job, subject, path = sys.argv[1:4]
count = int(sys.argv[4])
buf = bytearray(768 if job == "send" else 1024)
view = memoryview(buf)


def dial(url):
    host, _, port = url.split("/")[2].partition(":")
    s = socket.socket()
    s.connect(socket.getaddrinfo(host, int(port))[0][-1])
    s.setsockopt(6, 1, 1)  # TCP_NODELAY
    return s


def flush(s):
    s.write(b"PING\r\n")
    while wait(s) != b"PONG\r\n":
        pass


def wait(s):
    """The next line that is no PING."""
    while True:
        line = s.readline()
        if line != b"PING\r\n":
            return line
        s.write(b"PONG\r\n")


# ---------------------------------------------------------------- over NATS


def send(s):
    for _ in range(count):
        send_one(s, os.stat(path)[6])
    flush(s)


def send_one(s, size):
    whole = size // 768
    with open(path, "rb") as f:
        head = b'{"size": %d, "data": "' % size
        s.write(b"PUB bench.out %d\r\n%s" % (len(head) + (size + 2) // 3 * 4 + 2, head))
        for _ in range(whole):
            f.readinto(buf)
            s.write(b2a_base64(buf), 1024)
        n = f.readinto(buf)
        if n:
            s.write(b2a_base64(view[:n])[:-1])
        s.write(b'"}\r\n')


def receive(s):
    for i in range(count):
        receive_one(s, "%s/%d" % (path, i))


def receive_one(s, name):
    line = wait(s)
    left = int(line[line.rfind(b" ") + 1 :]) + 2 - 1024
    s.readinto(buf)
    text = bytes(buf)
    at = text.find(b'"size":') + 7
    size = int(text[at : text.find(b",", at)])
    text = text[text.find(b'"', text.find(b'"data":') + 7) + 1 :]
    odd = -len(text) & 3
    text += s.read(odd)
    todo = (size + 2) // 3 * 4 - len(text)
    left -= odd + todo
    with open(name, "wb") as f:
        f.write(a2b_base64(text))
        for _ in range(todo >> 10):
            s.readinto(buf)
            f.write(a2b_base64(buf))
        todo &= 1023
        s.readinto(view[:todo])
        f.write(a2b_base64(view[:todo]))
    s.read(left)


def publish(s):
    name = "bench.out"
    data = b"x" * 16
    for _ in range(count):
        s.write(b"PUB %s %d\r\n%s\r\n" % (name, len(data), data))
    flush(s)


def take(s):
    for _ in range(count):
        line = wait(s)
        s.readinto(view[: int(line[line.rfind(b" ") + 1 :]) + 2])


# ---------------------------------------------------------------- over HTTP


def request(url, line, headers, body=b""):
    s = dial(url)
    s.write("%s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (line, url.split("/")[2], headers))
    s.write(body)
    return s


def answer(s):
    """Read an answer's head: the length of its body."""
    n = 0
    if b" 200 " not in s.readline():
        raise OSError
    while True:
        line = s.readline()
        if line == b"\r\n":
            return n
        if line[:15].lower() == b"content-length:":
            n = int(line[15:])


def upload(s):
    url = os.getenv("FILESERVER_URL")
    s = request(url, "POST /upload", "Content-Length: 2\r\n", b"{}")
    made = json.loads(s.read(answer(s)))
    s.close()
    size = os.stat(path)[6]
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    headers = (
        "X-UploadToken: %s\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        "Content-Length: %d\r\n" % (made["uploadToken"], len(head) + size + 9)
    )
    s = request(url, "POST /file/" + made["id"], headers, head)
    sha = sha256()
    md = md5()
    with open(path, "rb") as f:
        while True:
            n = f.readinto(buf)
            if not n:
                break
            part = view[:n] if n < 1024 else buf
            sha.update(part)
            md.update(part)
            s.write(part)
    s.write(b"\r\n--b--\r\n")
    made = json.loads(s.read(answer(s)))
    s.close()
    if made["fileMd5"] != str(hexlify(md.digest()), "utf-8"):
        raise OSError


def download(nats):
    line = wait(nats)
    claim = json.loads(nats.read(int(line[line.rfind(b" ") + 1 :])))["payloads"][0]
    nats.read(2)
    url = claim["data"]
    s = request(url, "GET /" + url.split("/", 3)[3], "")
    left = answer(s)
    sha = sha256()
    with open(path + "/a", "wb") as f:
        while left:
            n = s.readinto(buf if left >= 1024 else view[:left])
            part = view[:n] if n < 1024 else buf
            sha.update(part)
            f.write(part)
            left -= n
    s.close()
    if claim["metadata"]["sha256"] != str(hexlify(sha.digest()), "utf-8"):
        raise OSError


def main():
    s = dial(os.getenv("NATS_URL"))
    s.readline()
    s.write(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %s 1\r\n' % subject)
    flush(s)
    do = globals()[job]
    print("ready")
    while sys.stdin.readline():
        t = time.ticks_us()
        do(s)
        print(time.ticks_diff(time.ticks_us(), t))
    s.close()


main()
