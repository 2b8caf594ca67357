"""Manifests: the rows of a CSV or Parquet file."""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trickbag.data.images import NOWHERE, Box, Rows
from trickbag.data.listing import SPLITS, suffix
from trickbag.ground.errors import UsageError

PARQUET_SUFFIXES = (".parquet", ".pq")
BOX = ("left", "top", "right", "bottom")
COLUMNS = ("path", "label", "split", "group", *BOX)
HEADER = "path,label[,split][,group][,left,top,right,bottom]"
SLACK = 0.5
"""Pixels by which a box may reach past its image: it is cut at whole pixels."""


def read_manifest(path: Path) -> Rows:
    """The rows of a CSV or Parquet file with the columns path, label and, if wanted, split, group and a box.

    Raises UsageError with the line (CSV) or row (Parquet, from 1) where a column is missing, a split is unknown, a path or
    label is empty, a path stands twice, or a box is wrong.
    """
    parquet = suffix(path.name) in PARQUET_SUFFIXES
    rows, places, known, boxes = Rows([], [], [], []), dict[str, int](), {**SPLITS, "": ""}, list[Box]()
    same = dict[str, str]()  # one string object per label, not one per row
    for place, (name, label, split, group, *edges) in (_parquet_rows if parquet else _csv_rows)(path):
        where = f"{path.name}, {'row' if parquet else 'line'} {place}"
        name, label, split = name.removeprefix("./"), label.strip(), split.strip().lower()
        if not name or "\0" in name:
            raise UsageError(f"{where}: the path {name!r} names no file. Write the path of an image.")
        if not label or "\0" in label:
            raise UsageError(f"{where}: {name!r} has the label {label!r}. Write the name of its class.")
        if split not in known:
            raise UsageError(f"{where}: there is no split {split!r}. Write train, val or test, or leave it empty.")
        if (first := places.setdefault(name, place)) != place:
            raise UsageError(f"{where}: {name!r} stands in {'row' if parquet else 'line'} {first} already. Remove one of them.")
        for column, value in zip(rows[:4], (name, same.setdefault(label, label), known[split], group.strip()), strict=True):
            column.append(value)
        boxes.append(_box(edges, where))
    return rows if all(box is NOWHERE for box in boxes) else rows._replace(boxes=boxes)


def _box(edges: Sequence[str], where: str) -> Box:
    """Left, top, right and bottom as four cells tell them; NOWHERE where all are empty."""
    if not any(map(str.strip, edges)):
        return NOWHERE
    said = ", ".join(f"{name} {cell!r}" for name, cell in zip(BOX, edges, strict=True))
    try:
        box = tuple(map(float, edges))
    except ValueError:
        box = NOWHERE
    if not all(map(math.isfinite, box)):
        raise UsageError(f"{where}: the box has {said}. Write four numbers of pixels, or leave all four empty.")
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise UsageError(f"{where}: the box holds nothing: {said}. Write right above left and bottom above top, in pixels.")
    if min(left, top) < -SLACK:
        raise UsageError(f"{where}: the box begins outside of the image: {said}. Count pixels from its left and upper edge, 0.")
    return box


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        line = 1
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            columns = _columns(path, header)
            while True:
                line = reader.line_num + 1
                row = next(reader, None)
                if row is None:
                    return
                if row and len(row) != len(header):
                    raise UsageError(f"{path.name}, line {line}: {len(row)} fields, not {len(header)}. Quote commas in names.")
                if row:
                    yield line, ["" if i is None else row[i] for i in columns]
        except csv.Error as error:
            raise UsageError(f"{path.name}, line {line}: this is no CSV ({error}). Write {HEADER}.") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    from pyarrow import ArrowException, parquet

    place = 0
    try:
        with parquet.ParquetFile(path) as file:
            header = [name.strip().lower() for name in file.schema_arrow.names]
            columns = _columns(path, header)
            wanted = [None if i is None else file.schema_arrow.names[i] for i in columns]
            for batch in file.iter_batches(columns=[name for name in wanted if name is not None]):
                lists = [[""] * len(batch) if name is None else map(_text, batch.column(name).to_pylist()) for name in wanted]
                for row in zip(*lists, strict=True):
                    place += 1
                    yield place, list(row)
    except (ArrowException, OSError) as error:
        raise UsageError(f"{path.name} is no Parquet file that can be read ({error}). Write it again.") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return "" if value is None else str(value)


def _columns(path: Path, header: list[str]) -> list[int | None]:
    """The place of each of COLUMNS in the header, None where an optional one is missing; a box is whole or not there."""
    needed = ("path", "label", *(BOX if set(BOX) & set(header) else ()))
    for name in COLUMNS:
        if header.count(name) > 1 or (name in needed and name not in header):
            there = ", ".join(map(repr, header))
            raise UsageError(f"{path.name}, line 1: one column {name} is needed in {there}. Write {HEADER}.")
    return [header.index(name) if name in header else None for name in COLUMNS]
