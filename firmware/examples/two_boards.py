"""Two boards that talk, without a desktop between them: the same program on both, whose names, in
config.json, are left and right. Who hears nothing for a while says ping; the other one answers.
"""

import time

import board
import natsbridge

PATIENCE = 5  # s

nc = board.connect()
other = "right" if nc.name == "left" else "left"
sub = nc.subscribe("lab." + nc.name)


def say(purpose, to=""):
    natsbridge.smartsend(
        "lab." + other,
        [("uptime", {"ms": time.ticks_ms()}, "dictionary")],
        msg_purpose=purpose,
        receiver_name=other,
        reply_to_msg_id=to,
        **board.options(nc),
    )


while True:
    msg = sub.next(PATIENCE)
    if msg is None:
        say("ping")
        continue
    env = natsbridge.smartreceive(msg, **board.options())
    print(env["sender_name"], env["msg_purpose"], env["payloads"][0][1]["ms"])
    if env["msg_purpose"] == "ping":
        say("pong", env["msg_id"])
