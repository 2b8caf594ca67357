"""TOML as users write it: what the format allows and no recipe needs is refused before it takes memory or time."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

MOST_PARTS = 100
"""Of a dotted key; the parser's memory grows with their square."""
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}\.[ \t]*){{{MOST_PARTS}}}")


def parse(text: str) -> dict[str, Any]:
    """The tables of a text. Raises ValueError with a sentence; TOMLDecodeError, which is one, where it is no TOML at all.

    Whole numbers have 64 bits, as the format has them.

    >>> parse("x = 9223372036854775808")
    Traceback (most recent call last):
    ValueError: a whole number is larger than 64 bits
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {MOST_PARTS} parts")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("values are nested too deeply") from None
    except ValueError:  # Python reads no more than 4,300 digits, and no date such as February 30
        raise ValueError("a number or date is out of range") from None
    if any(not -(1 << 63) <= number < 1 << 63 for number in _whole(found)):
        raise ValueError("a whole number is larger than 64 bits")
    return found


def _whole(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _whole(part)
