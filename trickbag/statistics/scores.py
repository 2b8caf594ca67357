"""A score and how far it may be off, from what each image says of it."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called

from trickbag.statistics.effects import together
from trickbag.statistics.intervals import Interval
from trickbag.statistics.variance import ROUNDING, Part, Share, spread

SHARE = Interval(0.0, 1.0)
BEFORE = Share(0.0, 6.0)
"""What is known before of what seeds add, that it is nothing. It counts for more than with a contrast, since images move a
score more than a paired difference; chosen by coverage among 2, 3, 4 and 6 (``python -m benchmarks.intervals``)."""


def score(parts: Sequence[Part], alpha: float = 0.05, ends: Interval = SHARE) -> tuple[float, Interval | None]:
    """The mean over images and seeds of what each image says (``jackknife``), and its interval; ``parts`` are a seed each.

    Of one seed the interval says where the score of this network lies on new images from the same source: Student's t over
    independent images. Of more, where that of the recipe lies, with new seeds too: what seeds add is drawn to BEFORE as it is
    for a contrast (``effects``). It is cut at ``ends``, those of a share where nothing else is said. None where there are
    fewer than two independent images, or all say the same.

    >>> value, interval = score([Part(np.array([0.2, 0.4, 0.9, 0.7]), np.arange(4))])
    >>> round(value, 2), [round(end, 2) for end in interval]
    (0.55, [0.06, 1.0])
    """
    value = fmean(float(part.values.mean()) for part in parts)
    variance, df = _variance(parts)
    if not variance > ROUNDING:
        return value, None
    half = float(scipy.special.stdtrit(df, 1 - alpha / 2)) * sqrt(variance)
    return value, Interval(max(value - half, ends.low), min(value + half, ends.high))


def _variance(parts: Sequence[Part]) -> tuple[float, float]:
    """Of the mean, and its degrees of freedom; 0 where it is not known."""
    if len(parts) > 1:
        found = spread(parts)
        if found is None or not found.images > ROUNDING:
            return 0.0, 0.0
        added = together(Share(found.seed / found.seeds / found.images, found.seeds - 1), BEFORE)
        return found.images * (1 + max(added.share, 0.0)), added.df
    ((values, groups),) = parts
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], values - values.mean())
    df = len(sums) - 1
    return float(sums @ sums) / len(values) ** 2 * len(sums) / max(df, 1), float(df)
