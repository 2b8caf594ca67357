"""The questions of a study, answered from its runs: each is a contrast between arms, and becomes an effect."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trickbag import plugins
from trickbag.report.findings import CONTROLS, Effect, Measure, MeasuredEffect
from trickbag.statistics.effects import UNMOVED, Sample, effects
from trickbag.statistics.intervals import Interval
from trickbag.statistics.looks import Decided, decide
from trickbag.statistics.variance import UNKNOWN, Share
from trickbag.statistics.verdicts import SHARED, Estimate
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.arms import Question
from trickbag.studies.record import Floats, Judged, Study, table

SAME = 1e-12
"""Nats below which a difference in log-probability is what rounding leaves of 0."""
RESCALED = 1e-6
"""Nats below which the log-loss at the best temperature has not moved where no answer has: only the temperature is another."""
TEMPERATURE_ALONE = (
    "nor has the log-loss at the best temperature moved: what another temperature does is in nll and ece of arms.csv"
)
Table = dict[str, list[Judged | None]]
Results = dict[str, list[dict[str, Any] | None]]


def answers(study: Study, arms: Sequence[Planned], runs: Table, results: Results) -> tuple[Effect, ...]:
    """The effects, in the order of the questions: the declared ones as one family, each of the others by itself."""
    names = {arm.name: arm for arm in arms}
    asked = [q for q in study.questions if all(name in names for name, _ in q.weights)]
    pooled = [arm.name for arm in arms if arm.role not in CONTROLS]
    declared = [q for q in asked if q.declared]
    if study.looks:
        family = tuple(one.estimate for one in at_looks(study, runs, pooled, declared))
    else:
        family = estimates(study, runs, pooled, declared)
    found = dict(zip(declared, family, strict=True))
    losses = dict(zip(declared, estimates(study, runs, pooled, declared, "calibrated"), strict=True))
    for question in asked:
        if not question.declared:
            own = [name for name, _ in question.weights]
            found[question] = estimates(study, runs, own, [question])[0]
            losses[question] = estimates(study, runs, own, [question], "calibrated")[0]
    made = [effect(q, found[q], losses[q], dearer(q, results), study.arms[0].name) for q in asked]
    return tuple(one for one in made if one)


def decided(study: Study, seeds: int) -> set[str]:
    """The arms that need no more seeds after so many: all declared questions about them are decided, or all there are."""
    runs = {name: row[:seeds] for name, row in table(study, study.arms).items()}
    known = [arm for arm in study.arms if any(runs[arm.name])]
    names = {arm.name for arm in known}
    asked = [q for q in study.questions if q.declared and all(name in names for name, _ in q.weights)]
    if not asked:
        return set()
    pooled = [arm.name for arm in known if arm.role not in CONTROLS]
    found = at_looks(study, runs, pooled, asked)
    wanted = {name for question, one in zip(asked, found, strict=True) if one.open for name, _ in question.weights}
    spoken = {name for question in asked for name, _ in question.weights}
    return (spoken if wanted else names) - wanted


def at_looks(study: Study, runs: Table, arms: Sequence[str], asked: Sequence[Question]) -> tuple[Decided, ...]:
    """The declared questions, each at the look that decided it."""
    if not asked:
        return ()
    weights = weighted(asked, arms)
    return decide(
        samples(study, runs, arms, "correct"),
        weights,
        study.looks,
        same=alike(study, runs, arms, weights),
        pool=study.facts["counts"]["groups"],
        delta=study.facts["options"]["delta"] / 100,
    )


def weighted(asked: Sequence[Question], arms: Sequence[str]) -> Floats:
    """[C, A] the weights of questions."""
    return np.array([[dict(q.weights).get(arm, 0.0) for arm in arms] for q in asked])


def estimates(
    study: Study,
    runs: Table,
    arms: Sequence[str],
    asked: Sequence[Question],
    of: str = "correct",
    alpha: float = 0.05,
    before: Share = UNKNOWN,
) -> tuple[Estimate, ...]:
    """The estimates of some questions as one family, of ``correct``, ``calibrated`` or one's own metric, more being better."""
    if not asked:
        return ()
    weights, shown = weighted(asked, arms), samples(study, runs, arms, of)
    shares = of == "correct" or all(np.isin(np.abs(one.values[np.isfinite(one.values)]), (0, 1)).all() for one in shown)
    return effects(
        shown,
        weights,
        same=alike(study, runs, arms, weights),
        shares=shares,
        pool=study.facts["counts"]["groups"],
        before=before,
        delta=study.facts["options"]["delta"] / 100 if shares else 0.0,
        alpha=alpha,
    )


