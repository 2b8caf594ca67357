"""The statistics of a study: from what runs got right to effects with an interval on new photos and a verdict.

Everything is a contrast: a weight per arm, summing to 0, over what each seed's runs say of the images that the seed judges:
correctness (0 or 1), or minus log-loss, so that more is better. Arms are compared on the same seeds and images.
"""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from statistics import fmean
from typing import NamedTuple

import numpy as np
import scipy  # its special functions take a third of a second to import, when the first is called
from numpy.typing import ArrayLike

from trickbag.ground.errors import UsageError
from trickbag.statistics.variance import NOTHING, ROUNDING, UNKNOWN, Floats, Ints, Part, Share, Spread, off, spread, together
from trickbag.statistics.verdicts import SEEDS, Draft, Estimate, judged

IDLE = "the seed changes nothing here: every run of an arm gets the same images right, so more seeds add nothing"
ROUNDED = 1e-6
"""Of the largest value: below it lies what weights such as 1/3, or log-loss of float32 logits, leave of no difference."""
UNMOVED = "not one image has another answer, though the networks are not the same"
STILL = "the difference is the same in every image: there is no spread to judge it by"
LEAST = 0.05
"""Least value of 1 + share of which a logarithm is taken: by chance it comes near 0, and even below."""


class Sample(NamedTuple):
    """What the runs of one seed say of the images that it judges."""

    values: Floats
    """[A, n] one number per arm and image; a row of NaN for a run without a result."""
    groups: Ints
    """[n] the number of each image's group, the same over all seeds: the image itself where it has none."""


def effects(
    samples: Sequence[Sample],
    contrasts: ArrayLike,
    *,
    same: Sequence[bool] | None = None,
    shares: bool = True,
    pool: int = 0,
    before: Share = UNKNOWN,
    delta: float = 0.002,
    alpha: float = 0.05,
) -> tuple[Estimate, ...]:
    """An estimate of each contrast, the contrasts being the declared family.

    ``samples`` are a seed each; ``contrasts`` [C, A] are weights that sum to 0; ``same`` says of which contrasts the two sides
    are one and the same network (None: where no value differs); ``shares``: the values are 0 or 1; ``pool`` are the images
    that further seeds can judge in turn; ``before`` is what was measured of what seeds add; ``delta`` is half the width of the
    region of practical equivalence, in the unit of the values.

    The standard error speaks of new images from the same source and new seeds, of recipes that train on the data set at hand:
    the variance by the images of the contrast itself, and what seeds add to it (``off``). A contrast's own share of that, of
    few degrees of freedom, is drawn to what seeds add to the family, by as much as the contrasts of the family agree, to what
    was measured before, and to nothing with PRIOR degrees of freedom (empirical Bayes; Smyth, Statistical Applications in
    Genetics and Molecular Biology 2004). Either counts the less, the rarer chance would make seeds move a contrast by so much
    more than it says. Of shares, two images more are counted that one side or the other got right, so that no interval is a
    point where a few images happen to agree (Bonett and Price, Journal of Educational and Behavioral Statistics 2012).

    p is adjusted by Holm's method over all C contrasts. The interval of a contrast that Holm rejects has the level
    1 - alpha / C and is cut at 0; those of the others, a in number, have 1 - alpha / a. So an interval excludes 0 exactly where
    p <= alpha, and all are covered together with 1 - alpha. (After Strassburger and Bretz, Statistics in Medicine 2008, whose
    simultaneous intervals give up the far end of what is rejected.)

    Verdicts: identical (the same network), descriptive (fewer than three seeds, or two images), helps (low > 0), worthwhile
    (low > delta), hurts (high < 0), equivalent (two one-sided tests inside +-delta, adjusted by Holm's method), else open.

    Raises UsageError for values or contrasts of another shape, a row that is NaN in part, and weights that do not sum to 0.

    >>> rng = np.random.default_rng(0)
    >>> samples = [Sample((rng.random((2, 400)) < [[0.7], [0.9]]).astype(float), np.arange(400) + 400 * s) for s in range(3)]
    >>> found = effects(samples, [[-1, 1]])[0]
    >>> found.verdict, round(found.difference, 3), [round(end, 3) for end in found.interval]
    ('worthwhile', 0.203, [0.09, 0.315])
    """
    weights = np.asarray(contrasts, dtype=float)
    _check(samples, weights, delta, alpha)
    drafts = [_paired(samples, row, None if same is None else same[number]) for number, row in enumerate(weights)]
    added = _shares_of_seeds(drafts, correlations(samples, weights), before)
    drafts = [_on_new_images(*one, shares) for one in zip(drafts, weights, added, strict=True)]
    return judged(drafts, delta, alpha, pool)


