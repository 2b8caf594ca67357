"""Where a difference varies: over seeds, pooled where arms vary alike, and over judged images.

Values are [A, S, N]: arm, seed, judged example. A run without a result is a row of NaN.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RATIO = 4.0
"""Variances whose largest is more than this many times the smallest are looked at."""
ODD = 0.01
"""How often chance alone makes an arm look as if it varied more than the others, so that it is judged by its own spread."""
WILD = 0.0005
"""The same, in either direction, for an arm that would spoil the pooled spread of the others."""
ENOUGH = 100
"""Degrees of freedom from which on the spread of single examples is known well enough to compare without a test."""
ROUNDING = 1e-20
"""A mean square below this is what rounding leaves of 0."""


class Residual(NamedTuple):
    """What is left of a table of arms x seeds when arms and seeds are accounted for."""

    cells: Floats
    """[A, S], 0 where a run is missing."""
    df: int

    @property
    def square(self) -> float:
        """The sum of squares."""
        return float((self.cells**2).sum())


def residual(table: Floats) -> Residual:
    """The least-squares fit of arm + seed to a table [A, S], NaN where a cell is missing; without such, the randomised block.

    >>> found = residual(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 6.0]]))
    >>> found.df, round(found.square, 12)
    (2, 3.0)
    """
    seen = np.isfinite(table)
    table, seen = table[:, seen.any(0)], seen[:, seen.any(0)].astype(float)
    if not seen.any():
        return Residual(np.zeros_like(table), 0)
    values = np.where(seen > 0, table - table[seen > 0].mean(), 0.0)
    per_seed = seen.sum(0)
    # Seeds are eliminated; what remains is singular by one constant for each set of arms that no seed connects.
    spread, axes = np.linalg.eigh(np.diag(seen.sum(1)) - (seen / per_seed) @ seen.T)
    axes, spread = axes[:, spread > 1e-9], spread[spread > 1e-9]
    arms = axes @ ((axes.T @ (values.sum(1) - (seen / per_seed) @ values.sum(0))) / spread)
    seeds = (values.sum(0) - arms @ seen) / per_seed
    return Residual(seen * (values - arms[:, None] - seeds), int(seen.sum()) - len(seeds) - len(spread))


class Pool(NamedTuple):
    """The spread over seeds that the arms have in common."""

    variance: float
    """Of one run's mean, beside what its seed does to all arms; 0 where nothing could be pooled."""
    df: int
    per_seed: float
    """Degrees of freedom that each further seed brings."""
    still: Flags
    """[A] the same on every seed, example by example."""
    odd: Flags
    """[A] varies unlike the others."""
    kin: Flags
    """[A, A] differ so little that they must share their training."""

    def reason(self, weights: Floats) -> str:
        """Why a contrast with these weights [A] is judged by its own spread; empty where the pooled one holds."""
        used = weights != 0
        if self.still[used].any():
            return "one of its arms is the same on every seed"
        if self.kin[np.ix_(used, used)].any():
            return "its arms share their training"
        if self.odd[used].any():
            return "one of its arms varies unlike the others"
        return "" if self.df else "there is no spread to pool"


def pool(values: Floats) -> Pool:
    """The pooled variance over seeds of values [A, S, N], and the arms to which it does not apply.

    The variance is the residual mean square of the randomised block design (arms x seeds) over arms that have at least three
    results, that vary with the seed, and that are not near copies of an arm already in the pool.

    The guard asks where the largest of their residual variances is more than RATIO times the smallest or Levene's test gives
    p < .05. Nine arms with three seeds differ that much by chance in nearly every study, so the arms concerned are found by
    the F test of an arm's residual variance against the pooled one of the others, exact for Gaussian values. An arm beyond
    WILD leaves the pool, the most extreme first, and the rest are asked again. One that varies more at the level ODD is judged
    by its own spread but stays in the pool: leaving it out would lower the pooled variance by selection.
    With three to five seeds it cannot see a reference that varies twice as much as every trick (benchmarks/effects.py).
    """
    table = values.mean(2)
    gap, spread = _gaps(values)
    still = spread < ROUNDING
    pairs = gap[~still][:, ~still][np.triu_indices((~still).sum(), 1)]
    pairs = pairs[np.isfinite(pairs)]
    # The upper quartile: most pairs may be near copies (tricks that act after training) and one arm may be far from all.
    scale = float(np.quantile(pairs, 0.75)) if len(pairs) else 0.0
    enough = (values.shape[1] - 1) * (values.shape[2] - 1) >= ENOUGH
    kin = (gap <= scale * (1 / RATIO if enough else 1e-12)) & ~np.eye(len(gap), dtype=bool) & ~still & ~still[:, None]
    members: list[int] = []
    for arm in np.flatnonzero((np.isfinite(table).sum(1) >= 3) & ~still):
        if not kin[arm, members].any():
            members.append(int(arm))
    odd = np.zeros(len(table), dtype=bool)
    while (chances := _chances(table[members])) is not None:
        worst = int(chances.min(1).argmin())
        if chances[worst].min() >= WILD:
            odd[np.array(members)[chances[:, 1] < ODD]] = True
            break
        odd[members.pop(worst)] = True
    found = residual(table[members])
    usable = found.square > found.df * ROUNDING
    variance, df = (found.square / found.df, found.df) if usable else (0.0, 0)
    return Pool(variance, df, max(len(members) - 1, 1), still, odd, kin)