def measures(study: Study, arms: Sequence[Planned], runs: Table) -> tuple[Measure, ...]:
    """What one's own metrics say of the questions: the declared ones as one family for each metric, each other by itself."""
    names = {arm.name for arm in arms}
    asked = [q for q in study.questions if all(name in names for name, _ in q.weights)]
    declared = [q for q in asked if q.declared]
    pooled = [arm.name for arm in arms if arm.role not in CONTROLS]
    made = []
    for name, metric in plugins.metrics().items():
        found = dict(zip(declared, estimates(study, runs, pooled, declared, name), strict=True))
        found |= {q: estimates(study, runs, [n for n, _ in q.weights], [q], name)[0] for q in asked if not q.declared}
        known = [judged.own[name].mean() for judged in runs[study.arms[0].name] if judged and name in judged.own]
        mean = float(np.mean(known)) if known else None
        made.append(Measure(name, metric.better, mean, tuple(_measured(q, found[q], metric.better) for q in asked)))
    return tuple(made)


def _measured(question: Question, found: Estimate, better: str) -> MeasuredEffect:
    difference, interval = found.difference, found.interval
    if better == "lower":
        difference = None if difference is None else -difference
        interval = interval and Interval(-interval.high, -interval.low)
    return MeasuredEffect(question.name, question.says, difference, interval, found.verdict)


def effect(question: Question, found: Estimate, loss: Estimate, seconds_ratio: float | None, reference: str) -> Effect | None:
    """A question with its answer; None where no seed has all the runs that it compares."""
    if found.difference is None:
        return None
    aliases = f"cannot be told from {', '.join(question.aliases)}" if question.aliases else ""
    rescaled = UNMOVED in found.note and loss.difference is not None and abs(loss.difference) < RESCALED
    shared = {name: getattr(found, name) for name in SHARED}
    return Effect(
        **shared,
        name=question.name,
        arm=against(question, reference),
        kind=question.kind,
        says=question.says,
        difference=found.difference,
        note="; ".join(filter(None, [found.note, TEMPERATURE_ALONE if rescaled else "", aliases])),
        loss_difference=None if loss.difference is None else -loss.difference,
        loss_interval=loss.interval and Interval(-loss.interval.high, -loss.interval.low),
        loss_verdict=loss.verdict,
        seconds_ratio=seconds_ratio,
        declared=question.declared,
    )


def against(question: Question, reference: str) -> str:
    """The arm that a question compares with the reference; empty where it compares others."""
    weights = dict(question.weights)
    other = [name for name, weight in question.weights if weight == 1]
    return other[0] if len(weights) == 2 and weights.get(reference) == -1 and other else ""


def dearer(question: Question, results: Results) -> float | None:
    """The price of what a question asks for, as a multiple of the price without; None where it asks for something else.

    A mean over arms, as in a main effect, is the geometric mean of their times, paired by seed.
    """
    weights = dict(question.weights)
    if not math.isclose(sum(weight for weight in weights.values() if weight > 0), 1):
        return None
    rows = zip(*(results[name] for name in weights), strict=True)
    whole = [[record["seconds"] for record in row if record and "seconds" in record] for row in rows]
    ratios = [np.log(row) @ np.array([*weights.values()]) for row in whole if len(row) == len(weights) and all(row)]
    return float(np.exp(np.mean(ratios))) if ratios else None


def samples(study: Study, runs: Table, arms: Sequence[str], of: str) -> list[Sample]:
    """What the runs of each seed say, ``correct``, ``nll``, ``calibrated`` or one's own metric, more being better."""
    own, found = plugins.metrics().get(of), []
    sign = 1.0 if of == "correct" or (own and own.better == "higher") else -1.0
    for column in zip(*(runs[arm] for arm in arms), strict=True):
        rows = next((judged.rows for judged in column if judged), np.zeros(1, np.int64))
        missing = np.full(len(rows), np.nan)
        values = np.array(
            [
                missing if judged is None else sign * (judged.own.get(of, missing) if own else getattr(judged, of))
                for judged in column
            ]
        )
        found.append(Sample(values, study.groups[rows]))
    return found


def alike(study: Study, runs: Table, arms: Sequence[str], weights: Floats) -> list[bool]:
    """Of which contrasts the two sides are one and the same network: they give every image the same log-probability."""
    tables = [sample.values for sample in samples(study, runs, arms, "nll")]
    return [
        any(whole := [bool(np.isfinite(table[row != 0]).all()) for table in tables])
        and all(
            np.abs(row[row != 0] @ table[row != 0]).max() < SAME for table, there in zip(tables, whole, strict=True) if there
        )
        for row in weights
    ]


def met(study: Study, runs: Table) -> tuple[int, int]:
    """How many images judged so far, and how many independent ones."""
    rows = np.unique(np.concatenate([judged.rows for row in runs.values() for judged in row if judged]))
    return len(rows), len(np.unique(study.groups[rows]))
