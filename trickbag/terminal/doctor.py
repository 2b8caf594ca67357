"""The command that looks at the installation and the machine."""

from typing import Annotated

import typer

from trickbag.ground import glance
from trickbag.terminal.options import screen_of


def doctor(
    clear: Annotated[bool, typer.Option("--clear", help=glance.parameters("checkup.py", "doctor")["clear"])] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Look at the installation and the machine: versions, device, cache, disks, weights, extras, and what is wrong."""
    import trickbag as tb

    with screen_of(quiet=json) as screen:
        found = tb.doctor(clear=clear)
        screen.json(found.as_json()) if json else screen.lines(*found.lines())
