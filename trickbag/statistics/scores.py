"""A score and how far it may be off, from what each image says of it."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called

from trickbag.statistics.intervals import Interval
from trickbag.statistics.variance import NOTHING, ROUNDING, Part, Share, off, spread, together

SHARE = Interval(0.0, 1.0)


def score(
    parts: Sequence[Part], alpha: float = 0.05, ends: Interval = SHARE, grain: float = 0.0
) -> tuple[float, Interval | None]:
    """The mean over images and seeds of what each image says (``jackknife``), and its interval; ``parts`` are a seed each.

    Of one seed the interval says where the score of this network lies on new images from the same source: Student's t over
    independent images. Of more, where that of the recipe lies, with new seeds too: what seeds add is drawn to nothing as it is
    for a contrast (``effects``). ``grain`` is a variance that is added to what the images say, so that no interval is a point
    where a few boxes happen to be found (``detection.grain``). The interval is cut at ``ends``, those of a share where nothing
    else is said. None where there are fewer than two independent images, or where all say the same and there is no grain.

    >>> value, interval = score([Part(np.array([0.2, 0.4, 0.9, 0.7]), np.arange(4))])
    >>> round(value, 2), [round(end, 2) for end in interval]
    (0.55, [0.06, 1.0])
    """
    value = fmean(float(part.values.mean()) for part in parts)
    variance, df = _variance(parts, grain)
    if not variance > ROUNDING:
        return value, None
    half = float(scipy.special.stdtrit(df, 1 - alpha / 2)) * sqrt(variance)
    return value, Interval(max(value - half, ends.low), min(value + half, ends.high))


def _variance(parts: Sequence[Part], grain: float) -> tuple[float, float]:
    """Of the mean, and its degrees of freedom; 0 where it is not known."""
    if len(parts) > 1:
        found = spread(parts)
        if found is None or not found.images + grain > ROUNDING:
            return 0.0, 0.0
        moved = found.within > ROUNDING
        added = together(Share(found.seed / found.within, found.seeds - 1), NOTHING) if moved else NOTHING
        return off(found, added, grain)[:2]
    ((values, groups),) = parts
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], values - values.mean())
    df = len(sums) - 1
    return (float(sums @ sums) / len(values) ** 2 * len(sums) / df + grain, float(df)) if df else (0.0, 0.0)
