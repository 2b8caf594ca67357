"""What a study says in sentences: the noise floor, why there is no verdict, what was decided in advance."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from trickbag.ground.text import counted
from trickbag.report.findings import Arm, Effect
from trickbag.report.wording import said
from trickbag.statistics.intervals import Interval
from trickbag.statistics.power import detectable
from trickbag.statistics.verdicts import SEEDS
from trickbag.studies.record import Study

IDLE = (
    "The seed changes nothing here: every run of an arm gives the same predictions, so more seeds add nothing, and only more "
    "images show whether a difference is real."
)
"""Where nothing in the recipes is random."""


def points(value: float) -> str:
    """A difference of shares in percentage points.

    >>> points(0.0123), points(-0.002)
    ('+1.23', '−0.20')
    """
    return f"{100 * value:+.2f}".replace("-", "−")


def between(interval: Interval | None) -> str:
    """An interval of differences, in points.

    >>> between(Interval(-0.001, 0.02))
    '−0.10 to +2.00'
    """
    return f"{points(interval.low)} to {points(interval.high)}" if interval else "no interval"


def descriptive(effects: Sequence[Effect], study: Study, idle: bool) -> str:
    """Why some effects have no verdict; empty where all have one."""
    if not any(effect.verdict == "descriptive" for effect in effects):
        return ""
    if idle:
        return IDLE
    if len(study.seeds) < SEEDS:
        return f"With fewer than {SEEDS} seeds nothing here is a verdict: the dots only show what was measured."
    return f"Some effects have no verdict, since fewer than {SEEDS} seeds have their runs, or do not differ: see their notes."


def noise(study: Study, arms: Sequence[Arm], effects: Sequence[Effect], idle: bool) -> tuple[str, ...]:
    """The noise floor: what the seeds do to the reference, what so many seeds can find, what none can."""
    reference = arms[0]
    measured = [(e.error, e.df) for e in effects if e.declared and e.error and e.df]
    told = []
    if idle:
        told.append(IDLE)
    elif reference.sd is not None:
        told.append(
            f"The accuracy of the reference varies by {100 * reference.sd:.2f} points (sd over {len(study.seeds)} seeds) "
            "although only the seed changes."
        )
    if measured:
        errors = [error for error, _ in measured]
        least = median(detectable(error, df, 0.05 / len(measured)) for error, df in measured)
        told.append(
            f"The smallest effect that this study finds with 80 % power is about {100 * least:.2f} points on new photos: the "
            f"median of {counted(len(errors), 'effect')}, whose standard errors are {100 * min(errors):.2f} to "
            f"{100 * max(errors):.2f} points."
        )
    controls = (e for e in effects if e.kind == "control")
    return (*told, *(f"Control {e.name}: {points(e.difference)} points, {said(e.verdict)}." for e in controls))


def decided(study: Study) -> tuple[tuple[str, str], ...]:
    """What was decided before the first run."""
    options: dict[str, Any] = study.facts["decided"]
    return tuple((name, value) for name, value in options.items())