def spread_of(samples: Sequence[Sample], weights: ArrayLike) -> Spread | None:
    """The spread of one contrast with the weights [A]; None where there are too few seeds, or no value differs."""
    return _paired(samples, np.asarray(weights, dtype=float), None).spread


def seeds_add(samples: Sequence[Sample], contrasts: ArrayLike) -> Share:
    """What seeds add to some contrasts together, for later contrasts of the same kind; see ``effects``."""
    weights = np.asarray(contrasts, dtype=float)
    spreads = _spreads([_paired(samples, row, None) for row in weights])
    return _shared(correlations(samples, weights), spreads) if spreads else UNKNOWN


def correlations(samples: Sequence[Sample], weights: Floats) -> Floats:
    """Between the contrasts with the weights [C, A], over images: [C, C], 0 with one that is the same in every image.

    What seeds do to contrasts goes together as far as what images do, through the arms that they share and how noisy these are.
    """
    sums = np.zeros((len(weights), len(weights)))
    for sample in samples:
        between = weights @ np.nan_to_num(sample.values)
        between -= between.mean(1, keepdims=True)
        lacks = (weights[:, np.isnan(sample.values[:, 0])] != 0).any(1)
        between[lacks] = 0.0
        sums += between @ between.T
    scale = np.sqrt(np.diag(sums))
    together = np.outer(scale, scale)
    alike: Floats = np.divide(sums, together, out=np.eye(len(sums)), where=together > ROUNDING)
    return alike


def _paired(samples: Sequence[Sample], weights: Floats, same: bool | None) -> Draft:
    """The contrast on the seeds that all of its arms have."""
    used = np.flatnonzero(weights)
    whole = [sample for sample in samples if np.isfinite(sample.values[used, :1]).all()]
    parts = [Part(_difference(sample.values[used], weights[used]), sample.groups) for sample in whole]
    means = np.array([sample.values[used].mean(1) for sample in whole]).reshape(-1, len(used))
    points = means @ weights[used]
    left_out = len(samples) - len(whole)
    notes = [f"{left_out} of {len(samples)} seeds left out, as a run has no result"] if left_out else []
    unmoved = bool(parts) and not any(part.values.any() for part in parts)
    if same is None:
        same = unmoved
    if unmoved and not same:
        notes.append(UNMOVED)
    if not same and _idle([sample._replace(values=sample.values[used]) for sample in whole]):
        notes.append(IDLE)
    elif not same and len(whole) < SEEDS:
        notes.append(f"descriptive only: a verdict takes {SEEDS} seeds")
    found = spread(parts) if len(parts) >= SEEDS and not same else None
    return Draft(points, _correlation(weights[used], means), same, found, notes=tuple(notes))


def _difference(values: Floats, weights: Floats) -> Floats:
    between: Floats = weights @ values
    between[np.abs(between) < ROUNDED * np.abs(values).max(initial=0.0)] = 0.0
    return between


def _idle(samples: Sequence[Sample]) -> bool:
    """Whether all seeds judge the same images and say the same of them."""
    pairs = [(samples[0], other) for other in samples[1:]]
    return bool(pairs) and all(np.array_equal(a.groups, b.groups) and np.array_equal(a.values, b.values) for a, b in pairs)


def _correlation(weights: Floats, means: Floats) -> float | None:
    """Over seeds, between the two sides of a contrast; ``means`` [S, A]."""
    gain, loss = means @ np.maximum(weights, 0), means @ np.maximum(-weights, 0)
    if len(means) < SEEDS or min(gain.var(), loss.var()) < ROUNDING:
        return None
    return float(np.corrcoef(gain, loss)[0, 1])


def _shares_of_seeds(drafts: Sequence[Draft], alike: Floats, before: Share) -> list[Share]:
    """What seeds add to each contrast: its own share, drawn to those of the family as far as these agree, and to ``before``."""
    spreads = _spreads(drafts)
    family = _family(alike, spreads) if len(spreads) > 1 else UNKNOWN
    own = {number: _shared(alike, {number: one}) for number, one in spreads.items()}
    return [reduce(together, (own.get(number, UNKNOWN), family, before, NOTHING)) for number in range(len(drafts))]


