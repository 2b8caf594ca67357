"""Two settings of the whole process, held for the time of one decoding, that no other thread comes to feel."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile


class _HereOnly(type):
    """A class of warnings that holds every warning, but only in a thread that is decoding just now."""

    active = threading.local()

    def __subclasscheck__(cls, other: type) -> bool:
        return getattr(cls.active, "on", False)


class _FromReaders(Warning, metaclass=_HereOnly):
    """What Pillow's readers warn of: broken metadata, which changes no pixel."""


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings in this thread; those of other threads go on, which ``warnings.catch_warnings`` cannot promise."""
    _HereOnly.active.on = True
    if not warnings.filters or warnings.filters[0][2] is not _FromReaders:
        warnings.simplefilter("ignore", _FromReaders)
    try:
        yield
    finally:
        _HereOnly.active.on = False


_strictness = threading.Lock()
_inside = [0, False]


@contextmanager
def strict() -> Iterator[None]:
    """Truncated files fail, even where another library has told Pillow to fill them up; its wish is given back after."""
    with _strictness:
        _inside[0] += 1
        if _inside[0] == 1:
            _inside[1], ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        with _strictness:
            _inside[0] -= 1
            if _inside[0] == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = bool(_inside[1])
