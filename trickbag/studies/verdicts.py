"""From differences and their standard errors to the intervals and verdicts of a declared family of contrasts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy import special

from trickbag.report.findings import Interval
from trickbag.studies import power
from trickbag.studies.intervals import clopper_pearson, holm
from trickbag.studies.variance import Crossed, Floats

SEEDS = 3
"""Fewer give no verdict."""


@dataclass(frozen=True)
class Estimate:
    """What the values say of one contrast; the fields are those of ``trickbag.report.findings.Effect``."""

    points: tuple[float, ...]
    """The difference of each seed on which all of the contrast's arms have a result."""
    difference: float | None
    """Their mean; None without any."""
    sd: float | None
    this_set: Interval | None
    new_images: Interval | None
    p: float | None
    better: float | None
    better_interval: Interval | None
    verdict: str
    more_seeds: int | None
    note: str
    correlation: float | None


class Draft(NamedTuple):
    """A contrast before its family is known: what was measured, and how far it may be off."""

    points: Floats
    correlation: float | None
    same: bool
    """Whether the two sides agree in every example."""
    deviation: float
    """sd over seeds of the contrast, its own or pooled; 0 where nothing can be tested."""
    df: float
    per_seed: float = 1.0
    """Degrees of freedom that a further seed brings."""
    error: float = 0.0
    """Standard error of the mean of the points; 0 where nothing can be tested."""
    new: Crossed | None = None
    """Variance of the mean over new images."""
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """The mean of the points."""
        return float(self.points.mean())


def judged(drafts: Sequence[Draft], delta: float, alpha: float) -> tuple[Estimate, ...]:
    """The drafts, a declared family, with their intervals and verdicts; ``delta`` and ``alpha`` as in ``effects``."""
    adjusted = holm([2 * _tail(draft, 0.0) for draft in drafts])
    inside = holm([_tail(draft, delta) if draft.error and abs(draft.difference) < delta else 1.0 for draft in drafts])
    kept = max(int((adjusted > alpha).sum()), 1)
    return tuple(
        _estimate(
            draft, float(p), alpha / (kept if p > alpha else len(drafts)), bool(equal <= alpha), delta, alpha, len(drafts)
        )
        for draft, p, equal in zip(drafts, adjusted, inside, strict=True)
    )


def _tail(draft: Draft, bound: float) -> float:
    """The one-sided p of the difference's distance from the nearer of +-bound; 1/2 where nothing can be tested."""
    if not draft.error:
        return 0.5
    return float(special.stdtr(draft.df, -abs(abs(draft.difference) - bound) / draft.error))


def _student(draft: Draft, variance: float, df: float, level: float) -> Interval:
    half = float(special.stdtrit(df, 1 - level / 2)) * math.sqrt(variance)
    return Interval(draft.difference - half, draft.difference + half)


def _estimate(draft: Draft, p: float, level: float, equal: bool, delta: float, alpha: float, k: int) -> Estimate:
    """One of a family of k: ``p`` is adjusted, ``level`` is what Holm leaves to its interval."""
    count = len(draft.points)
    this_set = new_images = Interval(0.0, 0.0) if draft.same else None
    if draft.error:
        this_set = _cut(_student(draft, draft.error**2, draft.df, level), rejected=p <= alpha)
    if draft.new:
        new_images = _student(draft, draft.new.variance, draft.new.df, alpha)
    verdict = _verdict(this_set, draft.same, p <= alpha, equal, delta)
    notes = draft.notes
    if verdict in ("helps", "hurts") and this_set and max(-this_set.low, this_set.high) < delta:
        notes = (*notes, "too small a difference to count")
    won, lost = int((draft.points > 0).sum()), int((draft.points < 0).sum())
    return Estimate(
        points=tuple(draft.points.tolist()),
        difference=draft.difference if count else None,
        sd=float(draft.points.std(ddof=1)) if count > 1 else None,
        this_set=this_set,
        new_images=new_images,
        p=p if this_set else None,
        better=(won + (count - won - lost) / 2) / count if count else None,
        better_interval=clopper_pearson(won, count, count - lost, alpha) if count else None,
        verdict=verdict,
        more_seeds=_more_seeds(draft, delta, alpha, k) if verdict == "inconclusive" else None,
        note="; ".join(notes),
        correlation=draft.correlation,
    )


def _cut(interval: Interval, rejected: bool) -> Interval:
    """Without the far side of 0, which Holm's rejection has excluded."""
    low, high = interval
    if not rejected or not low < 0 < high:
        return interval
    return Interval(0.0, high) if high > -low else Interval(low, 0.0)


def _verdict(this_set: Interval | None, same: bool, rejected: bool, equal: bool, delta: float) -> str:
    if this_set is None:
        return "descriptive"
    if same:
        return "identical"
    if not rejected:
        return "equivalent" if equal else "inconclusive"
    if this_set.low < 0:
        return "hurts"
    return "worthwhile" if this_set.low > delta else "helps"


def _more_seeds(draft: Draft, delta: float, alpha: float, k: int) -> int | None:
    """How many would find the difference seen, or show it equivalent, whichever comes first."""
    if not draft.new:
        return None
    far = abs(draft.difference)
    least = power.floor(draft.new.image, draft.new.images, alpha=alpha)
    # A one-sided test at alpha is a two-sided one at 2 alpha.
    routes = ((far, alpha), (delta - far, min(2 * alpha, 0.5)))
    found = [
        power.seeds_needed(effect, draft.deviation, k, per_seed=draft.per_seed, alpha=level)
        for effect, level in routes
        if effect > least
    ]
    needed = min((seeds for seeds in found if seeds is not None), default=None)
    return None if needed is None else max(needed - len(draft.points), 1)
