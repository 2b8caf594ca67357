"""What the columns of a manifest mean: by their names, by usual other names, or that they are no classes at all."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import NamedTuple

from trickbag.data.images import Remark
from trickbag.data.sheets import Sheet
from trickbag.ground.errors import UsageError

BOX = ("left", "top", "right", "bottom")
COLUMNS = ("path", "label", "split", "group", *BOX)
HEADER = "path,label[,split][,group][,left,top,right,bottom]"
ALIASES: dict[str, tuple[str, ...]] = {
    "path": (
        *(
            "file",
            "filename",
            "filepath",
            "image",
            "imagename",
            "imagepath",
            "imagefile",
            "imageid",
            "img",
            "imgname",
            "imgpath",
        ),
        *("relativepath", "photo", "picture"),
    ),
    "label": ("class", "classname", "classid", "labelname", "labelid", "target", "category", "categoryname"),
    "split": ("subset", "partition"),
    "group": ("groupid",),
}
"""Other names of columns, in small letters and digits alone."""
_GROUPS = re.compile(
    "patient|subject|person|participant|user|author|individual|animal|lesion|slide|session|video|clip|sequence|track|scene|site|"
    "location|camera|device|burst|series|plot|plant|tree|specimen|sample|case|object|batch|id$"
)
_INDEX = re.compile("(unnamed.*|index)?")
_MOST_ROWS, _MOST_NAMED = 10_000, 8
_FEW, _MOST_VALUES = 8, 20
"""Rows below which numbers are taken for names, and different numbers up to which they may be classes with a fraction."""


class Columns(NamedTuple):
    """Where things stand in a table."""

    places: list[int | None]
    """Of each of COLUMNS; None where an optional one is missing."""
    unused: list[int]
    renamed: list[tuple[str, str]]
    """What a column is called, and what it is read as."""


def is_known(name: str) -> bool:
    """Whether a column has a name that a manifest may have.

    >>> is_known("File_Name"), is_known("LABEL"), is_known("weight")
    (True, True, False)
    """
    return name.lower() in COLUMNS or any(_letters(name) in names for names in ALIASES.values())


def columns(sheet: Sheet) -> Columns:
    """Where each column stands. Raises UsageError where one that is needed is missing, or stands there twice."""
    header, places = [name.lower() for name in sheet.header], list[int | None]()
    renamed: list[tuple[str, str]] = []
    needed = {"path", "label", *(BOX if set(BOX) & set(header) else ())}
    for name in COLUMNS:
        found = [i for i, own in enumerate(header) if own == name]
        if not found:
            found = [i for i, own in enumerate(header) if _letters(own) in ALIASES.get(name, ())]
            renamed += [(sheet.header[i], name) for i in found]
        if name == "label" and not found:
            _refuse_one_hot(sheet, {i for i in places if i is not None})
        if len(found) > 1 or (name in needed and not found):
            there = ", ".join(repr(own[:40]) for own in sheet.header[:_MOST_NAMED])
            more = f" and {len(header) - _MOST_NAMED} more" if len(header) > _MOST_NAMED else ""
            which = f" (it may be {' or '.join(repr(sheet.header[i][:40]) for i in found[:3])})" if len(found) > 1 else ""
            raise UsageError(f"{sheet.name}, line 1: one column {name} is needed{which} in {there}{more}. Write {HEADER}.")
        places.append(found[0] if found else None)
    unused = [i for i, own in enumerate(header) if i not in places and not _INDEX.fullmatch(own)]
    return Columns(places, unused, renamed)


def may_group(name: str) -> bool:
    """Whether a column's name says that images belong together.

    >>> may_group("Patient ID"), may_group("camera"), may_group("age")
    (True, True, False)
    """
    return bool(_GROUPS.search(_letters(name)))


def remarks(sheet: Sheet, found: Columns, values: dict[int, set[str]], rows: int) -> list[Remark]:
    """What to say of renamed and unused columns; ``values`` are those of unused columns that may be groups."""
    said = [Remark(f"{sheet.name}: the column {name!r} is read as {meaning}.") for name, meaning in found.renamed]
    if found.unused:
        names = [repr(sheet.header[i]) for i in found.unused]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        message = f"{sheet.name}: not used: the column{'s'[: len(names) > 1]} {', '.join(names[:_MOST_NAMED])}{more}."
        groups = [(sheet.header[i], len(own)) for i, own in values.items() if found.places[3] is None and 1 < len(own) < rows]
        hint = [
            f"{name!r} has {count:,} values for {rows:,} images. If images with one value belong together, as photos of one "
            "patient do, name the column group: they then stay in one split."
            for name, count in groups[:1]
        ]
        said.append(Remark(message, " ".join(hint), warning=True))
    return said


def check_labels(name: str, labels: Sequence[str]) -> None:
    """Raise UsageError where the labels are lists of classes, or numbers that were measured."""
    counts = Counter(labels)
    listed = next((label for label in counts if re.fullmatch(r"\[.*,.*\]", label, re.DOTALL)), "")
    if several := listed or _several(counts):
        raise UsageError(
            f"{name}: the label {several[:200]!r} names several classes. trickbag gives each image one class and does not "
            "train for several at once: write the one that counts, or one manifest for each question."
        )
    numbers = _numbers(counts)
    alone = 2 * len(numbers) > len(labels)
    if any(not number.is_integer() for number in numbers):
        measured = len(labels) >= _FEW and (alone or len(numbers) > _MOST_VALUES)
    else:
        measured = len(labels) > _MOST_VALUES and alone
    if measured:
        first = ", ".join(repr(label[:40]) for label in islice(counts, 3))
        raise UsageError(
            f"{name}: the labels are numbers that were measured, as {first}: {len(counts):,} values for {len(labels):,} images."
            " trickbag sorts images into classes and predicts no numbers: write classes, as low and high."
        )


def _several(counts: Iterable[str]) -> str:
    """A label that joins others: its parts are labels too, and all parts are fewer than what they are joined to."""
    labels = set(counts)
    for sign in "|;,":
        joined = [label for label in labels if sign in label]
        parts = {part.strip() for label in labels for part in label.split(sign)}
        if (
            joined
            and len(parts) < len(labels)
            and any(part.strip() in labels for part in chain(*(j.split(sign) for j in joined)))
        ):
            return min(joined)
    return ""


def _numbers(labels: Iterable[str]) -> list[float]:
    """The labels as numbers; none where one is no number."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return []
    return [number for number in numbers if abs(number) < float("inf")]


def _refuse_one_hot(sheet: Sheet, known: set[int]) -> None:
    others = [i for i, name in enumerate(sheet.header) if i not in known and not is_known(name) and not _INDEX.fullmatch(name)]
    if len(others) < 2:
        return
    most, rows = 0, 0
    for _, cells in islice(sheet.rows(others), _MOST_ROWS):
        values = [cell.strip().lower() for cell in cells]
        if not {*values} <= {"0", "1", "0.0", "1.0", "", "true", "false", "-1", "-1.0"}:
            return
        most, rows = max(most, sum(value in ("1", "1.0", "true") for value in values)), rows + 1
    if rows:
        several = " Some images have several, which trickbag does not train for." if most > 1 else ""
        names = ", ".join(repr(sheet.header[i]) for i in others[:3])
        raise UsageError(
            f"{sheet.name} has a column of 0 and 1 for each class ({names}{', …' if len(others) > 3 else ''}).{several} Write "
            "the name of each image's one class into a column label, and its file into a column path."
        )


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
