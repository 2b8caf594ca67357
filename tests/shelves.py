"""Tricks on a second shelf: one file is one trick, and nothing else names it."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trickbag import tricks
from trickbag.tricks import names

SHELF = Path(__file__).parent / "shelf"


def forget() -> None:
    """What is on the shelf is looked for anew."""
    names.cache_clear()
    tricks._built_in.cache_clear()


@contextmanager
def more_tricks() -> Iterator[None]:
    """Inside, the tricks of the folder ``shelf`` are in the bag."""
    tricks.__path__.append(str(SHELF))
    importlib.invalidate_caches()
    forget()
    try:
        yield
    finally:
        tricks.__path__.remove(str(SHELF))
        forget()
        for file in SHELF.glob("*.py"):
            sys.modules.pop(f"trickbag.tricks.{file.stem}", None)
            vars(tricks).pop(file.stem, None)
