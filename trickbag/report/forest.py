"""The forest plot: every effect on one axis, with its seeds, its interval and the region of equivalence."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from trickbag.report.charts import Axis
from trickbag.report.findings import Effect
from trickbag.statistics.intervals import Interval


class Row(NamedTuple):
    """One effect of the forest plot; all in percent."""

    effect: Effect
    point: float | None
    """None where it lies beyond the axis, as do intervals that lie beyond it wholly."""
    interval: tuple[float, float] | None
    ends: tuple[float, ...]
    """Those ends of ``interval`` that lie on the axis."""
    dots: tuple[float, ...]
    left: bool
    """Whether something lies beyond the left end."""
    right: bool


class Forest(NamedTuple):
    """Effects on one axis."""

    axis: Axis
    rows: tuple[Row, ...]
    zero: float
    band: tuple[float, float]
    """The region of practical equivalence."""


def forest(effects: Sequence[Effect], delta: float) -> Forest:
    """Effects on a common axis; one far out, as of a diverged arm, is cut off rather than flattening the others."""
    reach = [max((abs(v) for v in _values(e)), default=0.0) for e in effects]
    limit = max(2 * delta, 4 * median(reach) if reach else 0.0, 1e-6)
    kept = [v for e in effects for v in _values(e) if abs(v) <= limit]
    axis = Axis(min([-1.5 * delta, *kept]), max([1.5 * delta, *kept]))
    band = (axis.at(-delta), axis.at(delta))
    return Forest(axis, tuple(_row(effect, axis) for effect in effects), axis.at(0.0), band)


def _values(effect: Effect) -> list[float]:
    return [v for v in (*effect.points, effect.difference, *(effect.interval or ())) if math.isfinite(v)]


def _row(effect: Effect, axis: Axis) -> Row:
    values = _values(effect)
    return Row(
        effect,
        next(iter(inside([effect.difference], axis)), None),
        clipped(effect.interval, axis),
        inside(effect.interval or (), axis),
        inside(effect.points, axis),
        any(axis.beyond(v) and v < 0 for v in values),
        any(axis.beyond(v) and v > 0 for v in values),
    )


def inside(values: Iterable[float], axis: Axis) -> tuple[float, ...]:
    """The places of those values that lie on the axis, in percent."""
    return tuple(axis.at(value) for value in values if math.isfinite(value) and not axis.beyond(value))


def clipped(interval: Interval | None, axis: Axis) -> tuple[float, float] | None:
    """The part of an interval that lies on the axis, in percent; None where none does."""
    if interval is None or not math.isfinite(interval.low + interval.high):
        return None
    low, high = axis.at(interval.low), axis.at(interval.high)
    return (low, high) if low < high or not axis.beyond(interval.low) else None
