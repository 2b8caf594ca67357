"""Repeated cross-validation over training and validation images, for sets too small to hold much out; the test stays."""

from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from trickbag.engine.pixels import Data
from trickbag.ground.errors import UsageError


def folded(data: Data, repeats: int, folds: int, block: int, seed: int) -> Data:
    """The data set of a block, 0 to repeats x folds - 1: one fold is validation, the others train.

    Folds are stratified by class, keep groups together, and are the same for all arms. Raises UsageError where the images do
    not suffice for so many folds.
    """
    images = data.images
    pool = np.flatnonzero(images.splits != "test")
    repeat, fold = divmod(block, folds)
    assert 0 <= repeat < repeats
    if folds < 2 or np.bincount(images.labels[pool]).min() < folds:
        raise UsageError(
            f"--folds {repeats}x{folds}: every class needs at least as many images as there are folds, and at least two."
        )
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
    parts = list(cut.split(pool, images.labels[pool], images.groups[pool]))
    splits = images.splits.copy()
    splits[pool] = "train"
    splits[pool[parts[fold][1]]] = "val"
    return data._replace(images=replace(images, splits=splits))
