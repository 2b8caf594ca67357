"""What is typed on the command line or given in Python, as values: both take the same spellings."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, TypeGuard

from pydantic import BaseModel

from trickbag.ground import toml
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, clipped, line

MOST_SECONDS = 1e9
"""Thirty years."""


def seconds(given: str | float) -> float:
    """A time as seconds; 0 for an empty text, or for 0.

    >>> seconds("10m"), seconds("1.5h"), seconds(90), seconds("")
    (600.0, 5400.0, 90.0, 0.0)
    """
    if isinstance(given, str | Real) and given in ("", 0):
        return 0.0
    if isinstance(given, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", given.strip())
        found: Any = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    else:
        found = given if isinstance(given, Real) and not isinstance(given, bool) else 0.0
    if not 0 < found < MOST_SECONDS:
        raise UsageError(f"budget {clipped(line(str(given)))}: write a time above 0, for example 90s, 10m or 2h.")
    return float(found)


def processes(text: str | int) -> int:
    """A number of processes; 0 for ``auto``.

    >>> processes("4"), processes("auto")
    (4, 0)
    """
    if text == "auto":
        return 0
    if not re.fullmatch(r"[1-9]\d{0,3}", str(text)):
        raise UsageError(f"workers {text}: write a number from 1, or auto.")
    return int(text)


def parted(text: str) -> list[str]:
    """The spellings of a list of tricks; commas inside brackets are the tricks' own.

    >>> parted("mixup(alpha=0.4), one_of(mixup, cutmix)")
    ['mixup(alpha=0.4)', 'one_of(mixup, cutmix)']
    """
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def several(given: Any) -> TypeGuard[Iterable[Any]]:
    """Whether this is a list of things: a text is one thing, and so are bytes, and a trick, though it gives its fields."""
    return isinstance(given, Iterable) and not isinstance(given, str | bytes | BaseModel) and getattr(given, "ndim", 1) > 0


def spellings(given: Any) -> list[str]:
    """The spellings of tricks: of a text, of a trick itself, or of a list of both.

    >>> spellings("mixup, ema"), spellings(["mixup(alpha=0.4)", "ema"]), spellings(())
    (['mixup', 'ema'], ['mixup(alpha=0.4)', 'ema'], [])
    """
    if isinstance(given, str):
        return parted(given)
    if several(given):
        return [text for one in given for text in spellings(one)]
    return [str(given)]


def names(given: Any) -> list[str]:
    """The names of tricks that ``spellings`` spells.

    >>> names("mixup(alpha=0.4), ema")
    ['mixup', 'ema']
    """
    return [text.partition("(")[0].strip() for text in spellings(given)]


def varied(given: Mapping[str, Any] | Iterable[str] | str) -> dict[str, list[Any]]:
    """FIELD=V1,V2 texts, or a mapping from fields to values, as a dict.

    >>> varied(["batch_size=16,64", "precision=fp32"]), varied({"lr": [0.1, 0.2]})
    ({'batch_size': [16, 64], 'precision': ['fp32']}, {'lr': [0.1, 0.2]})
    """
    if isinstance(given, Mapping):
        return {name: list(values) if isinstance(values, list | tuple) else [values] for name, values in given.items()}
    found: dict[str, list[Any]] = {}
    for text in _texts("vary", given, "FIELD=VALUE,VALUE"):
        name, equals, values = text.partition("=")
        if not equals or not parted(values):
            raise UsageError(f"vary {brief(text)}: write FIELD=VALUE,VALUE.")
        found[name.strip()] = [assignments([f"x={value}"])["x"] for value in parted(values)]
    return found


def assignments(given: Mapping[str, Any] | Iterable[str] | str) -> dict[str, Any]:
    """FIELD=VALUE texts, or a mapping, as a dict; values in texts as in TOML, other text as it stands.

    >>> assignments(["epochs=3", "mixup.alpha=0.4", "model=resnet18", "mean=[0.5]"])
    {'epochs': 3, 'mixup.alpha': 0.4, 'model': 'resnet18', 'mean': [0.5]}
    >>> assignments("epochs=3"), assignments({"epochs": 3})
    ({'epochs': 3}, {'epochs': 3})
    """
    if isinstance(given, Mapping):
        return dict(given)
    fields: dict[str, Any] = {}
    for text in _texts("set", given, "FIELD=VALUE"):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"set {brief(text)}: write FIELD=VALUE.")
        if name in fields:
            raise UsageError(f"set {brief(name)} was given twice.")
        try:
            (fields[name.strip()],) = toml.parse(f"x = {value}").values()
        except tomllib.TOMLDecodeError:
            fields[name.strip()] = value.strip()
        except ValueError as error:
            raise UsageError(f"set {brief(text)}: {error}.") from None
    return fields


def _texts(option: str, given: Any, form: str) -> list[str]:
    """The texts that were given for an option: one, or a list of them."""
    texts = list(given) if several(given) else [given]
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"{option} {brief(str(text))}: write {form}.")
    return texts
