"""The program that a board has before it gets yours: it takes what is sent to <name>.command
(or <id>.command) and answers each message with an ACK."""

import board
import natsbridge


def acknowledge(nc, msg, env):
    """An ACK has no payloads, and says to which message it belongs."""
    natsbridge.smartsend(
        msg.reply or (nc.name or nc.id) + ".ack",
        [],
        msg_purpose="ACK",
        correlation_id=env["correlation_id"],
        receiver_name=env["sender_name"],
        receiver_id=env["sender_id"],
        reply_to_msg_id=env["msg_id"],
        **board.options(nc),
    )


def serve():
    """Answer until the connection is beyond help."""
    with board.connect() as nc:
        sub = nc.subscribe((nc.name or nc.id) + ".command")
        while True:
            msg = sub.next()
            try:
                env = natsbridge.smartreceive(msg, nack=True, **board.options())
                if "error" in env:
                    print(env["error"])
                    continue
                for name, value, kind in env["payloads"]:
                    print(name, kind, value if kind in ("text", "dictionary") else len(value))
                acknowledge(nc, msg, env)
            except natsbridge.NATSBridgeError as e:
                print(e)  # the next next() connects again, if that is it


while True:
    try:
        serve()
    except (OSError, natsbridge.NATSBridgeError) as e:
        print(e)
        board.sleep(5)
