"""From differences and their standard errors to the intervals and verdicts of a declared family of contrasts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import scipy  # its special functions take a third of a second to import, when the first is called

from trickbag.statistics import power
from trickbag.statistics.intervals import Interval, clopper_pearson, holm
from trickbag.statistics.variance import ROUNDING, Floats, Spread

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
    error: float | None
    """Standard error of the difference, on new images and with new seeds; 0 of one and the same network."""
    df: float | None
    """Degrees of freedom behind the standard error."""
    interval: Interval | None
    over_seeds: Interval | None
    p: float | None
    better: float | None
    better_interval: Interval | None
    verdict: str
    more_seeds: int | None
    more_images: int | None
    note: str
    correlation: float | None


SHARED = tuple(field.name for field in fields(Estimate) if field.name not in ("difference", "note"))
"""Fields that an effect takes from its estimate as they are."""


class Draft(NamedTuple):
    """A contrast before its family is known: what was measured, and how far it may be off."""

    points: Floats
    correlation: float | None
    same: bool
    """Whether the two sides are one and the same network."""
    spread: Spread | None
    error: float = 0.0
    """Standard error of the mean of the points; 0 where nothing can be tested."""
    df: float = 1.0
    seed: float = 0.0
    """Variance that a seed adds to what it judges."""
    notes: tuple[str, ...] = ()
    most: float = math.inf
    """No difference is larger."""

    @property
    def difference(self) -> float:
        """The mean of the points."""
        return float(self.points.mean())


def judged(drafts: Sequence[Draft], delta: float, alpha: float, pool: int) -> tuple[Estimate, ...]:
    """The drafts, a declared family, with their intervals and verdicts; ``delta``, ``alpha`` and ``pool`` as in ``effects``."""
    adjusted = holm([2 * _tail(draft, 0.0) for draft in drafts])
    inside = holm([_tail(draft, delta) if draft.error and abs(draft.difference) < delta else 1.0 for draft in drafts])
    kept = max(int((adjusted > alpha).sum()), 1)
    made = (
        _estimate(draft, float(p), alpha / (kept if p > alpha else len(drafts)), bool(equal <= alpha), delta, alpha)
        for draft, p, equal in zip(drafts, adjusted, inside, strict=True)
    )
    return tuple(_with_more(one, d, delta, alpha / len(drafts), pool) for one, d in zip(made, drafts, strict=True))


def _tail(draft: Draft, bound: float) -> float:
    """The one-sided p of the difference's distance from the nearer of +-bound; 1/2 where nothing can be tested."""
    if not draft.error:
        return 0.5
    return float(scipy.special.stdtr(draft.df, -abs(abs(draft.difference) - bound) / draft.error))


def _student(middle: float, error: float, df: float, level: float) -> Interval:
    half = float(scipy.special.stdtrit(df, 1 - level / 2)) * error
    return Interval(middle - half, middle + half)


def _estimate(draft: Draft, p: float, level: float, equal: bool, delta: float, alpha: float) -> Estimate:
    """One of a family: ``p`` is adjusted, ``level`` is what Holm leaves to its interval."""
    count = len(draft.points)
    sd = float(draft.points.std(ddof=1)) if count > 1 else None
    interval = over_seeds = Interval(0.0, 0.0) if draft.same else None
    if draft.error:
        low, high = _cut(_student(draft.difference, draft.error, draft.df, level), rejected=p <= alpha)
        interval = Interval(max(low, -draft.most), min(high, draft.most))
    if draft.error and sd is not None:
        over_seeds = _student(draft.difference, sd / math.sqrt(count), count - 1, alpha)
    verdict = _verdict(interval, draft.same, p <= alpha, equal, delta)
    notes = draft.notes
    if verdict in ("helps", "hurts") and interval and max(-interval.low, interval.high) < delta:
        notes = (*notes, "too small a difference to count")
    won, lost = int((draft.points > 0).sum()), int((draft.points < 0).sum())
    return Estimate(
        points=tuple(draft.points.tolist()),
        difference=draft.difference if count else None,
        sd=sd,
        error=draft.error if interval else None,
        df=draft.df if draft.error else None,
        interval=interval,
        over_seeds=over_seeds,
        p=p if interval else None,
        better=(won + (count - won - lost) / 2) / count if count else None,
        better_interval=clopper_pearson(won, count, count - lost, alpha) if count else None,
        verdict=verdict,
        more_seeds=None,
        more_images=None,
        note="; ".join(notes),
        correlation=draft.correlation,
    )


def _cut(interval: Interval, rejected: bool) -> Interval:
    """Without the far side of 0, which Holm's rejection has excluded."""
    low, high = interval
    if not rejected or not low < 0 < high:
        return interval
    return Interval(0.0, high) if high > -low else Interval(low, 0.0)


def _verdict(interval: Interval | None, same: bool, rejected: bool, equal: bool, delta: float) -> str:
    if interval is None:
        return "descriptive"
    if same:
        return "identical"
    if not rejected:
        return "equivalent" if equal else "open"
    if interval.low < 0:
        return "hurts"
    return "worthwhile" if interval.low > delta else "helps"


def _with_more(made: Estimate, draft: Draft, delta: float, alpha: float, pool: int) -> Estimate:
    """With how many more seeds, and how many more images, would decide it: find the difference seen or show it equivalent,
    whichever takes less."""
    found = draft.spread
    if made.verdict != "open" or found is None or not found.images > ROUNDING:
        return made
    far = abs(draft.difference)
    wanted = max(power.variance_for(far, alpha), power.variance_for(max(delta - far, 0.0), min(2 * alpha, 0.5)))
    seeds, images = power.seeds_for(wanted, found, draft.seed, pool), power.images_for(wanted, found, draft.seed)
    return replace(
        made,
        more_seeds=seeds and max(seeds - len(draft.points), 1),
        more_images=images and max(images - found.groups, 1),
    )
