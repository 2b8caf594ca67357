"""How well regions are told apart: intersection over union and pixel accuracy, from a confusion matrix per image.

Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 2.2.3: the pixels of a
class are counted over all images before they are divided.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trickbag.statistics.variance import Floats, Ints, over_seen

IGNORED = 255


class Overlap(NamedTuple):
    """How predicted and true regions agree, 0 to 1; a class of which no image has a pixel, true or predicted, is NaN and not
    counted."""

    miou: Floats
    """[...] the mean over classes of intersection over union."""
    accuracy: Floats
    """[...] the share of pixels that are right."""
    classes: Floats
    """[..., K] intersection over union."""


def confusion(found: NDArray[np.integer], true: NDArray[np.integer], classes: int) -> Ints:
    """Class numbers of pixels, predicted and true, both [H, W] -> counts [K, K], a row for each true class.

    Pixels that are IGNORED in ``true`` count nowhere.

    >>> confusion(np.array([[0, 1, 1]]), np.array([[0, 0, 255]]), 2).tolist()
    [[1, 1], [0, 0]]
    """
    judged = true != IGNORED
    pairs = true[judged].astype(np.int64) * classes + found[judged]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def overlap(confusions: ArrayLike, weights: Floats | None = None) -> Overlap:
    """The agreement over images, from their confusion matrices [images, K, K].

    ``weights`` [..., images] say how often each image counts (1 without); the answer has their leading dimensions.

    >>> found = overlap([[[2, 1], [0, 1]]])
    >>> found.classes.round(3).tolist(), round(float(found.miou), 3), float(found.accuracy)
    ([0.667, 0.5], 0.583, 0.75)
    """
    counts = np.asarray(confusions, float)
    sums = counts.sum(0) if weights is None else np.tensordot(np.asarray(weights, float), counts, 1)
    both = np.diagonal(sums, axis1=-2, axis2=-1)
    either = sums.sum(-1) + sums.sum(-2) - both
    classes = _ratio(both, either)
    return Overlap(over_seen(classes), _ratio(both.sum(-1), sums.sum((-2, -1))), classes)


def _ratio(part: Floats, whole: Floats) -> Floats:
    shares: Floats = np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    return shares