def _gaps(values: Floats) -> tuple[Floats, Floats]:
    """What seeds do to single examples, in mean squares: [A, A] between two arms, NaN without a common seed; [A] in each."""
    seen = np.isfinite(values[:, :, 0])
    filled = np.where(seen[:, :, None], values, 0.0)
    runs = np.maximum(seen.sum(1), 1)[:, None, None]
    moved = np.where(seen[:, :, None], filled - filled.sum(1, keepdims=True) / runs, 0.0)
    size = (moved**2).mean(2)
    flat = moved.reshape(len(values), -1)
    shared = seen.astype(float) @ seen.T
    own = size @ seen.T
    total = own + own.T - 2 * (flat @ flat.T) / values.shape[2]
    return np.where(shared > 0, total / np.maximum(shared, 1), np.nan), size.sum(1) / runs[:, 0, 0]


def _chances(table: Floats) -> Floats | None:
    """[A, 2] each arm's p for varying less and for varying more than the others in a table [A, S]; None where none does."""
    whole = residual(table)
    if len(table) < 3 or not whole.square > 0 or not _unequal(table, whole.cells):
        return None
    return np.array([_chance(whole, residual(np.delete(table, arm, 0))) for arm in range(len(table))])


def _unequal(table: Floats, cells: Floats) -> bool:
    seen = np.isfinite(table)[:, np.isfinite(table).any(0)]
    variances = (cells**2).sum(1) / (seen.sum(1) - 1)
    if variances.max() > RATIO * variances.min():
        return True
    return bool(stats.levene(*(row[there] for row, there in zip(cells, seen, strict=True))).pvalue < 0.05)


def _chance(whole: Residual, others: Residual) -> tuple[float, float]:
    """The two tails of the F test of one arm's residual variance against that of the others."""
    df = whole.df - others.df
    if df <= 0 or others.df <= 0:
        return 1.0, 1.0
    if not others.square > 0:
        return 1.0, 0.0
    ratio = max(whole.square - others.square, 0.0) / df / (others.square / others.df)
    return float(special.fdtr(df, others.df, ratio)), float(special.fdtrc(df, others.df, ratio))


class Crossed(NamedTuple):
    """The variance of a mean over seeds and images, both drawn at random."""

    variance: float
    df: float
    image: float
    """Variance over images of what does not depend on the seed; what more seeds cannot remove is this over their number."""
    images: int
    """Independent images: groups, where there are any."""


def crossed(values: Floats) -> Crossed | None:
    """The crossed variance components of values [S, n], seeds x images; None where either is single or nothing varies.

    With the mean squares of seeds, images and residual, Var = max(MS_s + MS_i - MS_e, MS_i / 2) / (S n), and Satterthwaite's
    degrees of freedom for the numerator, at least 1 (Searle, Casella and McCulloch, "Variance Components", 1992, ch. 4 and 6).

    >>> found = crossed(np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 2.0]]))
    >>> [round(value, 6) for value in found]
    [0.166667, 1.714286, 0.166667, 3]
    """
    seeds, images = values.shape
    if seeds < 2 or images < 2:
        return None
    mean = values.mean()
    by_seed, by_image = values.mean(1) - mean, values.mean(0) - mean
    of_seeds, of_images = images * float(by_seed @ by_seed), seeds * float(by_image @ by_image)
    rest = max(float(((values - mean) ** 2).sum()) - of_seeds - of_images, 0.0)
    ms_s, ms_i, ms_e = of_seeds / (seeds - 1), of_images / (images - 1), rest / ((seeds - 1) * (images - 1))
    total = max(ms_s + ms_i - ms_e, ms_i / 2)
    if not total > 0:
        return None
    df = total**2 / (ms_s**2 / (seeds - 1) + ms_i**2 / (images - 1) + ms_e**2 / ((seeds - 1) * (images - 1)))
    return Crossed(total / (seeds * images), max(df, 1.0), max(ms_i - ms_e, 0.0) / seeds, images)


def grouped(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Values [S, N] as [S, G] whose mean over groups is that over examples and whose spread is that of the groups.

    A group counts by its size: each of its examples adds its deviation from the grand mean (the linearised ratio estimator,
    Cochran, "Sampling Techniques", 1977, ch. 9A). Groups of one leave the values as they are, but for their order.

    >>> grouped(np.array([[0.0, 1.0, 1.0, 1.0]]), np.array([7, 7, 3, 5])).tolist()
    [[0.9375, 0.9375, 0.375]]
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    mean = values.mean()
    sums = np.add.reduceat(values[:, order] - mean, starts, axis=1)
    return np.asarray(sums * (len(starts) / values.shape[1]) + mean)
