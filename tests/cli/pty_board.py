"""A board for mpremote: the unix port of MicroPython behind a pseudo-terminal.

It runs in a process of its own, which prints the port's name: python pty_board.py micropython ...
The unix port ends where a board restarts (Ctrl-D): it is started again then.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import tty

#: What mpremote types to leave the running program and to enter the raw REPL.
RAW = b"\x01"


class Board:
    """The unix port on a pseudo-terminal of its own."""

    def __init__(self, line: list[str]) -> None:
        self._line = line
        self.start()

    def start(self) -> None:
        """Start it."""
        self.end, side = pty.openpty()
        tty.setraw(side)
        self.process = subprocess.Popen(
            self._line, stdin=side, stdout=side, stderr=side, start_new_session=True
        )
        os.close(side)

    def restart(self) -> None:
        """Start it again, in the raw REPL, as a soft reset does."""
        os.close(self.end)
        self.process.wait()
        self.start()
        greeting = b""
        while not greeting.endswith(b">>> "):
            greeting += os.read(self.end, 1024)
        os.write(self.end, RAW)


def main() -> None:
    """Pass bytes on until we are killed, and the board with us."""
    port, side = pty.openpty()
    tty.setraw(side)  # kept open: mpremote comes and goes
    board = Board(sys.argv[1:])
    print(os.ttyname(side), flush=True)
    try:
        while True:
            ready, _, _ = select.select([port, board.end], [], [])
            if port in ready:
                os.write(board.end, os.read(port, 4096))
            if board.end in ready:
                try:
                    os.write(port, os.read(board.end, 4096))
                except OSError:  # it has ended
                    os.write(port, b"MPY: soft reboot\r\n")
                    board.restart()
    except KeyboardInterrupt:
        pass
    finally:
        board.process.kill()
        board.process.wait()


main()
