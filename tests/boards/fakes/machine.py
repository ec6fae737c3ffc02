"""A board's machine."""

events = []  # what was done with it


def unique_id():
    return b"\x01\xab"


def reset():
    print("reset")
    raise SystemExit(3)


class WDT:
    def __init__(self, timeout):
        if timeout > 8388:
            raise ValueError("timeout exceeds 8388")
        events.append(timeout)

    def feed(self):
        events.append("feed")
