"""What a study can resolve, before it runs: power, smallest detectable effect, seeds needed, and what no seed removes.

An effect is the mean over seeds of a paired difference. Its test is Student's t with the spread pooled over the arms, at the
first step of Holm's method: ``alpha / k`` two-sided, k contrasts. Effects and standard deviations share any one unit.
"""

import math

from scipy import optimize, special

from trickbag.ground.errors import UsageError

POWER = 0.8
MOST = 1000
"""Seeds beyond which the answer is that seeds are not the way."""


def assumed_sd(error: float, images: int) -> float:
    """The sd over seeds of a paired difference in accuracy that is assumed until a pilot measures it: sqrt(error / images).

    ``error`` is the share of wrong answers, 0 to 1. It is what two networks give that disagree on a share ``error`` of
    ``images`` judged images, as many for the better as for the worse.

    >>> round(100 * assumed_sd(0.08, 2000), 3)
    0.632
    """
    if not 0 <= error <= 1 or images < 1:
        raise UsageError(f"error {error:g} of {images} images: the error is a share from 0 to 1 of at least one image.")
    return math.sqrt(error / images)


def power(effect: float, sd: float, seeds: int, k: int, *, per_seed: float | None = None, alpha: float = 0.05) -> float:
    """The probability that an effect is found, 0 to 1: a t test at alpha / k, two-sided, by the noncentral t distribution.

    ``sd`` is that of the paired difference over seeds; the spread has ``per_seed * (seeds - 1)`` degrees of freedom: k where it
    is pooled over the arms, as by default, 1 where a contrast stands alone.

    >>> round(power(0.0108, assumed_sd(0.08, 2000), seeds=5, k=8), 2)
    0.8
    """
    _check(sd, k, alpha)
    if seeds < 2:
        return 0.0
    if sd == 0:
        return float(effect != 0)
    df = (k if per_seed is None else per_seed) * (seeds - 1)
    critical = -float(special.stdtrit(df, alpha / (2 * k)))
    shift = abs(effect) / sd * math.sqrt(seeds)
    # Where a tail is too small for its series, scipy 1.17 gives NaN; there the probability is that of the limit.
    missed, wrong = special.nctdtr(df, shift, critical), 1 - special.nctdtr(df, -shift, critical)
    return 1.0 - (0.0 if math.isnan(missed) else float(missed)) + (0.0 if math.isnan(wrong) else float(wrong))


def detectable(
    sd: float, seeds: int, k: int, *, share: float = POWER, per_seed: float | None = None, alpha: float = 0.05
) -> float | None:
    """The smallest effect that is found with a probability of ``share``; None with fewer than two seeds. See ``power``.

    >>> [round(100 * detectable(assumed_sd(0.08, 2000), seeds, k=8), 2) for seeds in (3, 5, 10)]
    [1.48, 1.07, 0.73]
    """
    _check(sd, k, alpha)
    if not alpha / k < share < 1:
        raise UsageError(f"power {share:g}: give a probability above alpha / k = {alpha / k:g} and below 1.")
    if seeds < 2:
        return None
    if sd == 0:
        return 0.0

    def lacking(effect: float) -> float:
        return power(effect, sd, seeds, k, per_seed=per_seed, alpha=alpha) - share

    high = sd
    while lacking(high) < 0:
        high *= 2
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-12 * high))


def floor(image_variance: float, images: int, *, share: float = POWER, alpha: float = 0.05) -> float:
    """The smallest effect on new images that any number of seeds can resolve: about 2.8 sqrt(image_variance / images).

    ``image_variance`` is the variance over images of the part of a difference that does not depend on the seed. Below the floor
    more seeds cannot help: enlarge the judged set.

    >>> round(floor(0.04, 2000), 4)
    0.0125
    """
    if image_variance < 0 or images < 1:
        raise UsageError(f"variance {image_variance:g} over {images} images: it cannot be negative, and takes an image.")
    return -float(special.ndtri(alpha / 2) + special.ndtri(1 - share)) * math.sqrt(image_variance / images)


def seeds_needed(
    effect: float, sd: float, k: int, *, share: float = POWER, per_seed: float | None = None, alpha: float = 0.05
) -> int | None:
    """The fewest seeds with which an effect is found with a probability of ``share``; None where MOST do not suffice.

    >>> seeds_needed(0.0108, assumed_sd(0.08, 2000), k=8)
    5
    """

    def enough(seeds: int) -> bool:
        return power(effect, sd, seeds, k, per_seed=per_seed, alpha=alpha) >= share

    if not enough(MOST):
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_within(budget: float, seconds: float) -> int:
    """The most seeds of which each takes ``seconds`` (all arms together) that fit a budget in seconds.

    >>> seeds_within(7200, 9 * 150)
    5
    """
    if not seconds > 0 or not budget >= 0:
        raise UsageError(f"budget {budget:g} s at {seconds:g} s per seed: a seed takes time, and a budget is not negative.")
    return math.floor(budget / seconds)


def _check(sd: float, k: int, alpha: float) -> None:
    if not sd >= 0:
        raise UsageError(f"sd {sd:g}: a standard deviation is not negative.")
    if k < 1:
        raise UsageError(f"k = {k}: a family holds at least one contrast.")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha:g}: give a probability between 0 and 1.")
