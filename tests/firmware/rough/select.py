"""The port's poll(), which asks a rough socket first: the port itself would sleep 1 ms for it."""

import time

import uselect
from uselect import *


class poll:
    """Of one object: the firmware has no use for more."""

    def __init__(self):
        self.port = uselect.poll()
        self.rough = None
        self.found = [[None, 0]]  # so that nothing is allocated

    def register(self, what, flags=POLLIN | POLLOUT):
        self.port.register(what, flags)
        self.rough = what if hasattr(what, "events") else None
        self.found[0][0] = what
        self.flags = flags

    def modify(self, what, flags):
        self.port.modify(what, flags)
        self.flags = flags

    def unregister(self, what):
        self.port.unregister(what)
        self.rough = None

    def ipoll(self, ms=-1, flags=0):
        if not self.rough:
            return self.port.ipoll(ms, flags)
        end = time.ticks_add(time.ticks_ms(), max(ms, 0))
        while True:
            events = self.rough.events(self.flags)
            if events:
                self.found[0][1] = events
                return self.found
            left = time.ticks_diff(end, time.ticks_ms()) if ms >= 0 else 50
            if left <= 0:
                return ()
            self.rough.sleep(min(left, 50))

    def poll(self, ms=-1):
        return [tuple(found) for found in self.ipoll(ms)]
