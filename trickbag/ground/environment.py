"""Environment variables that hold numbers."""

import math
import os

from trickbag.ground.errors import UsageError


def number(name: str, default: float, least: float = 0.0) -> float:
    """The number in an environment variable, or the default where there is none. Raises UsageError for anything else.

    >>> number("TRICKBAG_NO_SUCH_THING", 20)
    20
    """
    given = os.environ.get(name)
    if given is None:
        return default
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise UsageError(f"the environment has {name}={given[:80]!r}. Give it a number from {least:g}, or unset it.")
    return value


def whole(name: str, default: int, least: int = 0) -> int:
    """The same for a whole number.

    >>> whole("TRICKBAG_NO_SUCH_THING", 4)
    4
    """
    value = number(name, default, least)
    if value != int(value):
        raise UsageError(f"the environment has {name}={value:g}. Give it a whole number, or unset it.")
    return int(value)


def check_alone(work: str) -> None:
    """Raise UsageError where torchrun started several processes for what one does: they would stand in each other's way."""
    if (ranks := whole("WORLD_SIZE", 1, 1)) > 1:
        raise UsageError(f"{work} is the work of one process, and torchrun started {ranks}. Start trickbag without torchrun.")
