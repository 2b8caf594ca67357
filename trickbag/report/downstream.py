"""What tricks do to the classifier and what they do downstream: rows of a table, sentences, and the two gains as a chart."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from trickbag.ground.text import counted
from trickbag.report.charts import Axis, around
from trickbag.report.findings import Downstream, Effect, Findings, MeasuredEffect
from trickbag.report.forest import clipped, inside, limit
from trickbag.report.times import HEIGHT, PHONE, labels
from trickbag.report.wording import DASH, MEASURES, percent, points, said, span

PAIRED = ("interaction", "pair")
"""Kinds of effects that are no gain of one trick."""
DECIDED = ("helps", "worthwhile", "hurts")
SAYS = {
    "helps": "helps {}",
    "worthwhile": "helps {}",
    "hurts": "hurts {}",
    "open": "is not decided for {}",
    "equivalent": "makes no difference that matters to {}",
    "identical": "leaves {} exactly as it is",
    "descriptive": "has no verdict for {}",
}
CLASSIFIER = "the classifier"
COLUMNS = ("difference", "low", "high", "verdict")
"""Of ``effects.csv``, for each data set."""


class Line(NamedTuple):
    """An effect, and the same of each data set; None where there is none."""

    effect: Effect
    measured: tuple[MeasuredEffect | None, ...]


def lines(findings: Findings) -> list[Line]:
    """All effects, in their order."""
    found = [{(m.name, m.says): m for m in one.effects} for one in findings.downstream]
    return [Line(e, tuple(own.get((e.name, e.says)) for own in found)) for e in findings.effects]


def title(one: Downstream) -> str:
    """What a column is of."""
    images, networks = counted(one.images, f"{one.split} image"), counted(one.runs, "classifier")
    return (
        f"{one.name} by {MEASURES[one.measure]} on {images}, {percent(one.reference)} for the reference; "
        f"{counted(one.trainings, 'training')} for {networks}"
    )


def head(findings: Findings) -> tuple[str, ...]:
    """Of the table for people, differences being in points."""
    return ("effect", "contrast", CLASSIFIER, *(one.name for one in findings.downstream))


def rows(findings: Findings) -> list[list[str]]:
    """The effects under the head, each with interval and verdict."""
    return [[e.name, e.says, _cell(e), *map(_cell, measured)] for e, measured in lines(findings)]


def _cell(one: Effect | MeasuredEffect | None) -> str:
    """A difference in points with its interval and verdict."""
    if one is None or one.difference is None:
        return DASH
    return f"{_numbers(one)}; {said(one.verdict)}"


def columns(findings: Findings) -> list[str]:
    """Further columns of ``effects.csv``."""
    names = (re.sub(r"\W+", "_", one.name) for one in findings.downstream)
    return [f"{name}_{column}" for name in names for column in COLUMNS]


def values(line: Line) -> list[float | str | None]:
    """What an effect has in them."""
    found: list[float | str | None] = []
    for one in line.measured:
        ends = one.interval if one and one.interval else (None, None)
        found += [one.difference, *ends, one.verdict] if one else [None] * len(COLUMNS)
    return found


def sentences(findings: Findings, place: int) -> list[str]:
    """Which tricks help the classifier and not what stands at a place downstream, or the other way round, as far as is known.

    Those that help one and hurt the other come first.
    """
    one = findings.downstream[place]
    asked = [(e, measured[place]) for e, measured in lines(findings) if e.declared and e.kind not in PAIRED]
    known = [(e, m) for e, m in asked if m and m.difference is not None]
    if not known:
        return [f"Nothing is known of {one.name} yet."]
    opposed = [pair for pair in known if {_side(pair[0]), _side(pair[1])} == {-1, 1}]
    others = [pair for pair in known if pair not in opposed]
    apart = [pair for pair in others if _side(pair[0]) != _side(pair[1])]
    alike = [pair for pair in others if _side(pair[0]) == _side(pair[1]) != 0]
    made = [_sentence(e, m, one) for e, m in [*opposed, *apart, *alike]]
    if not opposed and any(m.verdict != "descriptive" for _, m in known):
        made.append(f"No trick is shown to help {CLASSIFIER} and to hurt {one.name}, or the other way round.")
    quiet = [(e, m) for e, m in others if not _side(e) and not _side(m)]
    if same := [e.name for e, m in quiet if m.verdict == "identical"]:
        made.append(f"The network below is the same for {', '.join(same)}, so {one.name} is exactly as it was.")
    bare = [e.name for e, m in quiet if m.verdict == "descriptive"]
    if bare:
        made.append(f"There is no verdict for {', '.join(bare)}: it takes three seeds and two images at least.")
    if blank := [e.name for e, m in quiet if m.verdict != "identical" and e.name not in bare]:
        made.append(f"Neither is decided for {', '.join(blank)}. The intervals say how far either may go.")
    return made


def told(findings: Findings) -> list[str]:
    """All that is said beside the table."""
    places = enumerate(findings.downstream)
    return [text for place, one in places for text in (title(one), *sentences(findings, place))]


def _side(one: Effect | MeasuredEffect) -> int:
    """1 for what helps, -1 for what hurts, 0 for what is neither or not known."""
    return -1 if one.verdict == "hurts" else int(one.verdict in DECIDED)


def _sentence(effect: Effect, measured: MeasuredEffect, one: Downstream) -> str:
    joint = "and" if _side(effect) == _side(measured) else "but"
    parts = [
        SAYS.get(e.verdict, SAYS["open"]).format(what) + ("" if e.verdict == "identical" else f" ({_numbers(e, unit)})")
        for e, what, unit in ((effect, CLASSIFIER, " points"), (measured, one.name, f" points of {MEASURES[one.measure]}"))
    ]
    return f"{effect.name} {parts[0]} {joint} {parts[1]}."


def _numbers(one: Effect | MeasuredEffect, unit: str = "") -> str:
    return f"{points(one.difference)}{unit}" + (f", {span(one.interval, points)}" if one.interval else "")


class Cross(NamedTuple):
    """An effect in the chart of the two gains; x in percent, y in pixels from the top."""

    number: int
    effect: Effect
    x: float
    y: float
    across: tuple[float, float] | None
    """The interval of the classifier's gain, as far as it lies in the frame."""
    up: tuple[float, float] | None
    """That of the gain downstream."""
    dx: float
    """Pixels from the dot to the middle of its number."""
    dy: float
    decided: bool
    """Whether both gains are."""


