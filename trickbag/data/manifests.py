"""Manifests: the rows of a CSV or Parquet file, checked, with their paths found."""

import math
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from trickbag.data.columns import BOX, check_labels, columns, is_known, may_group, remarks
from trickbag.data.images import NOWHERE, Box, Remark, Rows
from trickbag.data.listing import IMAGE_SUFFIXES, SPLITS, is_system
from trickbag.data.sheets import PARQUET_SUFFIXES, Sheet, opened, western
from trickbag.ground.errors import UsageError

SUFFIXES = (".csv", ".tsv", *PARQUET_SUFFIXES)
OTHER_TABLES = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers", ".json", ".jsonl")
"""Tables that other programs write and that are not read."""
SLACK = 0.5
"""Pixels by which a box may reach past its image: it is cut at whole pixels."""
_TRIED = 50
"""Rows that must be found before all are taken to lie where the first one does."""
_MOST_FOLDERS = 1000
_SHOWN = 200
"""Characters of a cell that an error repeats."""


def read_manifest(path: Path) -> Rows:
    """The rows of a CSV or Parquet file with the columns path, label and, if wanted, split, group and a box.

    Raises UsageError with the line (CSV) or row (Parquet, from 1) where a column is missing, a split is unknown, a path or
    label is empty, a path stands twice, or a box is wrong; and where labels are no classes.
    """
    sheet = opened(path, is_known)
    found = columns(sheet)
    apart = [i for i in found.unused if may_group(sheet.header[i])]
    used = [i for i in found.places if i is not None]
    values: dict[int, set[str]] = {i: set() for i in apart}
    rows, places, known, boxes = Rows([], [], [], []), list[int](), {**SPLITS, "": ""}, list[Box]()
    same = dict[str, str]()  # one string object per label, not one per row
    for place, cells in sheet.rows([*used, *apart]):
        for i, cell in zip(apart, cells[len(used) :], strict=True):
            values[i].add(cell)
        given = iter(cells)
        name, label, split, group, *edges = ("" if i is None else next(given) for i in found.places)
        where = f"{path.name}, {sheet.unit} {place}"
        name, label, split = name.removeprefix("./"), western(label.strip()), split.strip().lower()
        if not name.strip() or "\0" in name:
            raise UsageError(f"{where}: the path {name[:_SHOWN]!r} names no file. Write the path of an image.")
        if not label or "\0" in label:
            raise UsageError(f"{where}: {name[:_SHOWN]!r} has the label {label[:_SHOWN]!r}. Write the name of its class.")
        if split not in known:
            raise UsageError(f"{where}: there is no split {split[:_SHOWN]!r}. Write train, val or test, or leave it empty.")
        for column, value in zip(rows[:4], (name, same.setdefault(label, label), known[split], group.strip()), strict=True):
            column.append(value)
        places.append(place)
        boxes.append(_box(edges, where))
    check_labels(path.name, rows.labels)
    paths, told = _located(path, rows.paths)
    _check_repeated(sheet, paths, places)
    said = [*remarks(sheet, found, values, len(paths)), *told]
    return rows._replace(paths=paths, boxes=() if all(box is NOWHERE for box in boxes) else boxes, remarks=said)


def _check_repeated(sheet: Sheet, paths: Sequence[str], places: Sequence[int]) -> None:
    lines = dict[str, int]()
    for name, place in zip(paths, places, strict=True):
        if (first := lines.setdefault(name, place)) != place:
            where = f"{sheet.name}, {sheet.unit} {place}"
            raise UsageError(f"{where}: {name[:_SHOWN]!r} is already in {sheet.unit} {first}. Remove one of them.")


def _located(manifest: Path, paths: list[str]) -> tuple[list[str], list[Remark]]:
    """The paths as the files are called: other spellings of a path are tried where it leads nowhere."""
    root, told = manifest.parent, list[Remark]()
    first = next((name for name in paths if "\\" in name), "")
    if first and not _is_there(root, first):
        paths = [name.replace("\\", "/").removeprefix("./") for name in paths]
        told.append(Remark(f"{manifest.name}: the backslashes in its paths, as in {first!r}, are read as slashes."))
    paths = [name if name.isascii() and name == name.strip() else _spelled(root, name) for name in paths]
    if not paths or _is_there(root, paths[0]):
        return paths, told
    step = max(1, len(paths) // _TRIED)
    found = [
        (folder, ending)
        for folder, ending in _elsewhere(root, paths[0])
        if all(_is_there(root, folder + name + ending) for name in paths[::step])
    ]
    if len(found) > 1:
        hits = " and ".join(repr(folder + paths[0] + ending) for folder, ending in found[:2])
        raise UsageError(
            f"{manifest.name}: {paths[0]!r} may be {hits}. Write the paths as they are, from the manifest's folder."
        )
    for folder, ending in found:
        told.append(Remark(f"{manifest.name}: {paths[0]!r} is found as {folder + paths[0] + ending!r}, and so are the others."))
        paths = [folder + name + ending for name in paths]
    return paths, told


def _elsewhere(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """The folders beside the manifest, and the endings, with which a path leads to a file."""
    try:
        inside = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_system(entry.name))
    except OSError:
        return
    folders = ["", *(f"{folder}/" for folder in inside[:_MOST_FOLDERS])] if not name.startswith("/") else [""]
    for folder, ending in product(folders, ("", *sorted({*IMAGE_SUFFIXES, ".npy", ".JPG", ".JPEG", ".PNG"}))):
        if _is_there(root, folder + name + ending):
            yield folder, ending


def _spelled(root: Path, name: str) -> str:
    """A path without spaces around it, or with its bytes read as Windows writes them, where only that leads to a file."""
    if _is_there(root, name):
        return name
    return next((other for other in (name.strip(), western(name), western(name.strip())) if _is_there(root, other)), name)


def _is_there(root: Path, name: str) -> bool:
    return os.path.isfile(root / name)


def _box(edges: Sequence[str], where: str) -> Box:
    """Left, top, right and bottom as four cells tell them; NOWHERE where all are empty."""
    if not any(map(str.strip, edges)):
        return NOWHERE
    said = ", ".join(f"{name} {cell[:_SHOWN]!r}" for name, cell in zip(BOX, edges, strict=True))
    try:
        box = tuple(map(float, edges))
    except ValueError:
        box = NOWHERE
    if not all(map(math.isfinite, box)):
        raise UsageError(f"{where}: the box has {said}. Write four numbers of pixels, or leave all four empty.")
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise UsageError(f"{where}: the box is empty: {said}. Right must exceed left, and bottom top, in pixels.")
    if min(left, top) < -SLACK:
        raise UsageError(f"{where}: the box begins outside the image: {said}. Its left and upper edges are 0.")
    return box
