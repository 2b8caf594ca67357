"""What is believed of true effects once they were measured.

Each effect is known up to its standard error, and most effects of one study are alike. So they are shrunk together: with the
true effects drawn from N(m, tau^2), the best guess of each lies between what was measured and m, the nearer to m the less is
known (normal-normal).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from trickbag.statistics.variance import Floats

ODDS = np.arange(-16, 16.5, 0.5)
"""Logarithms of the odds of shares that shrinking takes away, over which beliefs are averaged."""
SHARES = special.expit(ODDS)
PROBABLE = SHARES * (1 - SHARES)
"""How probable each of them is before, where all shares are equally probable."""

SMALLER = np.array([0.125, 0.25, 0.5, 1.0, 2.0])
"""How large interactions of two may be beside effects, over which beliefs are averaged, all equally probable before. Six
studies are likeliest with 0 to 0.25, and one of small networks from scratch with 1 (``python -m benchmarks.assumed``)."""


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


def off_by(error: float, df: float) -> float:
    """The standard deviation of the normal distribution of which 95 % lie within Student's interval for a standard error.

    A standard error with few degrees of freedom may be too small, which a belief must not take for being sure.

    >>> [round(off_by(1.0, df), 2) for df in (2, 6, 1e9)]
    [2.2, 1.25, 1.0]
    """
    return error * float(special.stdtrit(df, 0.975) / special.ndtri(0.975))


def alike(measured: Sequence[float], errors: Sequence[float], pairs: int = 0) -> tuple[list[Belief], Floats]:
    """What is believed of effects that are alike, [n], and its covariances [n, n], by how far each may be off, all above 0.

    True effects are draws from N(m, tau^2), and m itself one from N(0, omega^2). How far what was measured is drawn to m, s^2 /
    (s^2 + tau^2) with the median s^2 of the squared errors, and how far the mean is drawn to 0, may be any share between 0 and
    1, all equally probable before (the uniform shrinkage prior; Daniels, Canadian J. Stat. 1999). The last ``pairs`` of them
    are interactions of two and draws from N(0, r^2 (tau^2 + m^2)), with what is expected of m^2 and an r of SMALLER. What is
    believed is the mean over the shares and r, each as probable as what was measured makes it. Few effects say little of how
    they are spread, and this counts that; they share m, so that a sum of them is less sure than if each stood for itself.

    >>> found, together = alike([0.01, 0.01, 0.01, 0.01], [0.001] * 4)
    >>> [round(one.gain, 4) for one in found], round(alike([0.01, -0.01], [0.02, 0.02])[0][0].gain, 4)
    ([0.0099, 0.0099, 0.0099, 0.0099], 0.0035)
    """
    b, v = np.asarray(measured, float), np.asarray(errors, float) ** 2
    mains = len(b) - pairs
    if mains <= 0:
        return [], np.zeros((0, 0))
    tau2 = np.median(v[:mains]) * np.exp(-ODDS)[:, None]
    weights = 1 / (v[:mains] + tau2)
    spread = 1 / weights.sum(1, keepdims=True)
    mean = (weights @ b[:mains])[:, None] * spread
    m, of_m = (1 - SHARES) * mean, (1 - SHARES) * spread
    said = np.log(weights).sum(1, keepdims=True) + np.log(spread) - (weights * (b[:mains] - mean) ** 2).sum(1, keepdims=True)
    said = (said + np.log(SHARES / spread) - SHARES * mean**2 / spread) / 2 + np.log(PROBABLE[:, None] * PROBABLE)
    # [R, T, Z, n] from here on: ratios, shares taken from an effect, shares taken from the mean, effects and interactions.
    pair = SMALLER[:, None, None, None] ** 2 * (tau2 + m**2 + of_m)[..., None]
    pair = 1 / (v[mains:] + np.broadcast_to(pair, (*pair.shape[:3], pairs)))
    said = said + (np.log(pair) - pair * b[mains:] ** 2).sum(-1) / 2
    probable = np.exp(said - said.max())[..., None] / np.exp(said - said.max()).sum()
    taken = np.concatenate([np.broadcast_to((weights * v[:mains])[:, None], (*said.shape, mains)), pair * v[mains:]], -1)
    to_mean = taken * (np.arange(len(b)) < mains)
    gains = (1 - taken) * b + to_mean * m[..., None]
    gain = (probable * gains).sum((0, 1, 2))
    off, drawn = gains - gain, to_mean * np.sqrt(of_m)[..., None]
    together = sum(np.einsum("rtzi,rtzj->ij", probable * x, x) for x in (off, drawn))
    together = together + np.diag((probable * (1 - taken) * v).sum((0, 1, 2)))
    return [Belief(float(g), math.sqrt(c)) for g, c in zip(gain, np.diag(together), strict=True)], together


def belief(measured: float, error: float, prior: Prior) -> Belief:
    """What is known of an effect that was measured, given the prior; ``error``: how far the measurement may be off, as one sd.

    >>> [round(value, 6) for value in belief(0.02, 0.01, Prior(0.0, 0.0001))]
    [0.01, 0.007071]
    """
    if not error:
        return Belief(measured, 0.0)
    share = prior.variance / (prior.variance + error**2)
    sd = math.sqrt(share * error**2 + (1 - share) ** 2 * prior.mean_variance)
    return Belief(prior.mean + share * (measured - prior.mean), sd)