class Gains(NamedTuple):
    """The gain of the classifier against that downstream."""

    x: Axis
    y: Axis
    crosses: tuple[Cross, ...]
    beyond: tuple[Effect, ...]
    """So far out that they would flatten the others."""

    def height(self, gain: float) -> float:
        """Pixels from the top."""
        return _height(self.y.at(gain))


def gains(findings: Findings, place: int) -> Gains | None:
    """The chart of what stands at a place downstream; None where no trick has both gains."""
    shown = [(e, m) for e, measured in lines(findings) for m in [measured[place]] if m and m.difference is not None]
    known = [(e, m) for e, m in shown if e.kind not in (*PAIRED, "control") and math.isfinite(e.difference)]
    if not known:
        return None
    x, y = _axis([e for e, _ in known]), _axis([m for _, m in known])
    inner = [(e, m) for e, m in known if inside([e.difference], x) and inside([m.difference or 0.0], y)]
    places = [(x.at(e.difference), _height(y.at(m.difference or 0.0))) for e, m in inner]
    offsets = labels([(PHONE * left / 100, top) for left, top in places])
    crosses = []
    for count, ((e, m), spot, offset) in enumerate(zip(inner, places, offsets, strict=True), 1):
        up = clipped(m.interval, y)
        ends = up and (_height(up[1]), _height(up[0]))
        decided = e.verdict in DECIDED and m.verdict in DECIDED
        crosses.append(Cross(count, e, *spot, clipped(e.interval, x), ends, *offset, decided))
    drawn = [e for e, _ in inner]
    return Gains(x, y, tuple(crosses), tuple(e for e, _ in known if e not in drawn))


def _axis(found: Sequence[Effect] | Sequence[MeasuredEffect]) -> Axis:
    """From the least to the largest end of an interval, 0 among them; what lies far out is cut off."""
    each = [[v for v in (one.difference or 0.0, *(one.interval or ())) if math.isfinite(v)] for one in found]
    most = limit(each, 1e-4)
    return around([0.0, *(v for values in each for v in values if abs(v) <= most)], 0.06)


def _height(percent_: float) -> float:
    return round(HEIGHT * (100 - percent_) / 100, 1)
