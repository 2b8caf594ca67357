"""Runs' folders as runs to compare: which of them are one method, and what they say of each image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trickbag.comparison.results import Results, Run
from trickbag.ground import records, store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.text import brief, clipped, show
from trickbag.models.card import Card, check_trained
from trickbag.runs.folder import (
    AGAIN,
    ASKED,
    COLUMNS,
    FINISHED,
    IMAGES,
    PREDICTIONS,
    RESULT,
    UNREADABLE,
    Asked,
    RunRecord,
    Table,
    kept_table,
    predictions,
)
from trickbag.statistics.calibration import normalised
from trickbag.statistics.variance import Ints

REFERENCE = "reference"
APART = ("seed", "set by you")
"""What differs between runs of one method."""


class Read(NamedTuple):
    """The folder of a finished run."""

    folder: Path
    record: RunRecord
    classes: list[str]
    asked: dict[str, Any]
    """All that makes the method."""
    table: Table


def read(folders: Sequence[Path], networks: bool) -> Results:
    """The runs in some folders, by method, or each on its own as one of ``networks``.

    Runs are of one method where all that was asked for agrees, but the seed, and so do their images, whatever the split. The
    first folder's method is the reference. Raises UsageError or TrickbagError for what is no finished run.
    """
    found = [_read(folder) for folder in folders]
    names = [_shown(one.folder) for one in found] if networks else _named(found)
    if again := next((n for n in range(len(found)) if (names[n], found[n].record.seed) in _keys(names[:n], found)), None):
        first = _keys(names[:again], found).index((names[again], found[again].record.seed))
        raise UsageError(
            f"{folders[first]} and {folders[again]} are one run: the same recipe on the same images with seed "
            f"{found[again].record.seed}. Give runs that differ in the recipe or in the seed."
        )
    split = "test" if all(one.record.test for one in found) else "val"
    classes = tuple(found[0].classes)
    places: dict[tuple[str, str], int] = {}
    labels: list[int] = []
    runs = [_run(one, name, split, classes, places, labels) for one, name in zip(found, names, strict=True)]
    groups = _groups(found, list(places))
    flatters = "Judged on the validation images, which chose the epoch of each run: both sides look better than they are."
    return Results(
        tuple(runs),
        [path for path, _ in places],
        groups,
        np.array(labels, np.int64),
        classes,
        f"the {'test' if split == 'test' else 'validation'} images of the runs",
        None,
        () if split == "test" else (flatters,),
    )


def _shown(folder: Path) -> str:
    return show(folder.as_posix())


def _keys(names: Sequence[str], found: Sequence[Read]) -> list[tuple[str, int]]:
    return [(name, one.record.seed) for name, one in zip(names, found, strict=False)]


def _read(folder: Path) -> Read:
    if (folder / "study.json").is_file():
        raise UsageError(f"{folder} is a study, which compares its arms itself: trickbag report {folder}.")
    if not (folder / RESULT).is_file():
        raise UsageError(
            f"{folder} holds no finished run: there is no {RESULT}. Train it to its end, or end it by trickbag finish."
        )
    check_trained(folder)
    if reason := store.verify(folder, *FINISHED, ASKED, IMAGES):
        raise TrickbagError(f"{folder} is damaged: {reason}. {AGAIN}")
    asked = records.read(folder / ASKED, Asked, AGAIN).plain()
    try:
        table = kept_table(folder)
    except UNREADABLE as error:
        raise TrickbagError(f"{folder / IMAGES} is damaged: {error}. {AGAIN}") from None
    return Read(folder, RunRecord.load(folder), Card.load(folder).classes, _method(asked), table)


def _method(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in APART}


def _named(found: Sequence[Read]) -> list[str]:
    """The method of each run: the reference, or how it differs from that."""
    keys = [json.dumps([one.asked, sorted((path, row[0], row[2]) for path, row in one.table.items())]) for one in found]
    spelled = {key: _difference(found[0], one) for key, one in reversed([*zip(keys, found, strict=True)])}
    spelled[keys[0]] = REFERENCE
    return [spelled[key] for key in keys]


def _difference(reference: Read, other: Read) -> str:
    """How a method differs, as an arm of a study is spelled.

    Tricks come first, then fields; what is not known of one side is left out.
    """
    here, there = other.asked, reference.asked
    new, old = ([str(trick) for trick in side.get("tricks") or []] for side in (here, there))
    said = [f"+{trick}" for trick in new if trick not in old] + [f"-{trick}" for trick in old if trick not in new]
    if new != old and not said:
        said.append("tricks in another order")
    for name in sorted(here.keys() | there.keys()):
        if name != "tricks" and here.get(name) != there.get(name):
            value = here.get(name)
            said.append(f"another {name}" if name.startswith("content of") else f"{name}={value}")
    if not said:
        said.append(f"other images ({len(other.table):,})")
    return clipped(" ".join(said), 200)


def _groups(found: Sequence[Read], images: Sequence[tuple[str, str]]) -> Ints:
    """The group of each image, by path and content, as the first run that has it knows it."""
    first: dict[tuple[str, str], str] = {}
    for one in reversed(found):
        first |= {(path, row[2]): row[-1] for path, row in one.table.items() if len(row) == len(COLUMNS)}
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(first.get(image, image), len(numbers)) for image in images], np.int64)


def _run(
    one: Read, method: str, split: str, classes: tuple[str, ...], places: dict[tuple[str, str], int], labels: list[int]
) -> Run:
    """What a run says of the images of a split. New images are added to ``places``, and their classes to ``labels``."""
    if {*one.classes} != {*classes}:
        odd = sorted({*one.classes} ^ {*classes})
        raise UsageError(
            f"{one.folder} has other classes than the first run: only one has {brief(odd[0])}. Compare runs on one data set."
        )
    said = predictions(one.folder / PREDICTIONS, split, len(classes))
    paths = list(one.table)
    if said.rows.min() < 0 or said.rows.max() >= len(paths) or len(np.unique(said.rows)) < len(said.rows):
        raise TrickbagError(f"{one.folder / PREDICTIONS} is damaged: its rows are not those of {IMAGES}. {AGAIN}")
    own = [one.classes.index(name) for name in classes]
    back = np.argsort(own)
    images = np.zeros(len(said.rows), np.int64)
    for n, (row, label) in enumerate(zip(said.rows.tolist(), back[said.labels].tolist(), strict=True)):
        path = paths[row]
        images[n] = place = places.setdefault((path, one.table[path][2]), len(places))
        if place == len(labels):
            labels.append(label)
        elif labels[place] != label:
            raise UsageError(
                f"{brief(path)} has the label {brief(classes[label])} in {one.folder}, but {brief(classes[labels[place]])} in "
                "a run before it. Runs are compared on the same images with the same labels."
            )
    order = np.argsort(images)
    logits = said.logits[:, own][order].astype(np.float32)
    right = normalised(logits.astype(np.float64)).argmax(1) == back[said.labels][order]
    return Run(method, str(one.record.seed), images[order], right, logits)
