"""What a study can resolve: power, the smallest detectable effect, and how many seeds or images a difference would take.

An effect is tested by Student's t on its standard error, two-sided at alpha, which is divided by the number of contrasts where
they are a family (the first step of Holm's method). Effects and errors share any one unit.
"""

import math

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called

from trickbag.ground.errors import UsageError
from trickbag.statistics.variance import NOTHING, Floats, Ints, Share, Spread, averaged, off, taken, together

POWER = 0.8
PERSISTENT = 0.02
"""The variance over images of what one change of a recipe does to each in every training, as a multiple of the churn: -0.02 to
0.05 in the studies, 0.02 in the mean of ``python -m benchmarks.assumed``."""
UNTRAINED = 0.3
"""The same of a network of which only the classifier is fitted, beside one that is trained: 0.24 to 0.41 in six studies."""
OWN = 0.44
"""Share of the variance over images of being right that is the image's own, the same in every training: 0.57, 0.56, 0.48 and
0.34 in the four studies of ``python -m benchmarks.resolution``, 0.27 in that of ``trickbag demo``; 0.44 is their mean."""
BESIDE = 0.57
"""How often two judgements of one training disagree, with and without a trick that acts beside or after it, as a share of how
often two trainings do: 0.56 to 0.62 in the former four."""
GRAIN = 2.0
"""Images that are counted beside those that judge two recipes, one of which each side got right (``effects``)."""
MOST = 1000
"""Seeds beyond which the answer is that seeds are not the way."""


def power(effect: float, error: float, df: float, alpha: float = 0.05) -> float:
    """The probability that an effect is found, 0 to 1, by the noncentral t distribution.

    >>> round(power(0.028, 0.01, df=1e6), 2)
    0.8
    """
    _check(error, alpha)
    if error == 0:
        return float(effect != 0)
    critical = -float(scipy.special.stdtrit(df, alpha / 2))
    shift = abs(effect) / error
    # Where a tail is too small for its series, scipy 1.17 gives NaN; there the probability is that of the limit.
    missed, wrong = scipy.special.nctdtr(df, shift, critical), 1 - scipy.special.nctdtr(df, -shift, critical)
    return 1.0 - (0.0 if math.isnan(missed) else float(missed)) + (0.0 if math.isnan(wrong) else float(wrong))


def detectable(error: float, df: float, alpha: float = 0.05, share: float = POWER) -> float:
    """The smallest effect that is found with a probability of ``share``. See ``power``.

    >>> [round(detectable(0.01, df), 4) for df in (2, 10, 1e6)]
    [0.0565, 0.0311, 0.028]
    """
    _check(error, alpha)
    if not alpha < share < 1:
        raise UsageError(f"power {share:g}: give a probability above alpha = {alpha:g} and below 1.")
    if error == 0:
        return 0.0
    from scipy.optimize import brentq  # slow to import, and a comparison needs none of it

    high = error
    while power(high, error, df, alpha) < share:
        high *= 2
    return float(brentq(lambda effect: power(effect, error, df, alpha) - share, 0.0, high, xtol=1e-12 * high))


def assurance(gain: float, sd: float, error: float, df: float, alpha: float = 0.05) -> float:
    """The probability that a gain is proved of which it is known that it comes from N(gain, sd^2): the mean of the power.

    ``error``: the standard error that the proof will have. (O'Hagan, Stevens and Campbell, Pharmaceutical Statistics 2005.)

    >>> round(assurance(0.028, 0.0, 0.01, df=1e6), 2), round(assurance(0.028, 0.02, 0.01, df=1e6), 2)
    (0.8, 0.65)
    """
    _check(error, alpha)
    critical = -float(scipy.special.stdtrit(df, alpha / 2))
    return float(scipy.special.ndtr((gain - critical * error) / math.hypot(sd, error)))


def variance_for(effect: float, alpha: float = 0.05, share: float = POWER) -> float:
    """The variance of a mean at which an effect is found with a probability of ``share``, degrees of freedom abounding.

    >>> round(variance_for(0.028) ** 0.5, 4)
    0.01
    """
    return float((effect / (scipy.special.ndtri(1 - alpha / 2) + scipy.special.ndtri(share))) ** 2)


def variance(found: Spread, seed: float, seeds: int, pool: int) -> float:
    """The variance of a contrast's mean with so many seeds, of which each judges as many images as now.

    ``seed`` is what a seed adds; ``pool`` are the images that seeds can judge in turn, those judged by now where they all judge
    the same.
    """
    reached = min(max(pool, found.groups), found.groups * seeds / found.seeds)
    fresh = (found.images - found.persistent) * found.seeds / seeds
    return found.persistent * found.groups / reached + fresh + averaged(seed, seeds)


