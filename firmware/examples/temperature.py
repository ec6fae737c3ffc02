"""A logger: every minute a table of six temperatures.

What can't be sent while the broker is away waits, up to 4 KB of it.
"""

import board
import natsbridge

PERIOD = 10  # s between two readings


def celsius():
    """The sensor in the chip, as the datasheets of RP2040 and RP2350 have it; yours goes here."""
    from machine import ADC

    return 27 - (ADC(4).read_u16() * 3.3 / 65535 - 0.706) / 0.001721


nc = board.connect(pending_size=4096)
while True:
    rows = []
    for _ in range(6):
        rows.append({"time": natsbridge.log.timestamp(), "celsius": round(celsius(), 1)})
        board.sleep(PERIOD, nc)
    data = [("readings", rows, "jsontable")]
    natsbridge.smartsend("lab.temperature", data, **board.options(nc))
