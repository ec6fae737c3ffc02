"""What a simulated board runs when it starts: it makes of the unix port what `simulator.py` was
told to, and runs main.py as a board does.

Reset, the watchdog and what the simulator has to know are told to it by marks in the output, which
it takes out; a board that loses its power kills itself.
"""

import builtins
import json
import os
import sys
import time
from collections import namedtuple

import machine

told = json.loads(os.getenv("SIMULATED"))


def mark(text):
    sys.stdout.write("\x1b]sim;%s\x07" % text)


class Like:
    """A module, but for what is set on it."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)


def reset():
    """Be ended by the simulator, which starts another."""
    mark("reset")
    while True:
        time.sleep(1)


def lose_power():
    """End this process, and wait for it."""
    os.system("kill -KILL $PPID")
    while True:
        pass


# ---------------------------------------------------------------- the file system

BLOCK = 4096
real_os = os
real_open = open
left = told["operations"]  # until the power fails; None: it does not


def operation():
    """Count one, before it is done."""
    global left
    if left is not None:
        left -= 1
        if left < 0:
            lose_power()
        mark("operation")  # those before a soft reset count too


def used(path="."):
    """Bytes in whole blocks, as littlefs stores them: a folder takes two."""
    total = 0
    for entry in real_os.ilistdir(path):
        inside = path + "/" + entry[0]
        if entry[1] == 0x4000:
            total += 2 * BLOCK + used(inside)
        else:
            total += (real_os.stat(inside)[6] + BLOCK - 1) // BLOCK * BLOCK
    return total


class File:
    """A file that is written to; it can be cut in the middle, or find the flash full."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        global left
        if told["flash"] is not None and used() + len(data) > told["flash"]:
            raise OSError(28)
        if left == 0:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
        operation()
        n = self._file.write(data)
        self._file.flush()
        return n

    def close(self):
        operation()
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def opened(path, mode="r", *args, **options):
    if not ("w" in mode or "a" in mode or "+" in mode):
        return real_open(path, mode, *args, **options)
    operation()
    return File(real_open(path, mode, *args, **options))


def counted(name):
    function = getattr(real_os, name)

    def call(*args):
        operation()
        return function(*args)

    return call


def statvfs(path):
    if told["flash"] is None or not told["honest"]:
        return real_os.statvfs(path)
    free = max(0, told["flash"] - used()) // BLOCK
    return (BLOCK, BLOCK, told["flash"] // BLOCK, free, free, 0, 0, 0, 0, 255)


like_os = Like(os)
like_os.statvfs = statvfs
for name in ("rename", "remove", "unlink", "mkdir", "rmdir"):
    setattr(like_os, name, counted(name))
sys.modules["os"] = like_os
builtins.open = opened

# ---------------------------------------------------------------- what it says it is

i = sys.implementation
Implementation = namedtuple("implementation", ("name", "version", "_machine", "_mpy"))
version = tuple(told["version"] or i[1])
like_sys = Like(sys)
like_sys.implementation = Implementation(
    i[0], version, told["machine"] or i._machine, i._mpy if told["mpy"] is None else told["mpy"]
)
like_sys.platform = told["platform"] or sys.platform
sys.modules["sys"] = like_sys


class WDT:
    """Nothing but a reset ends it; the simulator counts."""

    def __init__(self, timeout):
        self._timeout = timeout
        self.feed()

    def feed(self):
        mark("watchdog %d" % self._timeout)


like_machine = Like(machine)
like_machine.reset = reset
like_machine.unique_id = lambda: bytes.fromhex(told["chip"])
like_machine.PWRON_RESET = 1
like_machine.reset_cause = lambda: 1 if told["powered_on"] else 3
like_machine.WDT = WDT
sys.modules["machine"] = like_machine


class WLAN:
    """The radio of an RP2, in reach of one network."""

    JOIN = 120  # ms that it takes

    def __init__(self, interface):
        self._result = 0
        self._begun = 0

    def active(self, on):
        return on

    def connect(self, ssid, password=None):
        self._ssid = ssid
        self._begun = time.ticks_ms()
        if ssid != told["wifi"]["ssid"]:
            self._result = -2
        else:
            self._result = 3 if password == told["wifi"]["password"] else -3

    def disconnect(self):
        self._result = 0

    def isconnected(self):
        return self.status() == 3

    def status(self):
        joining = time.ticks_diff(time.ticks_ms(), self._begun) < self.JOIN
        return 1 if self._result and joining else self._result

    def config(self, what=None, **values):
        if values:
            raise ValueError("unknown config param")
        return self._ssid


if told["wifi"]:
    network = Like(None)
    network.WLAN = WLAN
    network.STA_IF = 0
    sys.modules["network"] = network

# ---------------------------------------------------------------- it starts

sys.path[:] = ["", ".frozen", os.getcwd() + "/lib"]
mark("started")
if told["main"]:
    try:
        with real_open("main.py") as file:
            text = file.read()
    except OSError:
        text = ""
    exec(compile(text, "main.py", "exec"), {"__name__": "__main__"})
