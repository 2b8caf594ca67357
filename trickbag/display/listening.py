"""Who follows long work that Python code asks for: a person at a terminal or in a notebook, a caller's function, nobody."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trickbag.ground.events import Tell, silent

Progress = bool | Tell | None
"""Whether progress is shown, or what is called with each event; None: in a terminal and in a notebook."""


@contextmanager
def listening(progress: Progress) -> Iterator[Tell]:
    """What long work tells its events to, for as long as the block lasts."""
    notebook = "ipykernel" in sys.modules
    if callable(progress):
        yield progress
    elif notebook or sys.stderr.isatty() if progress is None else progress:
        from trickbag.display.screen import Screen  # rich takes a tenth of a second to import

        with Screen(quiet=not notebook) as screen:
            yield screen.tell
    else:
        yield silent
