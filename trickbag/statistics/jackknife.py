"""What each image says of a score that is no mean over images, such as mAP or mIoU.

An image's number is the score, plus the number of images times the derivative of the score by the image's weight (the
infinitesimal jackknife: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982, chapter 6; of a ratio of sums
it is the delta method). The mean of these numbers is the score, and their spread tells how far it may be off. So intervals,
seeds and paired differences are those of a mean: ``effects`` takes them as it takes what is right or wrong.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trickbag.statistics.detection import OVERLAPS, Matches, Ranked, envelope, precision, ranked, share
from trickbag.statistics.segmentation import overlap
from trickbag.statistics.variance import Floats, over_seen


def of_precision(matches: Sequence[Matches], classes: int) -> tuple[Floats, Floats]:
    """What each image says of mAP at an overlap of 0.5, and of mAP: [images] each; NaN where there is nothing to be found.

    What is derived is the area under the envelope of precision: an average over fixed recalls moves in steps.
    """
    present = [one for one in ranked(matches, classes) if one.truths.any()]
    derived = sum((_derivative(one) for one in present), np.zeros((len(OVERLAPS), len(matches))))
    found, scale = precision(matches, classes), len(matches) / max(len(present), 1)
    return found.map50 + scale * derived[0], found.map + scale * derived.mean(0)


def _derivative(one: Ranked) -> Floats:
    """Of the area under the envelope of a class at the OVERLAPS, by the weight of each image: [10, images]."""
    truths = one.truths.sum()
    hits, all_ = np.cumsum(one.right, axis=1), np.cumsum(one.right | one.wrong, axis=1)
    exact, recall = share(hits, all_), hits / truths
    highest = envelope(exact)
    peaks = np.maximum.accumulate(np.where(exact == highest, recall, 0.0), axis=1)
    width = np.diff(peaks, axis=1, prepend=0)  # the recall that lies under each peak
    more_right = _onwards(share(width * (all_ - hits), all_**2))
    more_wrong = _onwards(share(width * hits, all_**2))
    each = one.right * (highest / truths + more_right) - one.wrong * more_wrong
    sums = np.stack([np.bincount(one.image, row, len(one.truths)) for row in each])
    area = (highest * one.right).sum(1, keepdims=True) / truths
    derived: Floats = sums - area * one.truths / truths
    return derived


def _onwards(values: Floats) -> Floats:
    """Sums over each place of [10, n] and all that follow."""
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


def of_overlap(confusions: ArrayLike) -> tuple[Floats, Floats]:
    """What each image says of the mean IoU and of pixel accuracy, from confusion matrices [images, K, K]: [images] each.

    >>> miou, accuracy = of_overlap([[[3, 1], [0, 0]], [[0, 0], [2, 2]]])
    >>> miou.round(3).tolist(), accuracy.tolist()
    ([0.537, 0.363], [0.75, 0.5])
    """
    counts = np.asarray(confusions, float)
    found, both = overlap(counts), np.diagonal(counts, axis1=1, axis2=2)
    either = counts.sum(1) + counts.sum(2) - both
    ious = over_seen((both - found.classes * either) / either.mean(0))
    pixels = counts.sum((1, 2))
    return found.miou + ious, found.accuracy + (both.sum(1) - found.accuracy * pixels) / pixels.mean()
