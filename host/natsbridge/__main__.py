"""`python -m natsbridge` is the command `natsbridge`."""

from natsbridge.cli import main

main()
