"""The command `natsbridge`: one module for each subcommand, loaded when it is called.

`group` is what stands before them, `settings` brings together arguments, environment and
natsbridge.toml, `output` is what the person or the program at the other end of stdout sees, `files`
turns files into payloads and back.
"""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    # Until a command runs there is nothing to clean up: Ctrl-C just ends the process, as it does
    # any other. `Output.run` is where that changes.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from natsbridge.cli.group import group

    group(prog_name="natsbridge")
