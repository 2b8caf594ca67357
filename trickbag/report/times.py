"""Accuracy against time: the arms, the Pareto front and labels that do not collide on a phone."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from trickbag.report.charts import Axis, around, spelled
from trickbag.report.findings import Arm

HEIGHT = 300
"""Pixels of the chart."""
PHONE = 300
"""Width in pixels at which its labels must not collide."""
_AROUND = [
    (round(radius * math.cos(math.radians(turn)), 1), round(-radius * math.sin(math.radians(turn)), 1))
    for radius in (14, 20, 27, 35, 44, 54)
    for turn in (0, 180, 45, 315, 135, 225, 90, 270, 22, 338, 158, 202)
]


class Spot(NamedTuple):
    """An arm in the chart of accuracy against time."""

    number: int
    arm: Arm
    x: float
    """Percent."""
    y: float
    """Pixels from the top, as are ``top`` and ``bottom``."""
    top: float
    bottom: float
    dx: float
    """Pixels from the dot to the middle of its number."""
    dy: float
    front: bool
    below: bool
    """Whether the arm lies below the frame."""


class Times(NamedTuple):
    """Accuracy against time."""

    x: Axis
    y: Axis
    spots: tuple[Spot, ...]
    front: str
    """Points of the line of arms that no arm beats in both, x in percent and y in pixels."""

    def height(self, accuracy: float) -> float:
        """Pixels from the top."""
        return round(HEIGHT * (100 - self.y.at(accuracy)) / 100, 1)


def times(arms: Sequence[Arm]) -> Times | None:
    """Accuracy against seconds of the arms that have both; None with fewer than two.

    An arm with failures is on no front. One far below the others, as after a failure, is shown at the lower edge.
    """
    known = [
        (n, arm, arm.price.seconds, arm.accuracy) for n, arm in enumerate(arms, 1) if arm.price and arm.accuracy is not None
    ]
    known = [(n, arm, seconds, accuracy) for n, arm, seconds, accuracy in known if math.isfinite(seconds + accuracy)]
    if len(known) < 2:
        return None
    y = _accuracies([(arm, accuracy) for _, arm, _, accuracy in known])
    chart = Times(around([seconds for *_, seconds, _ in known], 0.06), y, (), "")
    front = pareto([(seconds, -math.inf if arm.failed else accuracy) for _, arm, seconds, accuracy in known])
    places = [(chart.x.at(seconds), chart.height(accuracy)) for *_, seconds, accuracy in known]
    offsets = labels([(PHONE * x / 100, y) for x, y in places])
    spots = []
    for index, ((number, arm, _, accuracy), place, offset) in enumerate(zip(known, places, offsets, strict=True)):
        sd = arm.sd if arm.sd is not None and math.isfinite(arm.sd) else 0.0
        ends = chart.height(accuracy + sd), chart.height(accuracy - sd)
        spots.append(Spot(number, arm, *place, *ends, *offset, index in front, accuracy < y.low))
    return chart._replace(spots=tuple(spots), front=_steps(sorted((spot.x, spot.y) for spot in spots if spot.front)))


def pareto(pairs: Sequence[tuple[float, float]]) -> frozenset[int]:
    """Which of (cost, gain) no other beats: none is cheaper at as much gain, or gains more at as little cost.

    >>> sorted(pareto([(1, 5), (2, 4), (3, 9), (3, 8)]))
    [0, 2]
    """
    beaten = {
        i
        for i, (cost, gain) in enumerate(pairs)
        for other, more in pairs
        if (other <= cost and more > gain) or (other < cost and more >= gain)
    }
    return frozenset(i for i in range(len(pairs)) if i not in beaten and pairs[i][1] > -math.inf)


def labels(dots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Offsets in pixels for a number beside each dot, the nearest place at which it covers no dot and no other number."""
    taken = [(x, y, 4.0, 4.0) for x, y in dots]
    offsets = []
    for x, y in dots:
        free = (spot for spot in _AROUND if not any(_meet((x + spot[0], y + spot[1], 8.5, 7.0), box) for box in taken))
        dx, dy = next(free, _AROUND[0])
        taken.append((x + dx, y + dy, 8.5, 7.0))
        offsets.append((dx, dy))
    return offsets


def _accuracies(known: Sequence[tuple[Arm, float]]) -> Axis:
    sound = [(arm, accuracy) for arm, accuracy in known if not arm.failed] or known
    middle = median(accuracy for _, accuracy in sound)
    floor = middle - 4 * median(abs(accuracy - middle) for _, accuracy in sound) - 0.03
    shown = [(arm, accuracy) for arm, accuracy in sound if accuracy >= floor]
    return around([accuracy + sign * (arm.sd or 0.0) for arm, accuracy in shown for sign in (-1, 1)], 0.04)


def _steps(front: Sequence[tuple[float, float]]) -> str:
    """Right, then up: until a dearer arm's time, the cheaper one's accuracy is what can be had."""
    path = list(front[:1])
    for (_, before), (x, y) in pairwise(front):
        path += [(x, before), (x, y)]
    return spelled(path)


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return abs(a[0] - b[0]) < a[2] + b[2] and abs(a[1] - b[1]) < a[3] + b[3]
