"""How a process ends that has done and said all."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
from trickbag import __main__ as command

class Large:
    def __del__(self):
        print("taken apart")

command.large = Large()
command._verbs = lambda: (atexit.register(print, "put in order"), {ending})
command.main()
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("print('done')", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1), ("sys.exit()", 0), ("1 / 0", 1)],
)
def test_a_process_ends_in_order_and_takes_nothing_apart(ending: str, code: int) -> None:
    """Taking apart all that torch brings takes seconds in which a server looked as if it ran."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ending)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "put in order"
    assert "taken apart" not in done.stdout
    assert ("ZeroDivisionError" in done.stderr) == ("/" in ending)
