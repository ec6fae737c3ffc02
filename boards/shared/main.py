"""What stays on a board: it runs the program of one of two slots, so that a new one can be put into
the other, and be switched to (or back) by one small file.

slot: a file with "a" or "b". slots/a, slots/b: each with program.py, config.json, board.py,
natsbridge/*.mpy, and `complete`, a file that is made last and removed first.
pause: a file that is removed, and leaves the board at the prompt once: a watchdog that runs can't
be stopped, so whoever wants to copy for longer makes this file and resets the board.
"""

import os
import sys
import time

_DELAY = 10  # s before a program that failed is started again


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


def restart():
    """Start again, in a while; Ctrl-C prevents it."""
    try:
        from machine import reset
    except ImportError:
        sys.exit(1)
    print("main: restart in %d s; Ctrl-C prevents it" % _DELAY)
    time.sleep(_DELAY)
    reset()


def main():
    if exists("pause"):
        os.remove("pause")
        print("main: pause")
        return
    slot = choose()
    if not slot:
        return
    sys.path.insert(0, "%s/slots/%s" % (os.getcwd().rstrip("/"), slot))
    try:
        import program  # noqa: F401
    except Exception as e:  # not Ctrl-C, nor sys.exit()
        sys.print_exception(e)
        restart()


main()
