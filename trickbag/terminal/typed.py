"""What is typed on the command line, as values."""

import re
import tomllib
from typing import Any

from trickbag.ground import toml
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, clipped

MOST_SECONDS = 1e9
"""Thirty years."""


def seconds(text: str) -> float:
    """A time as seconds; 0 for an empty text.

    >>> seconds("10m"), seconds("1.5h"), seconds("")
    (600.0, 5400.0, 0.0)
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    found = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < found < MOST_SECONDS:
        raise UsageError(f"--budget {clipped(text)}: write a time above 0, for example 90s, 10m or 2h.")
    return found


def processes(text: str) -> int:
    """A number of processes; 0 for ``auto``.

    >>> processes("4"), processes("auto")
    (4, 0)
    """
    if text == "auto":
        return 0
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise UsageError(f"--workers {text}: write a number from 1, or auto.")
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


def varied(texts: list[str]) -> dict[str, list[Any]]:
    """FIELD=V1,V2 texts as a dict.

    >>> varied(["batch_size=16,64", "precision=fp32"])
    {'batch_size': [16, 64], 'precision': ['fp32']}
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not parted(values):
            raise UsageError(f"--vary {brief(text)}: write FIELD=VALUE,VALUE.")
        found[name.strip()] = [assignments([f"x={value}"])["x"] for value in parted(values)]
    return found


def assignments(texts: list[str]) -> dict[str, Any]:
    """FIELD=VALUE texts as a dict; values as in TOML, other text as it stands.

    >>> assignments(["epochs=3", "mixup.alpha=0.4", "model=resnet18", "mean=[0.5]"])
    {'epochs': 3, 'mixup.alpha': 0.4, 'model': 'resnet18', 'mean': [0.5]}
    """
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {brief(text)}: write FIELD=VALUE.")
        if name in fields:
            raise UsageError(f"--set {brief(name)} was given twice.")
        try:
            (fields[name.strip()],) = toml.parse(f"x = {value}").values()
        except tomllib.TOMLDecodeError:
            fields[name.strip()] = value.strip()
        except ValueError as error:
            raise UsageError(f"--set {brief(text)}: {error}.") from None
    return fields
