"""Small exact tools: Holm's adjustment, the interval of a share, the interval of a ratio of prices."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called
from numpy.typing import ArrayLike

from trickbag.ground.errors import UsageError
from trickbag.statistics.variance import Floats


class Interval(NamedTuple):
    """A range of values that the data do not rule out."""

    low: float
    high: float


def holm(p: ArrayLike) -> Floats:
    """p-values adjusted by Holm's step-down method (Scandinavian Journal of Statistics 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=float)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)), 1.0)
    return adjusted


def clopper_pearson(least: int, n: int, most: int | None = None, alpha: float = 0.05) -> Interval:
    """The exact interval of a share seen ``least`` times of ``n``; (0, 1) where n is 0.

    With ``most``, the share was seen at least ``least`` and at most ``most`` times (ties): the union of what either allows.
    Clopper and Pearson, Biometrika 1934.

    >>> [round(end, 3) for end in clopper_pearson(3, 5)]
    [0.147, 0.947]
    """
    most = least if most is None else most
    if not 0 <= least <= most <= n:
        raise UsageError(f"{least} to {most} of {n}: a count lies between 0 and the number of trials.")
    low = float(scipy.special.betaincinv(least, n - least + 1, alpha / 2)) if least else 0.0
    high = float(scipy.special.betaincinv(most + 1, n - most, 1 - alpha / 2)) if most < n else 1.0
    return Interval(low, high)


def ratio(ours: Sequence[float], theirs: Sequence[float], alpha: float = 0.05) -> tuple[float, Interval | None]:
    """The geometric mean of ours / theirs, paired by seed, with Student's interval on the log scale; None below two seeds.

    Raises UsageError where the two differ in length, are empty, or hold a price that is not above 0.

    >>> round(ratio([2.0, 8.0], [1.0, 2.0])[0], 3)
    2.828
    """
    if len(ours) != len(theirs) or not len(ours) or not all(0 < price < math.inf for price in (*ours, *theirs)):
        raise UsageError("a ratio of prices takes one price above 0 for each seed, on both sides.")
    logs = np.log(ours) - np.log(theirs)
    middle, count = float(logs.mean()), len(logs)
    if count < 2:
        return math.exp(middle), None
    half = float(scipy.special.stdtrit(count - 1, 1 - alpha / 2) * logs.std(ddof=1)) / math.sqrt(count)
    return math.exp(middle), Interval(math.exp(middle - half), math.exp(middle + half))
