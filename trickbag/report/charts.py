"""Axes, learning curves and recalls: where the marks stand, pure geometry that the templates draw as SVG.

Horizontal places are percent of a chart's width, so that a chart fits a phone and a desk alike while its text and its
dots keep their size; vertical places are pixels, or percent where it is said.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trickbag.report.findings import CONTROLS, Arm, Curve, Findings
from trickbag.report.wording import finite

MARGIN = 3.0
"""Percent that stay free at either end of an axis."""


class Axis(NamedTuple):
    """A linear scale."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The place of a value in percent; beyond the ends, the end.

        >>> Axis(0, 10).at(5), Axis(0, 10).at(99)
        (50.0, 97.0)
        """
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(MARGIN + (100 - 2 * MARGIN) * min(1.0, max(0.0, share)), 2)

    def beyond(self, value: float) -> bool:
        """Whether a value lies outside."""
        slack = 1e-9 * (self.high - self.low)
        return not self.low - slack <= value <= self.high + slack

    def ticks(self, most: int = 5) -> tuple[float, ...]:
        """Round values inside, at most ``most``.

        >>> Axis(-1.2, 2.3).ticks(4)
        (-1.0, 0.0, 1.0, 2.0)
        """
        width = (self.high - self.low) or 1.0
        power = 10.0 ** math.floor(math.log10(width / most))
        steps = (power * m for m in (1, 2, 5, 10, 20, 50))
        step = next(s for s in steps if math.floor(self.high / s) - math.ceil(self.low / s) < most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(round(n * step, 12) for n in range(first, last + 1))


class Panel(NamedTuple):
    """Learning curve of an arm beside the reference's; points in percent from the top left."""

    arm: Arm
    line: str
    band: str
    reference: str


class Curves(NamedTuple):
    """A panel per arm, all on the same axes."""

    x: Axis
    y: Axis
    panels: tuple[Panel, ...]


def curves(arms: Sequence[Arm]) -> Curves | None:
    """Learning curves; None where there are none. The axis begins where the lowest stands after a quarter of its epochs."""
    known = [(arm, arm.curve) for arm in arms if arm.curve and arm.curve.epochs]
    if not known:
        return None
    sound = [c for arm, c in known if not arm.failed] or [c for _, c in known]
    lows = [v for c in sound for v in c.low[len(c.low) // 4 :] if finite(v)]
    highs = [v for _, c in known for v in c.high if finite(v)]
    x = Axis(min(c.epochs[0] for _, c in known), max(c.epochs[-1] for _, c in known))
    y = around([min(lows, default=0.0), max(highs, default=1.0)], 0.02)
    reference = next((_trace(c, c.mean, x, y) for arm, c in known if arm is arms[0]), "")
    return Curves(x, y, tuple(Panel(arm, _trace(c, c.mean, x, y), _ribbon(c, x, y), reference) for arm, c in known))


class Strip(NamedTuple):
    """Recalls of one class: of the reference, and of every arm, in percent of the width."""

    name: str
    images: int
    recall: float
    reference: float
    dots: tuple[float, ...]
    best: tuple[float, Arm] | None
    """Largest gain on the reference, and whose; None where no arm gains."""
    worst: tuple[float, Arm] | None


def strips(findings: Findings, most: int = 20) -> tuple[Axis, tuple[Strip, ...]]:
    """The classes whose recall changes most in any arm but the controls, the largest change first."""
    reference, *others = findings.arms
    arms = [arm for arm in others if arm.recalls and not arm.failed and arm.role not in CONTROLS]
    if not reference.recalls or not arms:
        return Axis(0, 1), ()
    changes = [[(a.recalls[k] - reference.recalls[k], a) for a in arms] for k in range(len(findings.classes))]
    order = sorted(range(len(changes)), key=lambda k: (-max(abs(d) for d, _ in changes[k]), k))
    order = [k for k in order if any(d for d, _ in changes[k])][:most]
    axis = Axis(min((arm.recalls[k] for arm in (reference, *arms) for k in order), default=0.0), 1.0)
    return axis, tuple(_strip(findings, k, changes[k], axis) for k in order)


def _strip(findings: Findings, k: int, changes: Sequence[tuple[float, Arm]], axis: Axis) -> Strip:
    best, worst = max(changes, key=lambda change: change[0]), min(changes, key=lambda change: change[0])
    recall = findings.arms[0].recalls[k]
    dots = tuple(axis.at(recall + d) for d, _ in changes)
    extremes = best if best[0] > 0 else None, worst if worst[0] < 0 else None
    return Strip(findings.classes[k], findings.class_counts[k], recall, axis.at(recall), dots, *extremes)


def around(values: Sequence[float], share: float) -> Axis:
    """An axis with some room at both ends, as a share of the values' range."""
    low, high = min(values), max(values)
    room = share * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - room, high + room)


def _trace(curve: Curve, values: Iterable[float], x: Axis, y: Axis) -> str:
    points = [(x.at(e), 100 - _free(y, v)) for e, v in zip(curve.epochs, values, strict=True) if math.isfinite(v)]
    # A line of one point would not be drawn.
    return spelled(points * 2 if len(points) == 1 else points)


def _ribbon(curve: Curve, x: Axis, y: Axis) -> str:
    known = [(x.at(e), lo, hi) for e, lo, hi in zip(curve.epochs, curve.low, curve.high, strict=True) if math.isfinite(lo + hi)]
    upper = [(px, 100 - _free(y, hi)) for px, _, hi in known]
    return spelled(upper + [(px, 100 - _free(y, lo)) for px, lo, _ in reversed(known)])


def _free(axis: Axis, value: float) -> float:
    """Percent without the stop at the ends: what lies outside is clipped by the frame."""
    return MARGIN + (100 - 2 * MARGIN) * (value - axis.low) / (axis.high - axis.low)


def spelled(path: Iterable[tuple[float, float]]) -> str:
    """Points as SVG has them."""
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in path)
