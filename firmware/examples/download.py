"""Files from the desktop into the flash, of any size that it has room for:

natsbridge send <name>.files --file update.bin

Nothing of a file is there under its name before its size and digest are verified.
"""

import os

import board
import natsbridge

FOLDER = "downloads"

try:
    os.mkdir(FOLDER)
except OSError:
    pass  # it is there

nc = board.connect()
sub = nc.subscribe(nc.name + ".files")
while True:
    msg = sub.next()
    try:
        env = natsbridge.smartreceive(msg, sink=FOLDER, nack=True, **board.options())
    except natsbridge.NATSBridgeError as e:
        print(e)
        continue
    for name, value, kind in env["payloads"]:
        if kind in ("text", "dictionary", "jsontable"):
            print(name, value)
        else:
            print(value, os.stat(value)[6], "bytes")
