"""What is believed of true effects once they were measured: empirical Bayes over effects that are alike.

Each effect is known up to its standard error, and most effects of one study are alike. So they are shrunk together: with the
true effects drawn from N(m, tau^2), the best guess of each lies between what was measured and m, the nearer to m the less is
known (normal-normal; tau^2 after Paule and Mandel, J. Res. Natl. Bur. Stand. 1982).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from trickbag.statistics.variance import Floats


class Prior(NamedTuple):
    """What is expected of a true effect before it is measured."""

    mean: float
    variance: float
    mean_variance: float = 0.0
    """Of the mean, which is not known exactly either."""
    source: str = "this study's effects together"


class Belief(NamedTuple):
    """What is known of a true effect after it was measured."""

    gain: float
    """Expected."""
    sd: float

    @property
    def helps(self) -> float:
        """The probability that the true effect is above 0."""
        return float(special.ndtr(self.gain / self.sd)) if self.sd else (1 + float(np.sign(self.gain))) / 2


def common(measured: Sequence[float], errors: Sequence[float]) -> Prior:
    """The prior that effects share, from what was measured of them and its standard errors, all above 0.

    tau^2 solves sum (b - mean)^2 / (error^2 + tau^2) = n - 1, or is 0; the mean is what the weighted mean leaves when it is
    shrunk to 0 itself. Where nothing was measured nothing is expected.

    >>> common([0.01, 0.01, 0.01, 0.01], [0.001] * 4).mean > 0.0099, common([0.01, -0.01], [0.02, 0.02]).variance
    (True, 0.0)
    """
    if not measured:
        return Prior(0.0, 0.0)
    b, v = np.asarray(measured, float), np.asarray(errors, float) ** 2
    tau2 = paule_mandel(b, v)
    weights = 1 / (v + tau2)
    mean, spread = float(weights @ b / weights.sum()), float(1 / weights.sum())
    left = max(0.0, 1 - spread / mean**2) if mean else 0.0
    return Prior(left * mean, tau2, left * spread)


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


def around_zero(measured: Sequence[float], errors: Sequence[float]) -> Prior:
    """The prior of effects whose mean is known to be 0, as ``common``.

    >>> round(around_zero([1.0, -1.0], [0.5, 0.5]).variance, 6)
    0.75
    """
    b, v = np.asarray(measured, float), np.asarray(errors, float) ** 2
    return Prior(0.0, _root(lambda tau2: float((b**2 / (v + tau2)).sum()) - len(b), float(b @ b)))


def _root(excess: Callable[[float], float], high: float) -> float:
    """Where a falling function is 0; 0 where it nowhere is above. ``high`` is no lower than the root."""
    from scipy import optimize  # a tenth of a second that most who import this do not need

    return float(optimize.brentq(excess, 0.0, high)) if excess(0.0) > 0 else 0.0


def belief(measured: float, error: float, prior: Prior) -> Belief:
    """What is known of an effect whose measurement has a standard error, given the prior.

    >>> [round(value, 6) for value in belief(0.02, 0.01, Prior(0.0, 0.0001))]
    [0.01, 0.007071]
    """
    if not error:
        return Belief(measured, 0.0)
    share = prior.variance / (prior.variance + error**2)
    sd = math.sqrt(share * error**2 + (1 - share) ** 2 * prior.mean_variance)
    return Belief(prior.mean + share * (measured - prior.mean), sd)
