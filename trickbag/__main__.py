"""``python -m trickbag`` is the command line."""

from trickbag.terminal.cli import main

main()
