"""Corrections of labels: a CSV file that says, image by image, which class is right, applied to the table of a data set."""

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trickbag.data.findings import some
from trickbag.data.images import Correction, Images, Remark
from trickbag.data.listing import DROPPED, Ignored
from trickbag.data.sheets import opened
from trickbag.data.splits import Ints
from trickbag.ground import files
from trickbag.ground.errors import UsageError
from trickbag.ground.text import brief, show

COLUMNS = ("path", "old", "new")
DROP = ("", "drop")
"""What stands in place of a new class where an image is to be left out."""
WRITE = "Write the columns path,old,new: an image as the data set has it, its class, and the right class, or drop."
_MOST_COMPARED = 20_000
"""Names among which one that is spelled alike is looked for."""


class Line(NamedTuple):
    """A row of the file."""

    where: str
    path: str
    old: str
    new: str


def corrected(images: Images, file: str | Path) -> Images:
    """The table with the corrections of a file: labels changed, images to be dropped left out; the class map stays.

    A later line may correct what an earlier one made of an image, so that two files can be put one after the other.
    Raises UsageError, with the line, where the file cannot be read or is no such table, names an image or a class that the
    table does not have, an image twice, or a class that the image does not have.
    """
    path = Path(file).expanduser()
    labels = _relabelled(images, path)
    dropped = labels < 0
    if dropped.all():
        raise UsageError(f"{path.name} drops every image of the data set. Keep some.")
    digest, changed = hashlib.sha256(path.read_bytes()).hexdigest(), int(((labels != images.labels) & ~dropped).sum())
    made = Correction(path.name, digest, changed, int(dropped.sum()))
    gone = [Ignored(images.paths[row], DROPPED) for row in np.flatnonzero(dropped)]
    return replace(
        replace(images, labels=labels).take(~dropped),
        ignored=(*images.ignored, *gone),
        remarks=(*images.remarks, Remark(f"Corrections of {made}.")),
        correction=made,
    )


def _relabelled(images: Images, path: Path) -> Ints:
    """The labels [N] with those of a file, -1 where an image is dropped."""
    paths, classes = _Names(images.paths), _Names(images.classes)
    labels, lines = images.labels.copy(), dict[int, Line]()
    for line in _lines(path):
        row, old, new = paths.place(line.path), classes.place(line.old), classes.place(line.new)
        if row is None:
            raise UsageError(f"{line.where}: the data set has no image {brief(line.path)}{paths.near(line.path)}. {WRITE}")
        if row in lines and old != labels[row]:
            raise UsageError(f"{line.where}: {brief(line.path)} is already in {lines[row].where}. Remove one of them.")
        if old != labels[row]:
            raise UsageError(
                f"{line.where}: {brief(line.path)} is of the class {brief(images.classes[labels[row]])} in the data set, not "
                f"{brief(line.old)}. The file was made for other labels: remove the line, or write the class that it has."
            )
        if new is None and line.new.strip() not in DROP:
            known = some([show(name) for name in images.classes], 10)
            raise UsageError(
                f"{line.where}: the data set has no class {brief(line.new)}{classes.near(line.new)}. It has: {known}. To leave "
                "the image out, write drop."
            )
        lines[row], labels[row] = line, -1 if new is None else new
    if not lines:
        raise UsageError(f"{path.name} corrects nothing: it has no line below its columns. {WRITE}")
    return labels


def _lines(path: Path) -> Iterator[Line]:
    try:
        files.regular(path).close()
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else files.reason(error)
        raise UsageError(f"corrections {brief(str(path))}: {why}. Give the CSV file that the page of review saved.") from None
    sheet = opened(path, COLUMNS.__contains__)
    header = [name.lower() for name in sheet.header]
    if any(header.count(name) != 1 for name in COLUMNS):
        there = ", ".join(brief(name, 40) for name in sheet.header[:10]) or "nothing"
        raise UsageError(f"{path.name}, line 1: the columns are {there}. {WRITE}")
    for place, cells in sheet.rows([header.index(name) for name in COLUMNS]):
        line = Line(f"{sheet.name}, {sheet.unit} {place}", *cells)
        if any("\udc80" <= sign <= "\udcff" for cell in cells for sign in cell):
            raise UsageError(f"{line.where}: this is not UTF-8. Save the file as CSV in UTF-8.")
        if cells != list(COLUMNS):  # of another file, put below the first
            yield line


class _Names:
    """The places of names, as they are or as pages and lists show them, which spell out what is no text."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.places = {show(name): place for place, name in enumerate(names)}
        self.places |= {name: place for place, name in enumerate(names)}

    def place(self, name: str) -> int | None:
        """Of a name, also of one with spaces around it or ./ before it; None where there is none."""
        return next(
            (self.places[own] for own in (name, name.strip(), name.strip().removeprefix("./")) if own in self.places), None
        )

    def near(self, name: str) -> str:
        """Which name may be meant: that of the same file elsewhere, or one that is spelled alike."""
        file = name.rpartition("/")[2]
        same = [own for own in self.names if own.rpartition("/")[2] == file]
        near = difflib.get_close_matches(name, (same or self.names)[:_MOST_COMPARED], n=1, cutoff=0.0 if same else 0.6)
        return f" (there is {brief(show(near[0]))})" if near else ""
