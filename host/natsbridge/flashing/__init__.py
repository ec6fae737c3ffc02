"""What puts a program on a board: `link` talks to it, `plan` decides, `values` configures it.

`keys` says what a configuration may hold.

A board has two slots, slots/a and slots/b, each with a program and its configuration, and a file
`slot` that names the one to run. Only the other one is written to, and renaming `slot` switches to
it: whenever it is interrupted, the board runs the old program or the new one, each with its own
configuration, and flashing again goes on with what has arrived.

`scripts` is what runs on the board meanwhile, `image` installs MicroPython itself, `console` reads
what a board prints.
"""