def seeds_for(wanted: float, found: Spread, seed: float, pool: int) -> int | None:
    """The fewest seeds whose variance is at most ``wanted``; None where MOST do not suffice. See ``variance``."""
    if not wanted > 0 or variance(found, seed, MOST, pool) > wanted:
        return None
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if variance(found, seed, middle, pool) <= wanted else (middle, high)
    return high


def images_for(wanted: float, found: Spread, seed: float) -> int | None:
    """The fewest judged images with which the same seeds reach ``wanted``; None where a hundred times as many do not."""
    left = wanted - averaged(seed, found.seeds)
    return math.ceil(found.images * found.groups / left) if left > found.images / 100 else None


def churn(accuracy: float) -> float:
    """The share of the images on which two trainings of a recipe are expected to disagree, one right and one wrong.

    See OWN; ``accuracy``: of each, 0 to 1.

    >>> round(churn(0.75), 3), round(churn(0.95), 3)
    (0.21, 0.053)
    """
    return 2 * (1 - OWN) * accuracy * (1 - accuracy)


def squares(weights: Floats, trainings: Ints) -> float:
    """The variance of a contrast in one judgement that is expected before anything was trained, as a multiple of the churn.

    ``weights`` [A]: of the arms; ``trainings`` [A]: the number of the training from which each arm comes. See BESIDE.

    >>> squares(np.array([1.0, -1.0]), np.array([0, 1]))
    1.0
    """
    apart = (1 - BESIDE) * (np.bincount(trainings, weights) ** 2).sum() + BESIDE * (weights**2).sum()
    return float(apart / 2)


def expected(images: float, judged: float, seeds: float, fresh: float = 1.0, kept: float = 0.0) -> Spread:
    """The spread of a contrast where seeds judge so many images so often in all.

    Images are independent ones: groups, where these judge together. In one judgement its variance is ``fresh`` by what differs
    from seed to seed, and ``kept`` by what is the same with each; seeds add nothing.

    >>> once, thrice = (expected(images, judged=900, seeds=3, fresh=0.7, kept=0.3) for images in (900, 300))
    >>> [round(900 * one.images, 2) for one in (once, thrice)], [round(300 * one.within, 2) for one in (once, thrice)]
    ([1.0, 1.6], [1.0, 0.7])
    """
    more = judged / images - 1
    by_next = min(more / (seeds - 1), 1.0) if seeds > 1 else 0.0  # of a seed's images, what share the next one judges too
    within = (fresh + kept * (1 - by_next)) * seeds / judged
    return Spread((fresh + kept * (1 + more)) / judged, within, 0.0, seeds, round(images), kept / images)


def evenly(judged: Ints) -> tuple[float, int]:
    """Of images that are judged so often [n]: how many would say as much if all were judged alike often, and how often in all.

    >>> evenly(np.array([3, 3])), evenly(np.array([4, 2]))
    ((2.0, 6), (1.8, 6))
    """
    return float(judged.sum() ** 2 / (judged**2).sum()), int(judged.sum())


def elsewhere(
    images: float, believed: Share, known: Share, here: Spread, there: Spread, grain: float = 0.0
) -> tuple[float, float]:
    """The standard error that a contrast will have where it is judged as ``there``, and its degrees of freedom.

    ``images`` is its variance by the images where it is judged as ``here``; ``believed`` is what seeds add, by all that was
    measured here, and ``known`` what will be counted with what they turn out to add there. ``grain``: see ``off``.
    """
    begun, times = together(believed.carried(here, there), NOTHING), images / here.images
    added = taken(Share(begun.share, there.seeds - 1), known.carried(here, there))
    later = off(there._replace(images=there.images * times, within=there.within * times), added, grain)
    return math.sqrt(later.variance), later.df


def seeds_within(budget: float, seconds: float) -> int:
    """The most seeds of which each takes ``seconds`` (all arms together) that fit a budget in seconds.

    >>> seeds_within(7200, 9 * 150)
    5
    """
    if not seconds > 0 or not budget >= 0:
        raise UsageError(f"budget {budget:g} s at {seconds:g} s per seed: a seed takes time, and a budget is not negative.")
    return math.floor(budget / seconds)


def _check(error: float, alpha: float) -> None:
    if not error >= 0:
        raise UsageError(f"error {error:g}: a standard error is not negative.")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha:g}: give a probability between 0 and 1.")
