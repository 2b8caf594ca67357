"""How far the mean of a contrast may be off on new photos: over the judged images, and over what a seed does to all of them.

A contrast is a difference in every judged image. A seed's runs judge *its* images: with rotation others than those of the seed
before, without it the same. Both are one case here, since an image, or a group of them, may be judged by any number of seeds.
"""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING = 1e-20
"""A variance below this is what rounding leaves of 0."""
FLOOR = 0.01
"""Of what images and seeds do to a mean: what images make of the difference of two seeds counts as no less, so that what seeds
add is a share of it also where images are the same for all and each says the same."""
ONCE = 0.12
"""Share of what images do to a mean that is taken to be the same with every seed, where no image was judged twice: 0.02 to 0.27
of the main effects of seven studies, 0.12 in the mean (``python -m benchmarks.assumed``)."""
TOGETHER = 0.1
"""Correlation of what seeds add: they train on much the same images, so that a tenth of it does not average out. Nadeau and
Bengio (Machine Learning 2003) take the judged share of the images, a fifth with five folds; chosen with PRIOR among 0.05 to 0.2
(``python -m benchmarks.population``)."""

PRIOR = 4.0
"""Degrees of freedom of what is known before of what seeds add, that it is nothing: with them intervals of pairs of arms cover
93 to 98 % with 3, 5 and 10 seeds (``python -m benchmarks.population``); without, those with three seeds are twice as wide."""


class Part(NamedTuple):
    """What one seed says of a contrast."""

    values: Floats
    """[n] the contrast in every image that the seed judges."""
    groups: Ints
    """[n] the number of the image's group (patient, burst, video; else the image itself), the same over all seeds."""


def averaged(seed: float, seeds: float) -> float:
    """The variance that is left of what each of so many seeds adds. See TOGETHER.

    >>> round(averaged(1.0, 10), 3)
    0.2
    """
    return seed * (1 / seeds + TOGETHER)


class Spread(NamedTuple):
    """The variance of a contrast's mean, in parts."""

    images: float
    """That of the mean, by the images alone."""
    within: float
    """That of one seed's mean, as far as its images make it another than the next seed's."""
    seed: float
    """That which a seed adds to the mean of all images that it judges; below 0 by chance where there is none."""
    seeds: float
    groups: int
    """Independent images."""
    persistent: float
    """The part of ``images`` that more seeds on the same images would not lower."""


class Share(NamedTuple):
    """What seeds add to the spread of their means, as a share of what images make of it (``Spread.within``)."""

    share: float
    df: float
    """The degrees of freedom behind that."""

    def carried(self, one: Spread, other: Spread) -> "Share":
        """From seeds that judge images as in one spread to seeds that do as in the other.

        Where images make less of the seeds' means there, as where each seed judges more of them, the share is larger, and
        known the worse: its degrees of freedom are those of a mean square of which only what seeds add is carried
        (Satterthwaite). It is never known better there, since contrasts differ in what seeds add.

        >>> here, there = (Spread(w, w, 0.0, 3, 900, 0.0) for w in (2.0, 1.0))
        >>> Share(0.0, 12.0).carried(here, there), Share(1.0, 12.0).carried(here, there), Share(0.0, 12.0).carried(there, here)
        (Share(share=0.0, df=3.0), Share(share=2.0, df=6.75), Share(share=0.0, df=12.0))
        """
        times, added = one.within / other.within, max(self.share, 0.0)
        return Share(self.share * times, self.df * min((1 + added * times) / ((1 + added) * times), 1.0) ** 2)


QUANTILES = (np.arange(64) + 0.5) / 64
"""Over which a mean over a distribution is taken."""
UNKNOWN = Share(0.0, 0.0)
"""Where nothing was measured."""
NOTHING = Share(0.0, PRIOR)
"""What is known of what seeds add before it is measured."""


def together(one: Share, other: Share) -> Share:
    """What two sources know; the other counts the less, the rarer chance would make one so much larger than it says."""
    if not one.df or not other.df:
        return one if one.df else other
    chance = float(scipy.special.fdtrc(one.df, other.df, max(1 + one.share, 0.0) / (1 + max(other.share, 0.0))))
    counted = other.df * min(1.0, 2 * chance)
    df = one.df + counted
    return Share((one.df * one.share + counted * other.share) / df, df)


