"""The names of classes that are numbers in label files: ``data.yaml``, ``classes.json`` or ``classes.txt``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trickbag.data.listing import Listing
from trickbag.ground import files
from trickbag.scenes.table import Fault

VOID = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "ignore_label", "unlabelled area"}
"""Names, in lower case, that say that a region has no class."""
MOST = 1_000_000
"""Numbers that a class may have."""
FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.json", "classes.txt", "obj.names", "labels.txt")
"""Files with names, the one first that counts where there are several."""


def file_of(listing: Listing) -> str:
    """The file of names that lies nearest to the top of the folder; "" for none."""
    there = [path for path, _ in listing.ignored if path.rpartition("/")[2].lower() in FILES]
    there += [path for path in listing.files if path.rpartition("/")[2].lower() in FILES]
    return min(there, key=lambda path: (path.count("/"), FILES.index(path.rpartition("/")[2].lower()), path), default="")


def read(root: Path, listing: Listing, faults: list[Fault]) -> dict[int, str]:
    """Number -> name; nothing where there is no file of names, or none that can be read, which is a fault."""
    name = file_of(listing)
    if not name:
        return {}
    try:
        text = files.text(root / name)
        found = parsed(text, name)
    except OSError as error:
        faults.append(Fault("names", name, files.reason(error)))
    except ValueError as error:
        faults.append(Fault("names", name, str(error)))
    else:
        return found
    return {}


def parsed(text: str, name: str) -> dict[int, str]:
    """The names in a text: a list in YAML or JSON, a table number -> name (or name -> number), or a line for each from 0.

    Raises ValueError with a sentence.

    >>> parsed("names: {0: cat, 2: dog}", "data.yaml"), parsed('{"cat": 1}', "classes.json"), parsed("cat", "classes.txt")
    ({0: 'cat', 2: 'dog'}, {1: 'cat'}, {0: 'cat'})
    """
    if name.endswith((".yaml", ".yml")):
        return numbered(tabled(text).get("names"))
    if name.endswith(".json"):
        try:
            return numbered(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    return numbered(lines)


def tabled(text: str) -> dict[str, Any]:
    """The table in a YAML file. Raises ValueError with the line where it is none."""
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{error.problem or 'no YAML'}") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())[:100]}") from None
    if not isinstance(found, dict):
        raise ValueError("it is no table of fields")
    return found


def numbered(given: Any) -> dict[int, str]:
    """Number -> name of a list, or of a table in either direction. Raises ValueError where it is none, or has a name twice."""
    if isinstance(given, list):
        pairs = list(enumerate(given))
    elif isinstance(given, Mapping):
        pairs = [(key, value) if _number(key) is not None else (value, key) for key, value in given.items()]
    else:
        raise ValueError("it has no list of names")
    found: dict[int, str] = {}
    for key, value in pairs:
        number = _number(key)
        if number is None or not isinstance(value, str | int | float) or not str(value).strip():
            raise ValueError(f"name {len(found)} is no text, or has no number")
        found[number] = str(value).strip()
    if len(set(found.values())) < len(found):
        raise ValueError("it has a name twice")
    return found


def _number(key: Any) -> int | None:
    """A whole number from 0 on, or the text of one."""
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < MOST:
        return key
    return int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 7 else None
