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
    values = [_values(e) for e in effects]
    most = limit(values, max(2 * delta, 1e-6))
    kept = [v for own in values for v in own if abs(v) <= most]
    axis = Axis(min([-1.5 * delta, *kept]), max([1.5 * delta, *kept]))
    band = (axis.at(-delta), axis.at(delta))
    return Forest(axis, tuple(_row(effect, axis) for effect in effects), axis.at(0.0), band)


def limit(values: Sequence[Sequence[float]], least: float) -> float:
    """How far from 0 an axis reaches that shows the values of most effects: what lies beyond would flatten the others.

    >>> limit([[0.1, -0.2], [0.3], [40.0]], 0.01)
    1.2
    """
    reach = [max(map(abs, own), default=0.0) for own in values]
    return max(least, 4 * median(reach) if reach else 0.0)


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
