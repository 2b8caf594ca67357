"""Images in folds: each is judged once, by what was learned from the others."""

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from trickbag.data.images import Images
from trickbag.data.splits import Ints
from trickbag.ground.errors import UsageError


def partitioned(images: Images, rows: Ints, folds: int, seed: int) -> list[Ints]:
    """The rows in so many folds, stratified by class, groups together. Raises UsageError where no class has enough images."""
    labels, groups = images.labels[rows], images.groups[rows]
    kind = StratifiedKFold if len(set(groups.tolist())) == len(groups) else StratifiedGroupKFold
    cut = kind(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds, which some folds then lack
        try:
            return [np.sort(rows[part]) for _, part in cut.split(rows, labels, groups)]
        except ValueError:
            raise UsageError(
                f"No class has {folds} images to be divided among {folds} folds. Add images, or give --no-rotate."
            ) from None
