"""The port's own requests in bench.py; arguments and output as bench_device.py, and before "ready"
the heap that its import took. It is made to stream: an upload comes from a generator, a download is
read from the socket that the answer holds. (The `content` of its manual is all of it in the heap.)
"""

import gc
import os
import sys
import time

gc.collect()
before = gc.mem_alloc()

import requests  # noqa: E402

gc.collect()
print("import", gc.mem_alloc() - before)

job, subject, path = sys.argv[1:4]
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--b--\r\n"


def form(buf, view):
    yield HEAD
    with open(path, "rb") as f:
        while True:
            n = f.readinto(buf)
            if not n:
                break
            yield buf if n == 1024 else view[:n]
    yield END


def upload(buf, view):
    url = os.getenv("FILESERVER_URL")
    made = requests.post(url + "/upload", json={}).json()
    headers = {
        "X-UploadToken": made["uploadToken"],
        "Content-Type": "multipart/form-data; boundary=b",
        "Content-Length": str(len(HEAD) + os.stat(path)[6] + len(END)),
    }
    url += "/file/" + made["id"]
    answer = requests.post(url, data=form(buf, view), headers=headers)
    if answer.status_code != 200:
        raise OSError(answer.text)
    answer.close()


def download(buf, view):
    answer = requests.get(os.getenv("FILE_URL"))
    with open(path + "/a", "wb") as f:
        while True:
            n = answer.raw.readinto(buf)
            if not n:
                break
            f.write(buf if n == 1024 else view[:n])
    answer.close()


def main():
    buf = bytearray(1024)
    view = memoryview(buf)
    do = upload if job == "upload" else download
    print("ready")
    while sys.stdin.readline():
        t = time.ticks_us()
        do(buf, view)
        print(time.ticks_diff(time.ticks_us(), t))


main()
