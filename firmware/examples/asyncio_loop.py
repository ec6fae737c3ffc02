"""NATSBridge beside asyncio: other tasks go on while the connection is looked after.

poll() and next(0) never wait, also while the broker is away. What does block, for as long as bytes
move, is sending and receiving a large payload; on_idle is called meanwhile.
"""

import asyncio

import natsbridge

BROKER = "nats://192.168.1.10:4222"


async def blink():
    """Whatever else the board does."""
    while True:
        await asyncio.sleep_ms(250)


async def talk(nc, sub):
    while True:
        if nc.poll():
            msg = sub.next(0)
            if msg:
                env = natsbridge.smartreceive(msg)
                for name, value, kind in env["payloads"]:
                    print(name, kind, value)
                    if value == "stop":
                        return
        await asyncio.sleep_ms(10)


async def main():
    nc = natsbridge.connect(BROKER, name="pico", pending_size=1024)
    sub = nc.subscribe("lab.command")
    lamp = asyncio.create_task(blink())
    nc.publish("lab.hello", b"pico")
    await talk(nc, sub)
    lamp.cancel()
    nc.close()


asyncio.run(main())