def _family(alike: Floats, spreads: Mapping[int, Spread]) -> Share:
    """The share that seeds typically add to contrasts of a family; its degrees of freedom are the more, the more these agree.

    Each 1 + share, with d degrees of freedom, is taken for a draw of s0^2 F(d, d0): s0^2 and d0 follow from the mean and the
    variance of the logarithms (Smyth 2004, section 6.2), d0 being no more than what the other contrasts know.
    """
    shares = np.array([1 + one.seed / one.within for one in spreads.values()])
    d = min(one.seeds for one in spreads.values()) - 1
    kept = list(spreads)
    most = max(independent(alike[np.ix_(kept, kept)]) - 1, 0.0) * d
    logs = np.log(np.maximum(shares, LEAST))
    varies = float(logs.var(ddof=1)) - float(scipy.special.polygamma(1, d / 2))
    if varies <= 0:
        return Share(float(shares.mean()) - 1, most)
    df = 2 * _trigamma_inverse(varies)
    offset = math.log(d / 2) - scipy.special.digamma(d / 2) + scipy.special.digamma(df / 2) - math.log(df / 2)
    return Share(math.exp(float(logs.mean()) + float(offset)) - 1, min(df, most))


def _trigamma_inverse(value: float) -> float:
    """The y with trigamma(y) = value, by Newton's method on its reciprocal (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(20):
        trigamma = float(scipy.special.polygamma(1, y))
        y += trigamma * (1 - trigamma / value) / float(scipy.special.polygamma(2, y))
    return y


def _spreads(drafts: Sequence[Draft]) -> dict[int, Spread]:
    """Of the contrasts that images make another from seed to seed."""
    return {number: draft.spread for number, draft in enumerate(drafts) if draft.spread and draft.spread.within > ROUNDING}


def _shared(alike: Floats, spreads: Mapping[int, Spread]) -> Share:
    """What seeds add to some contrasts with the correlations ``alike``: the mean of their shares."""
    share = fmean(one.seed / one.within for one in spreads.values())
    kept = list(spreads)
    return Share(share, independent(alike[np.ix_(kept, kept)]) * (min(one.seeds for one in spreads.values()) - 1))


def independent(alike: Floats) -> float:
    """As how many independent contrasts those with the correlations [C, C] speak of the spread: tr(R)^2 / tr(R^2).

    >>> independent(np.eye(3)), round(independent(np.full((3, 3), 0.5) + np.eye(3) / 2), 9)
    (3.0, 2.0)
    """
    return float(np.trace(alike) ** 2 / (alike**2).sum())


def by_arms(weights: Floats) -> Floats:
    """The correlations [C, C] of contrasts with the weights [C, A] where all arms vary alike and each for itself.

    >>> by_arms(np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])).round(3).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def _on_new_images(draft: Draft, weights: Floats, added: Share, shares: bool) -> Draft:
    """With the standard error of its mean and its degrees of freedom."""
    found = draft.spread
    if found is None:
        return draft
    grain = float(weights @ weights) / found.groups**2 if shares else 0.0
    variance, df, seed = off(found, added, grain)
    if not variance:
        return draft._replace(notes=(*draft.notes, STILL))
    most = float(weights[weights > 0].sum()) if shares else math.inf
    return draft._replace(error=math.sqrt(variance), df=df, seed=seed, most=most)


def _check(samples: Sequence[Sample], weights: Floats, delta: float, alpha: float) -> None:
    if not samples:
        raise UsageError("There is no seed with a result.")
    arms = len(samples[0].values)
    for number, (values, groups) in enumerate(samples):
        if values.ndim != 2 or not values.shape[1] or len(values) != arms or groups.shape != values.shape[1:]:
            raise UsageError(
                f"seed {number}: values of shape {values.shape}, groups of shape {groups.shape}: give arms x images, as many "
                "arms for each seed and at least one image, and one group per image."
            )
        seen = np.isfinite(values)
        if len(broken := np.flatnonzero(seen.any(1) & ~seen.all(1) | np.isinf(values).any(1))):
            raise UsageError(f"arm {broken[0]}, seed {number}: some images have no finite value. A run has all, or is all NaN.")
    if weights.ndim != 2 or weights.shape[1] != arms:
        raise UsageError(f"contrasts of shape {weights.shape} for {arms} arms: give one weight per arm in each row.")
    for number, row in enumerate(weights):
        if not np.isfinite(row).all() or not row.any() or abs(row.sum()) > 1e-9 * np.abs(row).sum():
            raise UsageError(f"contrast {number} has the weights {row.tolist()}: they must sum to 0 and not all be 0.")
    if not delta >= 0 or not 0 < alpha < 1:
        raise UsageError(f"delta={delta:g}, alpha={alpha:g}: delta is not negative, and alpha lies between 0 and 1.")
