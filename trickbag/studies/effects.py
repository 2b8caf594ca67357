"""The statistics of a study: from stored predictions to effects with two intervals and a verdict.

Everything is a contrast: a weight per arm, summing to 0, over values [A, S, N] (arm, seed, judged example) that are
correctness (0 or 1) or minus NLL, so that more is better. Seeds are blocks: arms are compared on the same seeds.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from trickbag.ground.errors import UsageError
from trickbag.studies.variance import ROUNDING, Crossed, Flags, Floats, Pool, crossed, grouped, pool
from trickbag.studies.verdicts import SEEDS, Draft, Estimate, judged

STILL = "the difference is always the same: there is no spread to judge it by"
IDLE = "the seed changes nothing here: every run of an arm gets the same images right, so more seeds add nothing"


def effects(
    values: ArrayLike, contrasts: ArrayLike, *, groups: ArrayLike | None = None, delta: float = 0.002, alpha: float = 0.05
) -> tuple[Estimate, ...]:
    """An estimate of each contrast, the contrasts being the declared family.

    ``values`` [A, S, N] are one number per arm, seed and judged example, a row of NaN for a run without a result;
    ``contrasts`` [C, A] are weights that sum to 0; ``groups`` [N] are the numbers of the examples' groups (patient, burst,
    video); ``delta`` is half the width of the region of practical equivalence, in the unit of the values.

    *This set*: Student's t over seeds. The variance is pooled over the arms (``trickbag.studies.variance.pool``), or the
    contrast's own where its arms do not vary like the pool, which the note says. p is adjusted by Holm's method over all C
    contrasts. The interval of a contrast that Holm rejects has the level 1 - alpha / C and is cut at 0; those of the others, a
    in number, have 1 - alpha / a. So an interval excludes 0 exactly where p <= alpha, all contrasts that are 0 are covered
    together with 1 - alpha, and each interval alone has at least that. (After Strassburger and Bretz, Statistics in Medicine
    2008, whose simultaneous intervals give up the far end of what is rejected.)
    *New images*: crossed variance components (``trickbag.studies.variance.crossed``), 1 - alpha, each by itself.

    Verdicts: identical (no example differs), descriptive (fewer than three seeds, or nothing varies), helps (low > 0),
    worthwhile (low > delta), hurts (high < 0), equivalent (two one-sided tests inside +-delta, adjusted by Holm's method), else
    inconclusive. ``more_seeds`` would find the difference seen, or its equivalence, with 80 % power; None where that takes over
    1,000 seeds or where more images are what it takes.

    Raises UsageError for values or contrasts of another shape, a row that is NaN in part, and weights that do not sum to 0.

    >>> accuracy = [[[0.80], [0.82], [0.81], [0.79]], [[0.84], [0.85], [0.85], [0.84]]]
    >>> found = effects(accuracy, [[-1, 1]])[0]
    >>> found.verdict, round(found.difference, 3), [round(end, 3) for end in found.this_set]
    ('worthwhile', 0.04, [0.027, 0.053])
    """
    table, weights = _values(values), np.asarray(contrasts, dtype=float)
    _check(weights, len(table), delta, alpha)
    members = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if members is not None and members.shape != table.shape[2:]:
        raise UsageError(f"groups of shape {members.shape} for {table.shape[2]} judged examples: give one number per example.")
    common, drafts = pool(table), []
    for row in weights:
        draft, between = _paired(table, row)
        if len(draft.points) >= SEEDS and not draft.same:
            draft = _on_new_images(_on_this_set(draft, row, common), between if members is None else grouped(between, members))
        drafts.append(draft)
    return judged(drafts, delta, alpha)


def over_folds(
    means: ArrayLike, contrasts: ArrayLike, *, train: float, test: float, delta: float = 0.002, alpha: float = 0.05
) -> tuple[Estimate, ...]:
    """An estimate of each contrast from repeated k-fold cross-validation.

    ``means`` [A, B] are one mean per arm and fold, all repeats in a row; ``train`` and ``test`` are how many images each fold
    trains on and judges. The variance of a mean difference is s^2 (1 / B + test / train): folds share training images, and
    their plain standard error is too small (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003,
    eq. 11); B - 1 degrees of freedom. Both intervals are that one, ``this_set`` adjusted by Holm's method: every image is
    judged, and both speak of new ones. More repeats would not remove the second term, so ``more_seeds`` is None.

    >>> found = over_folds([[0.8, 0.8, 0.8, 0.8], [0.9, 0.8, 0.9, 0.8]], [[-1, 1]], train=75, test=25)[0]
    >>> found.verdict, round(found.difference, 3), [round(end, 3) for end in found.this_set]
    ('inconclusive', 0.05, [-0.09, 0.19])
    """
    values, weights = _values(np.asarray(means, dtype=float)[..., None]), np.asarray(contrasts, dtype=float)
    _check(weights, len(values), delta, alpha)
    if not (train > 0 and test > 0):
        raise UsageError(f"train={train:g}, test={test:g}: a fold trains on images and judges images.")
    drafts = []
    for row in weights:
        draft, _ = _paired(values, row, "folds")
        if len(draft.points) >= SEEDS and not draft.same:
            error = draft.deviation * math.sqrt(1 / len(draft.points) + test / train)
            new = Crossed(error**2, draft.df, math.inf, 1) if error else None
            draft = draft._replace(error=error, new=new, notes=draft.notes if error else (*draft.notes, STILL))
        drafts.append(draft)
    return judged(drafts, delta, alpha)


def _paired(values: Floats, weights: Floats, blocks: str = "seeds") -> tuple[Draft, Floats]:
    """The contrast on the blocks that all of its arms have, and [S, N] its difference in every example."""
    used = np.flatnonzero(weights)
    seeds: Flags = np.asarray(np.isfinite(values[used, :, 0]).all(0))
    sides = values[used][:, seeds]
    between = np.tensordot(weights[used], sides, 1)
    # Weights such as 1/3 leave rounding where the two sides agree.
    between[np.abs(between) < 1e-12] = 0.0
    points, count = between.mean(1), int(seeds.sum())
    own = float(points.std(ddof=1)) if count > 1 else 0.0
    same = count > 0 and not between.any()
    notes = [] if count == len(seeds) else [f"{len(seeds) - count} of {len(seeds)} {blocks} left out, as a run has no result"]
    idle = blocks == "seeds" and count > 1 and not same and bool((sides == sides[:, :1]).all())
    if idle:
        notes.append(IDLE)
    elif count < SEEDS and not same:
        notes.append(f"descriptive only: a verdict takes {SEEDS} {blocks}")
    deviation = own if own**2 > ROUNDING else 0.0
    draft = Draft(points, _correlation(weights[used], sides.mean(2)), same, deviation, count - 1, notes=tuple(notes))
    return draft, between


def _correlation(weights: Floats, means: Floats) -> float | None:
    """Over seeds, between the two sides of a contrast."""
    gain, loss = np.maximum(weights, 0) @ means, np.maximum(-weights, 0) @ means
    if means.shape[1] < SEEDS or min(gain.var(), loss.var()) < ROUNDING:
        return None
    return float(np.corrcoef(gain, loss)[0, 1])


def _on_this_set(draft: Draft, weights: Floats, common: Pool) -> Draft:
    """With the standard error over seeds."""
    reason, notes, root = common.reason(weights), draft.notes, math.sqrt(len(draft.points))
    if reason and (draft.deviation or not common.df or common.still[weights != 0].all()):
        if IDLE not in notes:
            notes = (*notes, f"judged by its own spread over seeds, as {reason}" if draft.deviation else STILL)
        return draft._replace(error=draft.deviation / root, notes=notes)
    if reason:
        notes = (*notes, "judged by the pooled spread over seeds, as every seed gives the same difference")
    pooled = math.sqrt(common.variance * float(weights @ weights))
    return draft._replace(deviation=pooled, df=common.df, per_seed=common.per_seed, error=pooled / root, notes=notes)


def _on_new_images(draft: Draft, between: Floats) -> Draft:
    """With the variance over new images, of which ``between`` [S, n] are the independent ones."""
    new = crossed(between)
    return draft._replace(
        new=new, notes=draft.notes if new else (*draft.notes, "too few images that differ to speak of new ones")
    )


def _values(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=float)
    if table.ndim != 3 or not table.shape[2]:
        raise UsageError(f"values of shape {table.shape}: give arms x seeds x judged examples, at least one example.")
    seen = np.isfinite(table)
    broken = np.argwhere(seen.any(2) & ~seen.all(2) | np.isinf(table).any(2))
    if len(broken):
        arm, seed = broken[0]
        raise UsageError(
            f"arm {arm}, seed {seed}: some judged examples have no finite value. A run has all of them, or is all NaN."
        )
    return table


def _check(weights: Floats, arms: int, delta: float, alpha: float) -> None:
    if weights.ndim != 2 or weights.shape[1] != arms:
        raise UsageError(f"contrasts of shape {weights.shape} for {arms} arms: give one weight per arm in each row.")
    for number, row in enumerate(weights):
        if not np.isfinite(row).all() or not row.any() or abs(row.sum()) > 1e-9 * np.abs(row).sum():
            raise UsageError(f"contrast {number} has the weights {row.tolist()}: they must sum to 0 and not all be 0.")
    if not delta >= 0 or not 0 < alpha < 1:
        raise UsageError(f"delta={delta:g}, alpha={alpha:g}: delta is not negative, and alpha lies between 0 and 1.")
