"""Sentences that name options of the command line, as Python code reads them: with its parameters and their values."""

import re
from collections.abc import Collection
from typing import ClassVar

OTHERS = {"plugin": "plugins", "with": "with_", "set": "set_", "map": "map_"}
"""Parameters that are not called as their options."""
WORDS = "onnx|torch|timm|none|hub|val|test|skip|error|add-one|detection|segmentation"
"""Values that are no words of a sentence."""
_SPOKEN = re.compile(
    r"(?P<command>trickbag [a-z]+.*?(?=[.,;)] |[.;)]*$))"  # to be typed into a terminal, from Python too
    r"|--(?P<without>no-)?(?P<option>[a-z][a-z0-9-]*)"
    rf"(?: (?P<value>'[^']*'|\"[^\"]*\"|\d[\d.]*\b|[A-Z][A-Z/]+\b|(?:{WORDS})\b|[^\s;,]*[./=…][^\s;,)]*[^\s;,:).]))?"
    r"(?: (?P<name>(?<=--with )\w+|(?<=--without )\w+))?"
)


class Reader:
    """Who reads the errors."""

    typed: ClassVar[bool] = False
    """Whether it is a person who typed a command, and so knows options; else Python code has asked, which knows parameters."""


def in_python(sentence: str, parameters: Collection[str]) -> str:
    """A sentence with parameters in place of options; commands, and options that no parameter stands for, stay.

    >>> in_python("a.b: the recipe has no trick a. Add it with --with a, or leave --out out.", {"with_", "out"})
    'a.b: the recipe has no trick a. Add it with with_="a", or leave out out.'
    >>> in_python("Add --set lr=0.1, or write trickbag check photos --depth 1.", {"set_", "depth"})
    'Add set_="lr=0.1", or write trickbag check photos --depth 1.'
    """

    def spoken(found: re.Match[str]) -> str:
        option = (found["option"] or "").replace("-", "_")
        name = OTHERS.get(option, option)
        if name not in parameters:
            return found[0]
        if found["without"]:
            return f"{name}=False"
        value = found["value"] or found["name"]
        plain = not value or value[0] in "'\"" or value.isupper() or value.replace(".", "").isdigit()
        return name + (f"={value if plain else chr(34) + value + chr(34)}" if value else "")

    return _SPOKEN.sub(spoken, sentence)
