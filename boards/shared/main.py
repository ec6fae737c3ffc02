"""NATSBridge's loader, which stays on a board: it runs the program of one of two slots, so that a
new one can be put into the other, and be switched to (or back) by one small file.

slot: a file with "a" or "b". slots/a, slots/b: each with program.py, config.json, board.py,
natsbridge/*.mpy, and `complete`, a file that is made last and removed first.
pause: a file that is removed, and leaves the board at the prompt once: a watchdog that runs can't
be stopped, so whoever wants to copy for longer makes this file and resets the board. It does not
outlast the power: a board that was unplugged meanwhile runs its program.
"""

import os
import sys
import time

_DELAY = 10  # s before a program that failed is started again
_AGAIN = 2  # s before that, why it failed is printed again


def exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def choose():
    """The slot that is to be run, None if there is none."""
    try:
        with open("slot") as f:
            slot = f.read(8).strip()
    except (OSError, ValueError):
        slot = ""
    whole = [x for x in ("a", "b") if exists("slots/%s/complete" % x)]
    if slot in whole:
        return slot
    print("main: the file slot says %r; complete are: %s" % (slot, ", ".join(whole) or "none"))
    return whole[0] if whole else None


def powered_on():
    """Whether it starts because there is power now, as far as the port tells."""
    try:
        import machine

        return machine.reset_cause() == machine.PWRON_RESET
    except (ImportError, AttributeError):
        return False


def restart(e):
    """Start again, in a while; Ctrl-C prevents it. Who opens the port only now reads why, too."""
    try:
        from machine import reset
    except ImportError:
        sys.print_exception(e)
        sys.exit(1)
    for left, wait in ((_DELAY, _DELAY - _AGAIN), (_AGAIN, _AGAIN)):
        print("main: restart in %d s, which Ctrl-C prevents, after:" % left)
        sys.print_exception(e)
        time.sleep(wait)
    reset()


def main():
    if exists("pause"):
        os.remove("pause")
        if not powered_on():
            print("main: pause")
            return
    slot = choose()
    if not slot:
        return
    sys.path.insert(0, "%s/slots/%s" % (os.getcwd().rstrip("/"), slot))
    try:
        import program  # noqa: F401
    except Exception as e:  # not Ctrl-C, nor sys.exit()
        restart(e)


main()
