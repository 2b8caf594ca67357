"""The command ``trickbag``, and ``python -m trickbag``: signals are heard before anything large is imported."""

import atexit
import os
import sys

from trickbag.terminal.start import begin


def main() -> None:
    """Run the command line.

    Once all is done and said the process ends: taking apart what torch and others have made of it would take seconds.
    """
    code: object = 1
    atexit.register(lambda: _leave(code))  # first, so that it is called last
    try:
        begin(_verbs)
        code = 0
    except SystemExit as end:
        code = end.code
        raise


def _leave(code: object) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _verbs() -> None:
    from trickbag.terminal.cli import app

    app()


if __name__ == "__main__":
    main()
