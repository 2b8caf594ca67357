"""What the studies of several data sets say together, as plain values, and their page and table.

Differences are fractions (0.002 is 0.2 percentage points), as in ``trickbag.report.findings``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, NamedTuple

from trickbag.ground.text import counted
from trickbag.report.charts import Axis
from trickbag.report.forest import clipped, inside
from trickbag.report.page import environment
from trickbag.report.wording import DASH, number, percent, points, ratio, span
from trickbag.statistics.intervals import Interval
from trickbag.statistics.meta import Pooled

Regime = Literal["from scratch", "fine-tuning", "frozen"]
"""How the reference of a study trains; studies that differ in it are not mixed."""
REGIMES: dict[Regime, str] = {
    "from scratch": "The network begins with random weights.",
    "fine-tuning": "The network begins with trained weights, and all of it is trained on.",
    "frozen": "The network below the classifier stays as it is.",
}
HELPED = ("helps", "worthwhile")
NORMAL = 1.959964
"""Standard errors from the middle to either end of a 95 % interval."""


@dataclass(frozen=True)
class Measured:
    """A trick on one data set."""

    data: str
    difference: float
    """With the trick minus without it."""
    error: float
    """Standard error, above 0, on new photos and with new seeds."""
    verdict: str
    """Of the study."""
    price: float | None
    """As a multiple of the time without it; None where the times do not count."""

    @property
    def interval(self) -> Interval:
        """95 %, of this data set and trick by themselves."""
        return Interval(self.difference - NORMAL * self.error, self.difference + NORMAL * self.error)


@dataclass(frozen=True)
class Entry:
    """A trick over the data sets."""

    name: str
    """As spelled: other parameters are another trick."""
    sets: tuple[Measured, ...]
    unchanged: tuple[str, ...]
    """Data sets on which it changes nothing, as class weights where all classes are alike; they are not pooled."""
    pooled: Pooled | None
    """None with fewer than two sets."""

    @property
    def gain(self) -> float:
        """The mean where sets are pooled, else what was measured."""
        return self.pooled.mean if self.pooled else fmean([one.difference for one in self.sets] or [0.0])

    @property
    def price(self) -> float | None:
        """The geometric mean of the prices that count."""
        known = [math.log(one.price) for one in self.sets if one.price]
        return math.exp(fmean(known)) if known else None

    @property
    def tried(self) -> int:
        """Data sets on which it was measured."""
        return len(self.sets) + len(self.unchanged)

    @property
    def helped(self) -> int:
        """Data sets whose study says that it helps."""
        return sum(one.verdict in HELPED for one in self.sets)


@dataclass(frozen=True)
class Source:
    """A study."""

    data: str
    """What its data set is called here: studies of the same images have one name, and others another."""
    folder: str
    fingerprint: str
    """Of the images."""
    model: str
    epochs: int
    images: int
    """Judged."""
    seeds: int


@dataclass(frozen=True)
class Group:
    """The studies of one regime."""

    regime: Regime
    sources: tuple[Source, ...]
    entries: tuple[Entry, ...]
    """The largest gain first."""
    notes: tuple[str, ...]
    """What was left out, and why."""


@dataclass(frozen=True)
class Atlas:
    """The studies of several data sets."""

    date: str
    """Of the day it was made, as 2026-11-29."""
    groups: tuple[Group, ...]


HEAD = (
    *("trick", "data sets", "mean gain", "95 % for the mean", "95 % on a new data set", "τ", "I²"),
    *("helped on", "price"),
)


def row(entry: Entry) -> tuple[str, ...]:
    """A trick under HEAD, gains in percentage points."""
    pooled = entry.pooled
    return (
        *(entry.name, str(entry.tried), points(pooled.mean if pooled else None)),
        *(span(pooled and pooled.interval, points), span(pooled and pooled.prediction, points)),
        f"{number(100 * pooled.tau)} (to {number(100 * pooled.tau_interval.high)})" if pooled else DASH,
        percent(pooled.i2 if pooled else None),
        *(f"{entry.helped} of {entry.tried}", ratio(entry.price)),
    )


def answer(group: Group) -> tuple[str, ...]:
    """What can be said of the tricks of a regime, in sentences."""
    pooled = [(entry.name, entry.pooled) for entry in group.entries if entry.pooled]
    alone = [entry.name for entry in group.entries if not entry.pooled and entry.sets]
    if not pooled:
        return ("No trick was measured on two data sets, so there is nothing to combine: give studies of more data sets.",)
    found = {
        "The mean gain is above 0": [name for name, one in pooled if one.interval.low > 0],
        "The mean gain is below 0": [name for name, one in pooled if one.interval.high < 0],
        "The mean gain is not decided": [name for name, one in pooled if one.interval.low <= 0 <= one.interval.high],
        "Measured on one data set, and so not combined": alone,
    }
    return tuple(f"{says}: {', '.join(names)}." for says, names in found.items() if names)


class Mark(NamedTuple):
    """A range on the axis; all in percent."""

    point: float | None
    """None where it lies beyond the axis, as do ranges that lie beyond it wholly."""
    span: tuple[float, float] | None
    ends: tuple[float, ...]
    """Those ends of ``span`` that lie on the axis."""
    left: bool
    """Whether something lies beyond the left end."""
    right: bool


class Plot(NamedTuple):
    """The forest plot of a trick."""

    entry: Entry
    sets: tuple[tuple[Measured, Mark], ...]
    mean: Mark | None
    ahead: Mark | None
    """Where a new data set lies."""

    @property
    def cut(self) -> bool:
        """Whether something lies beyond the axis."""
        return any(mark.left or mark.right for mark in (*(mark for _, mark in self.sets), self.mean, self.ahead) if mark)


class Forest(NamedTuple):
    """The forest plots of a regime, all on one axis."""

    axis: Axis
    zero: float
    plots: tuple[Plot, ...]


def forest(entries: Sequence[Entry]) -> Forest:
    """All tricks on one axis; ranges far wider than the others, as of a mean of two sets, are cut off."""
    ends = [abs(end) for entry in entries for one in entry.sets for end in one.interval]
    limit = max(4 * median(ends) if ends else 0.0, 1e-6)
    ranges = [one.interval for entry in entries for one in entry.sets]
    ranges += [
        found for entry in entries if entry.pooled for found in (entry.pooled.interval, entry.pooled.prediction) if found
    ]
    kept = [min(max(end, -limit), limit) for found in ranges for end in found]
    axis = Axis(min([-limit / 8, *kept]), max([limit / 8, *kept]))
    return Forest(axis, axis.at(0.0), tuple(_plot(entry, axis) for entry in entries))


def _plot(entry: Entry, axis: Axis) -> Plot:
    pooled = entry.pooled
    return Plot(
        entry,
        tuple((one, _mark(one.difference, one.interval, axis)) for one in entry.sets),
        _mark(pooled.mean, pooled.interval, axis) if pooled else None,
        _mark(pooled.mean, pooled.prediction, axis) if pooled and pooled.prediction else None,
    )


def _mark(point: float, found: Interval, axis: Axis) -> Mark:
    return Mark(
        next(iter(inside([point], axis)), None),
        clipped(found, axis),
        inside(found, axis),
        found.low < axis.low and axis.beyond(found.low),
        found.high > axis.high and axis.beyond(found.high),
    )


def page(atlas: Atlas) -> str:
    """The atlas as one HTML file that needs nothing else. Equal atlases give an equal page."""
    groups = [(group, answer(group), forest([e for e in group.entries if e.sets])) for group in atlas.groups]
    return (
        environment()
        .get_template("atlas.html")
        .render(atlas=atlas, groups=groups, head=HEAD, row=row, regimes=REGIMES, sets=sets)
    )


def sets(group: Group) -> str:
    """How many data sets and studies of them."""
    sets, studies = len({source.data for source in group.sources}), len(group.sources)
    return counted(sets, "data set") + (f", {counted(studies, 'study', 'studies')}" if studies > sets else "")
