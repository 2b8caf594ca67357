"""Commands for what one writes oneself: the laws of a trick."""

from pathlib import Path
from typing import Annotated

import typer

from trickbag.terminal.options import screen_of


def laws(file: Annotated[Path, typer.Argument(metavar="FILE", help="A Python file with a trick.")]) -> None:
    """Try the laws that every trick obeys on a trick of your own: a line each, with what to look at.

    The exit code is 1 where a law is broken.
    """
    import trickbag as tb

    with screen_of() as screen:
        found = tb.laws(file, progress=screen.tell)
        screen.laws(found)
    if found.broken:
        raise typer.Exit(1)
