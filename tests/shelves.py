"""Tricks on a second shelf: one file is one trick, and nothing else names it."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trickbag import tricks
from trickbag.tricks import bag

SHELF = Path(__file__).parent / "shelf"


@contextmanager
def more_tricks() -> Iterator[None]:
    """Inside, the tricks of the folder ``shelf`` are in the bag."""
    tricks.__path__.append(str(SHELF))
    importlib.invalidate_caches()
    bag.cache_clear()
    try:
        yield
    finally:
        tricks.__path__.remove(str(SHELF))
        bag.cache_clear()
        for file in SHELF.glob("*.py"):
            sys.modules.pop(f"trickbag.tricks.{file.stem}", None)
            vars(tricks).pop(file.stem, None)
