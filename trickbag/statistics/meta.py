"""What several data sets together say of one effect: random-effects meta-analysis.

Set i measured b_i, known up to its standard error: b_i ~ N(theta_i, error_i^2), and the true effects of data sets differ:
theta_i ~ N(mean, tau^2). So more images in one set make its own effect sharper, but only more sets make the mean sharper and
say what to expect of the next one.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from trickbag.ground.errors import UsageError
from trickbag.statistics.belief import Prior
from trickbag.statistics.intervals import Interval
from trickbag.statistics.variance import Floats

LEAST = 3
"""Data sets below which nothing is said of the next one."""
STEPS = 200
"""Values of tau^2 over which a prediction is averaged, each 7 % above the one before."""


class Pooled(NamedTuple):
    """An effect over the data sets that measured it."""

    mean: float
    """Of the true effects of all data sets like these."""
    error: float
    """Its standard error."""
    interval: Interval
    """Of the mean."""
    tau: float
    """The standard deviation of the true effects from data set to data set."""
    tau_interval: Interval
    i2: float
    """The share of the spread of what was measured that comes from tau, 0 to 1; the rest is noise."""
    prediction: Interval | None
    """Where the true effect of a new data set lies; None with fewer than three."""


def pooled(measured: Sequence[float], errors: Sequence[float], alpha: float = 0.05) -> Pooled:
    """The effect over the two or more data sets that measured it, each with a standard error above 0.

    tau^2 is Paule and Mandel's. The mean has the weights w = 1 / (error^2 + tau^2) and Hartung and Knapp's interval: Student's
    t with n - 1 degrees of freedom, the variance q / sum w with q = sum w (b - mean)^2 / (n - 1), where q counts as 1 at least
    (Knapp and Hartung, Statistics in Medicine 2003), without which sets that agree by chance would make the interval too short
    (Röver, Knapp and Friede, BMC Medical Research Methodology 2015). Paule and Mandel choose tau^2 such that q is 1, or below
    where tau is 0: so the variance is 1 / sum w.

    The interval of tau is the Q-profile (Viechtbauer, Statistics in Medicine 2007). I^2 = tau^2 / (tau^2 + s^2), with the
    typical variance s^2 = (n - 1) sum u / ((sum u)^2 - sum u^2), u = 1 / error^2 (Higgins and Thompson, Statistics in Medicine
    2002).
    On the prediction interval see ``upcoming``.

    Raises UsageError for fewer than two values, errors that are not above 0, and what is not finite.

    >>> found = pooled([0.01, 0.02, 0.03], [0.005, 0.005, 0.005])
    >>> round(found.mean, 4), round(found.tau, 4), round(found.i2, 2), [round(end, 3) for end in found.interval]
    (0.02, 0.0087, 0.75, [-0.005, 0.045])
    """
    b, v = np.asarray(measured, float), np.asarray(errors, float) ** 2
    if len(b) < 2 or b.shape != v.shape or not np.isfinite(b).all() or not (np.isfinite(v) & (v > 0)).all():
        raise UsageError("two data sets or more are combined, each with a finite difference and a standard error above 0.")
    count, tau2 = len(b), paule_mandel(b, v)
    weights, own = 1 / (v + tau2), 1 / v
    mean, error = float(weights @ b / weights.sum()), float(weights.sum() ** -0.5)
    typical = float((count - 1) * own.sum() / (own.sum() ** 2 - own @ own))
    ends = (between(b, v, float(special.chdtri(count - 1, tail))) for tail in (alpha / 2, 1 - alpha / 2))
    interval, ahead = _student(mean, error, count - 1, alpha), upcoming(b, v, alpha)
    return Pooled(
        mean,
        error,
        interval,
        math.sqrt(tau2),
        Interval(*map(math.sqrt, ends)),
        tau2 / (tau2 + typical),
        # What one set does is known no better than what they do on average.
        Interval(min(ahead.low, interval.low), max(ahead.high, interval.high)) if count >= LEAST else None,
    )


def upcoming(b: Floats, v: Floats, alpha: float = 0.05) -> Interval:
    """The prediction interval: where the true effect of a new data set lies, after ``b`` [n] with the variances ``v`` [n].

    Given tau^2 it is normal, with the variance tau^2 + 1 / sum w around the mean. How well tau^2 is known enters by its
    confidence distribution, of which the Q-profile gives all quantiles (Nagashima, Noma and Furukawa, Statistical Methods in
    Medical Research 2019): the interval holds the middle of the mixture. In simulations it covers 94 % or more, where
    Student's t with n - 2 degrees of freedom and one tau^2 (Higgins, Thompson and Spiegelhalter, Journal of the Royal
    Statistical Society A 2009) covers 88 % with 6 to 10 sets whose true effects differ by as much as the noise.

    >>> [round(end, 3) for end in upcoming(np.array([0.01, 0.02, 0.03]), np.full(3, 0.005**2))]
    [-0.03, 0.07]
    """
    centred = b - b.mean()
    most = float(centred @ centred) / float(special.chdtri(len(b) - 1, 0.999))
    tau2 = np.concatenate([[0.0], most * np.geomspace(1e-6, 1, STEPS)])
    weights = 1 / (v + tau2[:, None])
    means, sds = weights @ b / weights.sum(1), np.sqrt(tau2 + 1 / weights.sum(1))
    beyond = special.chdtr(len(b) - 1, (weights * (b - means[:, None]) ** 2).sum(1))
    beyond[-1] = 0.0
    shares = np.diff(1 - beyond, prepend=0.0)

    def missing(value: float, share: float) -> float:
        return float(shares @ special.ndtr((value - means) / sds)) - share

    far = 10 * float(sds.max())
    from scipy import optimize  # as in belief.py

    ends = (optimize.brentq(missing, means.min() - far, means.max() + far, share) for share in (alpha / 2, 1 - alpha / 2))
    return Interval(*map(float, ends))


def expected(found: Pooled, source: str) -> Prior | None:
    """What is expected of the effect on a new data set; None with fewer than three.

    The normal distribution whose middle 95 % are the prediction interval: the fewer the sets, the less it says.

    >>> prior = expected(pooled([0.01, 0.02, 0.03], [0.005, 0.005, 0.005]), "")
    >>> round(prior.mean, 4), round(prior.variance**0.5, 3)
    (0.02, 0.025)
    """
    if found.prediction is None:
        return None
    sd = (found.prediction.high - found.prediction.low) / 2 / float(special.ndtri(0.975))
    return Prior(found.mean, sd**2, source=source)


def _student(middle: float, error: float, df: int, alpha: float) -> Interval:
    half = float(special.stdtrit(df, 1 - alpha / 2)) * error
    return Interval(middle - half, middle + half)


def paule_mandel(b: Floats, v: Floats) -> float:
    """The variance of true effects, at least 0, from what was measured of them [n] with the variances v [n].

    >>> round(paule_mandel(np.array([-1.0, 1.0]), np.array([0.5, 0.5])), 6)
    1.5
    """
    return between(b, v, len(b) - 1) if len(b) > 1 else 0.0


def between(b: Floats, v: Floats, squares: float) -> float:
    """The variance of true effects, at least 0, at which the weighted squares of what was measured sum to ``squares`` > 0."""

    def excess(tau2: float) -> float:
        weights = 1 / (v + tau2)
        return float(weights @ (b - weights @ b / weights.sum()) ** 2) - squares

    return _root(excess, float(b @ b) / squares)


def _root(excess: Callable[[float], float], high: float) -> float:
    """Where a falling function is 0; 0 where it nowhere is above. ``high`` is no lower than the root."""
    from scipy import optimize  # a tenth of a second that most who import this do not need

    return float(optimize.brentq(excess, 0.0, high)) if excess(0.0) > 0 else 0.0
