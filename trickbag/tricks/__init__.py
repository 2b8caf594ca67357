"""The shelf: one file, one trick. Nothing here is listed by hand; a new file is a new trick."""

import difflib
import importlib
import pkgutil
from functools import cache
from itertools import chain, repeat
from typing import get_args

from trickbag import plugins
from trickbag.ground import glance, spec, wants
from trickbag.ground.errors import UsageError
from trickbag.trick import Trick


def __getattr__(name: str) -> type[Trick]:
    """Each trick's class by its name, as ``tricks.MixUp``."""
    for trick in bag().values() if name[:1].isupper() else ():
        if trick.__name__ == name:
            return trick
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def names() -> tuple[str, ...]:
    """The names of all tricks of trickbag's own.

    >>> "mixup" in names()
    True
    """
    return tuple(info.name for info in pkgutil.iter_modules(__path__))


def bag() -> dict[str, type[Trick]]:
    """Every trick by name.

    >>> bag()["mixup"].__name__
    'MixUp'
    """
    return {name: find(name) for name in names()}


def helping(want: str) -> dict[str, str]:
    """The tricks that help with something, by their cards, and what those say of it. Raises UsageError where no card does.

    >>> helping("label noise")["distill"]
    'small networks, label noise, fine-grained classes'
    """
    return {found.name: found.line for found in wants.asked(want, glance.shelf()) if found.part == "Helps"}


def find(name: str) -> type[Trick]:
    """The trick of that name, of trickbag's own or of a plugin.

    >>> find("mixpu")
    Traceback (most recent call last):
    trickbag.ground.errors.UsageError: there is no trick mixpu; did you mean mixup? List them: trickbag tricks. Name a file of \
your own with --plugin.
    """
    if name in names():
        return _built_in(name)
    if own := plugins.find(name):
        return own
    near = difflib.get_close_matches(name, [*names(), *plugins.names()], n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise UsageError(f"there is no trick {name}{hint} List them: trickbag tricks. Name a file of your own with --plugin.")


@cache
def _built_in(name: str) -> type[Trick]:
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = (
        v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Trick) and v.__module__ == module.__name__
    )
    return found


def parse(text: str) -> Trick:
    """The trick that a text spells; the inverse of ``str``, but that quotes round a word may be left out, as shells eat them.

    >>> str(parse("label_smoothing(eps=0.1)")), str(parse("one_of(mixup, cutmix(alpha=0.5))"))
    ('label_smoothing', 'one_of(mixup, cutmix(alpha=0.5))')
    >>> str(parse("clean_labels(kind=correct)")), str(parse("dihedral(turns=false)"))
    ("clean_labels(kind='correct')", 'dihedral(turns=False)')
    """
    return _build(spec.parse(text))


def _build(given: spec.Spec) -> Trick:
    trick = find(given.name)
    words = {name for name, field in trick.model_fields.items() if not _holds_tricks(field.annotation)}
    places = repeat(trick.positional) if isinstance(trick.positional, str) else chain(trick.positional, repeat(""))
    args = tuple(_value(value, name in words) for value, name in zip(given.args, places, strict=False))
    return trick.build(spec.Spec(given.name, args, {name: _value(v, name in words) for name, v in given.fields.items()}))


def _value(given: object, word: bool) -> object:
    """A value of a spec with its tricks built; a bare name is a text where it can be no trick."""
    if isinstance(given, tuple):
        return tuple(_value(value, word) for value in given)
    if not isinstance(given, spec.Spec):
        return given
    return given.name if word and given == spec.Spec(given.name) else _build(given)


def _holds_tricks(annotation: object) -> bool:
    return (isinstance(annotation, type) and issubclass(annotation, Trick)) or any(map(_holds_tricks, get_args(annotation)))
