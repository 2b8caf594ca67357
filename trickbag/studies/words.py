"""What a study says in sentences: the answer, the noise floor, what was decided in advance."""

from collections.abc import Sequence
from math import inf
from statistics import median
from typing import Any

from trickbag.ground.text import counted, duration
from trickbag.report.findings import Arm, Confirmation, Effect
from trickbag.statistics.intervals import Interval
from trickbag.statistics.power import detectable
from trickbag.statistics.verdicts import SEEDS
from trickbag.studies.recommend import Choice
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


def answer(
    chosen: Choice, confirmed: Confirmation | None, arms: Sequence[Arm], effects: Sequence[Effect], study: Study, idle: bool
) -> tuple[str, str, str]:
    """Three sentences: the recommended recipe, its gain, its price."""
    plain = chosen.arm.name == study.arms[0].name
    if plain and idle:
        what = f"No recommendation: {IDLE}"
    elif plain and len(study.seeds) < SEEDS:
        what = f"No recommendation: with fewer than {SEEDS} seeds there is no verdict. Keep the reference."
    elif plain:
        what = "Keep the reference recipe: none of the tricks was shown to help here at an acceptable cost."
    else:
        what = f"Train the reference recipe with these changes: {' '.join(chosen.taken)}."
        if chosen.rival:
            what += " This did better than all helpful tricks together."
    if chosen.dear:
        what = what.removesuffix(".") + f"; {', '.join(chosen.dear)} helps too, but costs more than the limit (--price)."
    return what, gain(chosen, confirmed, effects, study), cost(chosen, arms)


def gain(chosen: Choice, confirmed: Confirmation | None, effects: Sequence[Effect], study: Study) -> str:
    """The gain of the recommended recipe, and how sure it is."""
    counts = study.held.counts
    judged = counted(len(study.seeds), "seed")
    if confirmed:
        seen = confirmed.effect
        return (
            f"Confirmed with {len(confirmed.seeds)} fresh seeds on {confirmed.images:,} images that had chosen nothing: "
            f"{points(seen.difference)} points ({between(seen.interval)} on new photos); in the study it was "
            f"{points(confirmed.selected)}."
        )
    if chosen.arm.name == study.arms[0].name:
        best = max((e for e in effects if e.declared), key=lambda e: e.difference, default=None)
        if best is None:
            return f"Nothing was compared on {judged}."
        if best.difference <= 0:
            return f"Nothing did better than the reference on {judged}."
        seen_best = f"{points(best.difference)} points ({between(best.interval)} on new photos; {judged})"
        return f"The largest gain is that of {best.name}: {seen_best}."
    if not chosen.proved:
        return f"This combination was not trained yet; run the study again to train it ({judged})."
    gained = f"It gained {points(chosen.gain)} points on the images on which it was chosen ({judged}), so expect less"
    return f"{gained}; --confirm measures the gain on others." if counts.proof else f"{gained}: there are no others."


def cost(chosen: Choice, arms: Sequence[Arm]) -> str:
    """The price of the recommended recipe."""
    own = next((arm for arm in arms if arm.name == chosen.arm.name), None)
    if own is None or own.price is None:
        return "Its cost was not measured."
    shared = "" if own.price.alone else " (measured while other runs shared the machine)"
    model = f"a model of {own.price.model_bytes / 1e6:.1f} MB"
    return (
        f"Training takes {duration(own.price.seconds)}, {own.price.ratio:.2f} times as long as the reference{shared}, and "
        f"gives {model} that takes {1000 * own.price.latency:.1f} ms per image."
    )


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
    errors = [e.error for e in effects if e.declared and e.error]
    told = []
    if idle:
        told.append(IDLE)
    elif reference.sd is not None:
        told.append(
            f"The accuracy of the reference varies by {100 * reference.sd:.2f} points (sd over {len(study.seeds)} seeds) "
            "although only the seed changes."
        )
    if errors:
        least = detectable(median(errors), inf, 0.05 / len(errors))
        told.append(
            f"The smallest effect that this study finds with 80 % power is about {100 * least:.2f} points on new photos: the "
            f"median of {counted(len(errors), 'effect')}, whose standard errors are {100 * min(errors):.2f} to "
            f"{100 * max(errors):.2f} points."
        )
    controls = (e for e in effects if e.kind == "control")
    return (*told, *(f"Control {e.name}: {points(e.difference)} points, {e.verdict}." for e in controls))


def decided(study: Study) -> tuple[tuple[str, str], ...]:
    """What was decided before the first run."""
    options: dict[str, Any] = study.facts["decided"]
    return tuple((name, value) for name, value in options.items())
