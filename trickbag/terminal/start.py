"""From the start of the process to its exit code."""

import errno
import re
import sys
from collections.abc import Callable

from trickbag.display import output
from trickbag.ground import signals
from trickbag.ground.errors import Interrupted, TrickbagError, lacks_memory
from trickbag.ground.spoken import Reader
from trickbag.ground.text import clipped, line

LONGEST = 300
"""Characters of a word, as of a path, that an error shows whole."""


def begin(command: Callable[[], object]) -> None:
    """Carry out the command and exit: 2 and a sentence for the user's mistakes, 1 for failures, 128 + its number for a signal.

    An answer that cannot be written to standard output is a failure; a reader who leaves, as in ``| head``, is none.
    """
    output.steady()
    Reader.typed = True
    try:
        signals.listen()
        try:
            command()
        except Exception as error:
            if not isinstance(error, TrickbagError | Interrupted):
                signals.look()  # a library may have put an error of its own in the place of what a signal raised
            raise
        finally:
            signals.leave()
            Reader.typed = False
    except (TrickbagError, Interrupted) as end:
        said = re.sub(rf"\S{{{LONGEST},}}", lambda word: clipped(word[0]), line(str(end)))
        sys.stderr.write(f"trickbag: {said}\n")
        sys.exit(end.exit_code)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        sys.stderr.write("trickbag: not enough memory. Use smaller batches (--set batch_size=…) or a smaller --model.\n")
        sys.exit(1)
    except SystemExit as end:
        if not end.code and (cause := output.lost()) and cause.errno != errno.EPIPE:
            sys.stderr.write(f"trickbag: standard output could not be written ({cause.strerror}); all else was done.\n")
            sys.exit(1)
        raise
