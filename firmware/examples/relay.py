"""A relay, switched by a dictionary {"on": true} or {"on": false} to <name>.relay.

Each message is answered with an ACK: no payloads, and the ids of what it belongs to.
"""

from machine import Pin

import board
import natsbridge

relay = Pin(5, Pin.OUT, value=0)  # the hardware

nc = board.connect()
sub = nc.subscribe(nc.name + ".relay")
while True:
    msg = sub.next()
    try:
        env = natsbridge.smartreceive(msg, nack=True, **board.options())
        for _, value, kind in env["payloads"]:
            if kind == "dictionary" and "on" in value:
                relay.value(1 if value["on"] else 0)
        if msg.reply:
            natsbridge.smartsend(
                msg.reply,
                [],
                msg_purpose="ACK",
                correlation_id=env["correlation_id"],
                reply_to_msg_id=env["msg_id"],
                receiver_name=env["sender_name"],
                receiver_id=env["sender_id"],
                **board.options(nc),
            )
    except natsbridge.NATSBridgeError as e:
        print(e)  # not ours to end for: somebody sent something else
