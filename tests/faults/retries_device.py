"""Asks file servers for what it is told to: firmware, or natsbridge.sync on CPython.

For each line of JSON that it reads, it prints one: ["ok"], or an error's code, attempts and status.
"""

import json
import sys

if sys.implementation.name == "micropython":
    import natsbridge
else:
    from natsbridge import sync as natsbridge

print("ready")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    task = json.loads(line)
    try:
        if task["what"] == "download":
            natsbridge.fetch_with_backoff(
                task["url"] + "/file/a/b/x", task["attempts"], task["base"], task["most"]
            )
        else:
            natsbridge.plik_upload(task["url"], "x", b"abc")
        said = ["ok"]
    except natsbridge.NATSBridgeError as e:
        said = [e.code, e.details.get("attempts"), e.details.get("status")]
    print(json.dumps(said))
