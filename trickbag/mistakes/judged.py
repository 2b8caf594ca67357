"""What a run or a study said of the images that judged it, read back from its folder."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.text import counted
from trickbag.models.card import Card, check_trained
from trickbag.recipe import Recipe
from trickbag.runs.folder import (
    FINISHED,
    PREDICTIONS,
    RESULT,
    UNREADABLE,
    Predictions,
    RunRecord,
    Table,
    kept_table,
    predictions,
)
from trickbag.statistics.calibration import normalised
from trickbag.statistics.variance import Floats, Ints
from trickbag.studies.folder import STUDY
from trickbag.studies.folds import JUDGES
from trickbag.studies.record import Study


class Said(NamedTuple):
    """What networks said of N images that they did not learn from."""

    by: str
    """Who judged, in words."""
    table: Table
    """All images of the data set."""
    classes: tuple[str, ...]
    rows: Ints
    """[N], places in the table, rising."""
    labels: Ints
    """[N]"""
    p: Floats
    """[N, K] probabilities, the mean over the networks that judged the image."""
    fingerprint: str
    """Of the data set."""
    start: Recipe | None
    """What a study's reference begins with; None for a run, which has a network of its own."""


def said(folder: Path) -> Said:
    """Of a finished run its validation and test images; of a study all images that judged its reference, its proof included.

    Raises UsageError where the folder holds neither, TrickbagError where it is damaged.
    """
    try:
        if os.path.isfile(folder / STUDY):
            return _of_study(folder)
        if os.path.isfile(folder / RESULT):
            return _of_run(folder)
    except UNREADABLE as error:
        raise TrickbagError(f"{folder} is damaged: {error}. Restore it from a copy, or train again.") from None
    raise UsageError(f"{folder} holds no finished run and no study. Give a folder that train or study wrote.")


def _of_run(folder: Path) -> Said:
    check_trained(folder)
    if reason := store.verify(folder, *FINISHED):
        raise TrickbagError(f"{folder} is damaged: {reason}. Train it again or restore it.")
    record, classes = RunRecord.load(folder), Card.load(folder).classes
    splits = ["val", "test"] if record.test else ["val"]
    parts = [predictions(folder / PREDICTIONS, split, len(classes)) for split in splits]
    by = f"the run, on its {'validation and test' if record.test else 'validation'} images"
    return _joined(parts, by, kept_table(folder), classes, record.data_fingerprint, None)


def _of_study(folder: Path) -> Said:
    study = Study.load(folder)
    reference, held = study.arms[0], study.held
    parts = list(_judged(study))
    if not parts:
        raise UsageError(f"{folder}: no run of the reference is finished. Give the same trickbag study command again.")
    by = f"{counted(len(parts), 'run')} of the study's reference, each on images that it did not learn from"
    return _joined(parts, by, kept_table(folder), held.classes, held.fingerprint, reference.recipe)


def _judged(study: Study) -> Iterator[Predictions]:
    reference = study.arms[0]
    for cell in (*study.row(reference), *study.proofs(reference)):
        result = study.result(cell) if cell else None
        if cell and result and "counts_with" not in result:
            yield predictions(study.place.run(cell.key) / PREDICTIONS, JUDGES, len(study.held.classes))


def _joined(
    parts: Sequence[Predictions], by: str, table: Table, classes: Iterable[str], fingerprint: str, start: Recipe | None
) -> Said:
    names, rows = tuple(classes), np.unique(np.concatenate([part.rows for part in parts]))
    if rows[-1] >= len(table):
        raise TrickbagError(f"{PREDICTIONS} is of images that images.csv.gz does not list. Restore both from a copy.")
    p, times, labels = np.zeros((len(rows), len(names))), np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    for part in parts:
        places = np.searchsorted(rows, part.rows)
        p[places] += np.exp(normalised(part.logits.astype(np.float64)))
        times[places] += 1
        labels[places] = part.labels
    return Said(by, table, names, rows, labels, p / times[:, None], fingerprint, start)
