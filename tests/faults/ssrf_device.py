"""The device of test_ssrf.py: receives the message of each line that it reads, and prints how that
ended and which servers it looked for. Every name resolves to 127.0.0.1, at the canary's port."""

import json
import socket
import sys

import natsbridge

broker, canary = sys.argv[1:]
asked = []


class Socket:
    """The module, but for its resolver."""

    def __getattr__(self, name):
        return getattr(socket, name)

    def getaddrinfo(self, host, port, *rest):
        asked.append((host, port))
        if host != "127.0.0.1":
            host, port = "127.0.0.1", int(canary)
        return socket.getaddrinfo(host, port, *rest)


sys.modules["socket"] = Socket()
nc = natsbridge.connect(broker, name="me")
sub = nc.subscribe("ssrf." + canary)
print("ready")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    files, url, message = json.loads(line)
    del asked[:]
    code = text = ""
    try:
        if message:
            nc.publish(sub.subject, message)
            natsbridge.smartreceive(sub.next(10), fileserver_url=files, max_retries=1)
        elif url:
            natsbridge.fetch_with_backoff(url, 1)
        else:
            natsbridge.plik_upload(files, "x", b"abc")
    except natsbridge.NATSBridgeError as e:
        code = e.code
        text = e.message
    print(json.dumps([code, text, asked]))
