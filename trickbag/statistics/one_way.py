"""Differences that vary in one way alone: two trained networks over images, or scores without images over seeds.

They allow less than a comparison over both (``trickbag.statistics.effects``), and say less: two networks say nothing of other
seeds, and scores over seeds nothing of other images. Drafts from here go through ``verdicts.judged`` as a family.
"""

import math

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called

from trickbag.statistics.variance import Floats, Ints, Spread
from trickbag.statistics.verdicts import SEEDS, Draft

STILL = "the difference is the same with every seed: there is no spread to judge it by"


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p that two networks err equally often, from the images that only one of them gets right.

    McNemar, Psychometrika 1947; exact: twice the smaller tail of Binomial(gained + lost, 1/2), at most 1.

    >>> round(mcnemar(9, 1), 6), mcnemar(0, 0)
    (0.021484, 1.0)
    """
    return min(1.0, 2 * float(scipy.special.bdtr(min(gained, lost), gained + lost, 0.5)))


def over_images(values: Floats, groups: Ints, *, same: bool, shares: bool) -> Draft:
    """One network minus another in every image, ``values`` [n], with ``groups`` [n] as in ``effects.Sample``.

    The variance of the mean is the cluster-robust one over groups (Liang and Zeger, Biometrika 1986); of ``shares``, values of
    -1, 0 and 1, two images more are counted that one side or the other got right (Bonett and Price 2012). Student's t has one
    degree of freedom less than there are groups.

    >>> draft = over_images(np.repeat([1.0, -1.0, 0.0], [30, 10, 160]), np.arange(200), same=False, shares=True)
    >>> round(draft.difference, 3), round(draft.error, 5), draft.df
    (0.1, 0.0317, 199.0)
    """
    points = np.array([values.mean()])
    known, places = np.unique(groups, return_inverse=True)
    count = len(known)
    if same or count < 2:
        return Draft(points, None, same, None)
    sums = np.bincount(places, values - values.mean())
    images = float((sums**2).sum()) / len(values) ** 2 * count / (count - 1) + (2 / count**2 if shares else 0.0)
    return Draft(points, None, False, Spread(images, images, 0.0, 1, count, images), math.sqrt(images), count - 1.0)


def paired(ours: Floats, theirs: Floats) -> Draft:
    """Scores minus scores of the same seeds [S]: Student's paired t, S - 1 degrees of freedom.

    >>> draft = paired(np.array([0.8, 0.9, 0.9]), np.array([0.7, 0.7, 0.8]))
    >>> round(draft.difference, 4), round(draft.error, 4), draft.df
    (0.1333, 0.0333, 2.0)
    """
    points = ours - theirs
    points[np.abs(points) < 1e-12] = 0.0
    return _draft(points, float(points.var(ddof=1)) / len(points) if len(points) > 1 else 0.0, len(points) - 1.0, len(points))


def unpaired(ours: Floats, theirs: Floats) -> Draft:
    """Mean score minus mean score, of seeds that have nothing in common: Welch's t (Biometrika 1947).

    >>> draft = unpaired(np.array([0.8, 0.9, 0.9]), np.array([0.7, 0.7, 0.8, 0.8]))
    >>> round(draft.difference, 4), round(draft.error, 4), round(draft.df, 3)
    (0.1167, 0.0441, 4.455)
    """
    parts = [float(side.var(ddof=1)) / len(side) if len(side) > 1 else 0.0 for side in (ours, theirs)]
    total = sum(parts)
    bends = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (ours, theirs), strict=True) if part)
    points = np.array([ours.mean() - theirs.mean()])
    return _draft(points, total, total**2 / bends if bends else 1.0, min(len(ours), len(theirs)))


def _draft(points: Floats, variance: float, df: float, seeds: int) -> Draft:
    if seeds < SEEDS:
        return Draft(points, None, False, None, notes=(f"descriptive only: a verdict takes {SEEDS} seeds",))
    if variance < 1e-30:
        return Draft(points, None, False, None, notes=(STILL,))
    return Draft(points, None, False, None, math.sqrt(variance), df)
