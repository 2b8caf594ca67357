"""Which images validate and which test, where the user did not say."""

from dataclasses import replace

import numpy as np

from trickbag.data import images as whole
from trickbag.data.splits import Ints
from trickbag.scenes.table import Bools, Scenes


def divide(scenes: Scenes, seed: int, val_share: float = 0.1, test_share: float = 0.2) -> Scenes:
    """The images with every row in a split: what is given stays, a missing validation or test split is taken out of train.

    The shares are those of the images, stratified by the rarest class on an image, so that a rare class reaches every split
    for which it has enough images. Exact copies stay together; the order of rows changes nothing. Raises UsageError where the
    shares leave nothing to train on.
    """
    table = replace(scenes.images, labels=rarest(scenes.per_image()))
    return replace(scenes, splits=whole.divide(table, seed, val_share, test_share).splits)


def rarest(there: Bools) -> Ints:
    """Of each image [N], the class with the fewest images among those that are on it; K where there is none.

    ``there`` [N, K]: whether a class is on an image.

    >>> rarest(np.array([[True, True], [True, False], [False, False]]))
    array([1, 0, 2])
    """
    images = np.where(there, there.sum(0), len(there) + 1)
    return np.asarray(np.column_stack([images, np.full(len(there), len(there))]).argmin(1), np.int64)
