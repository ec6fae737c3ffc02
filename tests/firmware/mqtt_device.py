"""The device of test_mqtt.py, in 64 KB: sends and receives payloads of every way over MQTT, and
answers questions."""

import sys
from io import BytesIO

import natsbridge

url, files, folder = sys.argv[1:]


class Log:
    """A file's first 5,000 bytes, 40 times."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.part = f.read(5000)
        self.at = 0

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, 200000)[whence]
        return self.at

    def readinto(self, buf):
        n = min(len(buf), 200000 - self.at)
        part = BytesIO(self.part)
        part.seek(self.at % 5000)
        n = part.readinto(memoryview(buf)[:n])
        self.at += n
        return n


def main():
    nc = natsbridge.connect(url, name="pico")
    sub = nc.subscribe("lab.down.*")
    with open(folder + "/photo", "rb") as f:
        data = [
            ("hello", "hé", "text"),
            ("state", {"on": True}, "dictionary"),
            ("photo", f, "image"),
            ("log", Log(folder + "/photo"), "binary"),
        ]
        options = {"nats_connection": nc, "fileserver_url": files, "size_threshold": 100000}
        env, _ = natsbridge.smartsend("lab.up.data", data, **options)
    print(" ".join(p["transport"] for p in env["payloads"]))
    data = env = options = None
    env = natsbridge.smartreceive(sub.next(10), sink=folder + "/inbox", fileserver_url=files)
    text, state, photo, log = [p[1] for p in env["payloads"]]
    print(text)
    print(state["on"])
    print(photo)
    print(log)
    natsbridge.smartsend("lab.up.ack", [], nats_connection=nc, msg_purpose="ACK")
    for _ in range(3):
        env = natsbridge.smartreceive(sub.next(10))
        n = env["payloads"][0][1]["n"]
        natsbridge.smartsend(
            env["reply_to"],
            [("n", {"n": 2 * n}, "dictionary")],
            nats_connection=nc,
            correlation_id=env["correlation_id"],
            reply_to_msg_id=env["msg_id"],
        )
    nc.close()


main()