def taken(added: Share, before: Share = UNKNOWN) -> Share:
    """What will be taken for what seeds add, in the mean, where they add this and so many degrees of freedom will say so.

    Their 1 + share is then (1 + share) Q / k with a Q of chi-squared with k degrees of freedom, ``before`` and NOTHING are
    counted with it, and less than nothing is taken for nothing: chance alone makes it more than 0.

    >>> [round(taken(Share(0.0, df)).share, 2) for df in (0, 2, 20, 1e6)], round(taken(Share(0.5, 1e6)).share, 2)
    ([0.0, 0.21, 0.11, 0.0], 0.5)
    """
    share, df = added
    if not df:
        return NOTHING
    ratios = max(1 + share, 0.0) * 2 * scipy.special.gammaincinv(df / 2, QUANTILES) / df
    each = [together(together(Share(float(ratio) - 1, df), before), NOTHING) for ratio in ratios]
    return Share(fmean(max(one.share, 0.0) for one in each), fmean(one.df for one in each))


class Off(NamedTuple):
    """How far a mean may be off."""

    variance: float
    df: float
    seed: float
    """The variance that a seed adds to what it judges."""


def off(found: Spread, added: Share, grain: float = 0.0) -> Off:
    """How far a mean may be off on new images and with new seeds; ``grain`` is a variance that is added to that by the images.

    What images do alike with every seed is known by all of them; what differs from seed to seed only as well as ``added``. The
    degrees of freedom of their sum are those of Satterthwaite (Biometrics Bulletin 1946).

    >>> found = Spread(images=3.0, within=2.0, seed=0.0, seeds=2, groups=101, persistent=2.0)
    >>> [round(value, 3) for value in off(found, Share(0.5, 4.0))]
    [3.6, 19.059, 1.0]
    """
    images, seed = found.images + grain, max(added.share, 0.0) * found.within
    variance = images + averaged(seed, found.seeds)
    alike = max(images - found.within / found.seeds, 0.0)
    if not variance > ROUNDING:
        return Off(0.0, added.df, 0.0)
    return Off(variance, variance**2 / (alike**2 / max(found.groups - 1, 1) + (variance - alike) ** 2 / added.df), seed)


def spread(parts: Sequence[Part]) -> Spread | None:
    """The spread of a contrast; None with fewer than two seeds or fewer than two independent images.

    With the deviations of the values from their seed's mean, summed over a group, the variance by the images is the sum of
    their squares over the squared number of values (the cluster-robust variance of a mean; Liang and Zeger, Biometrika 1986).
    Two seeds' means differ by more than their images explain where the seed itself moves them: half the mean over all pairs of
    the squared difference less that part is the seed's variance. Judged on the same images by every seed, the two are the
    crossed variance components (Searle, Casella and McCulloch, "Variance Components", 1992, ch. 4); each on its own, nested.

    >>> one, other = Part(np.array([0.0, 1.0, 1.0]), np.arange(3)), Part(np.array([1.0, 1.0, 2.0]), np.arange(3))
    >>> [round(float(value), 6) for value in spread([one, other])]
    [0.083333, 0.055556, 0.166667, 2.0, 3.0, 0.064815]
    """
    known = np.unique(np.concatenate([part.groups for part in parts]))
    groups = len(known)
    if len(parts) < 2 or groups < 2:
        return None
    sums = np.zeros((len(parts), groups))
    judged = np.zeros((len(parts), groups))
    for row, part in enumerate(parts):
        places = np.searchsorted(known, part.groups)
        np.add.at(sums[row], places, part.values - part.values.mean())
        np.add.at(judged[row], places, 1.0)
    counts = judged.sum(1)
    total, met = counts.sum(), (judged > 0).sum(0)
    free = groups - len(parts) / met.mean()
    images = float((sums.sum(0) ** 2).sum()) / total**2 * groups / max(free, 1.0)
    means, shares = np.array([part.values.mean() for part in parts]), sums / counts[:, None]
    pairs = list(combinations(range(len(parts)), 2))
    by_seed = float(np.mean([(means[a] - means[b]) ** 2 for a, b in pairs])) / 2
    by_image = float(np.mean([((shares[a] - shares[b]) ** 2).sum() for a, b in pairs])) / 2 * groups / max(free, 1.0)
    again = met > 1
    fresh = 0.0
    if again.any():
        ups = (sums**2).sum(0)[again] - sums.sum(0)[again] ** 2 / met[again]
        fresh = float((ups / (met[again] - 1)).mean()) * met.sum() / total**2
    persistent = max(images - fresh, 0.0) if again.any() else ONCE * images
    within = max(by_image, FLOOR * images * len(parts), FLOOR * by_seed)
    return Spread(images, within, by_seed - by_image, len(parts), groups, persistent)


def over_seen(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN where all is.

    >>> over_seen(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])).tolist()
    [2.0, nan]
    """
    seen = np.isfinite(values)
    sums, counted = np.where(seen, values, 0.0).sum(-1), seen.sum(-1)
    mean: Floats = np.divide(sums, counted, out=np.full_like(sums, np.nan), where=counted > 0)
    return mean
