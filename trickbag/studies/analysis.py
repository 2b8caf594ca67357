"""From a study's folder to its findings: every figure is computed from stored predictions, again at each call."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trickbag.ground.errors import TrickbagError
from trickbag.report.findings import CONTROLS, Arm, Confirmation, Effect, Failure, Findings, Interval, Sharing
from trickbag.studies import recommend, words
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.arms import Question
from trickbag.studies.effects import effects, over_folds
from trickbag.studies.intervals import ratio
from trickbag.studies.looks import Decided, decide
from trickbag.studies.pictures import pictures
from trickbag.studies.record import Floats, Judged, Study, idle, table
from trickbag.studies.summary import paired, summary
from trickbag.studies.verdicts import Estimate

SHARED = ("points", "sd", "this_set", "new_images", "p", "better", "better_interval", "verdict", "more_seeds", "correlation")
"""Fields that an effect takes from its estimate as they are."""
Table = dict[str, list[Judged | None]]
Results = dict[str, list[dict[str, Any] | None]]


def findings(study: Study) -> Findings:
    """What the study found. Raises TrickbagError where a file is damaged."""
    runs, known, results, arms = measured(study)
    answered = answers(study, known, runs, results)
    chosen = recommend.choose(study, answered, arms, lambda names, one: compared(study, runs, names, one))
    confirmed = confirmation(study, chosen)
    facts, still = study.facts, idle(runs)
    hardest, rescued = pictures(study, {name: [j for j in row if j] for name, row in runs.items()})
    return Findings(
        name=facts["name"],
        answer=words.answer(chosen, confirmed, arms, answered, study, still),
        recommended=chosen.arm.recipe.toml(),
        recommended_arm=chosen.arm.name,
        design=facts["design"],
        weakness=facts["weakness"],
        split="test" if study.split == "test" else "validation",
        images=study.images(study.split),
        groups=len(set(facts["groups"][study.split])) or study.images(study.split),
        seeds=study.seeds,
        delta=facts["options"]["delta"] / 100,
        classes=tuple(facts["classes"]),
        class_counts=tuple(facts["class_counts"]),
        trained=tuple(facts["trained"]),
        arms=arms,
        effects=answered,
        aliases=tuple(map(tuple, facts["aliases"])),
        not_run=tuple(facts["not_run"]),
        hardest=hardest,
        rescued=rescued,
        check=tuple((c["severity"], c["message"], c["suggestion"]) for c in facts["check"]),
        noise=words.noise(study, arms, answered, still),
        descriptive=words.descriptive(answered, study, still),
        failures=failures(study, known, results),
        test_images=study.images("test"),
        confirmation=confirmed,
        decided=words.decided(study),
        departures=tuple(facts["departures"]),
        sharing=sharing([record for row in results.values() for record in row if record]),
        environment=tuple(facts["environment"].items()),
        command=facts["command"],
    )


def choice(study: Study) -> recommend.Choice:
    """The recipe that the study recommends."""
    runs, known, results, arms = measured(study)
    answered = answers(study, known, runs, results)
    return recommend.choose(study, answered, arms, lambda names, one: compared(study, runs, names, one))


def measured(study: Study) -> tuple[Table, list[Planned], Results, tuple[Arm, ...]]:
    """All runs, the arms that have any, what their ``result.json`` say, and their summaries.

    Raises TrickbagError where no run of the reference is there to compare with.
    """
    runs = table(study, study.arms)
    if not any(runs[study.arms[0].name]):
        raise TrickbagError(unanswered(study))
    known = [arm for arm in study.arms if any(runs[arm.name])]
    results = {arm.name: [study.result(cell) if cell else None for cell in study.row(arm)] for arm in known}
    return runs, known, results, tuple(summary(study, arm, runs[arm.name], results) for arm in known)


def unanswered(study: Study) -> str:
    """Why there is nothing to compare with."""
    failed = [failure["cause"] for failure in study.facts["failures"] if failure["arm"] == study.arms[0].name]
    if failed:
        return f"the reference failed with every seed, so nothing can be compared: {failed[0]}"
    damage = f" {next(iter(study.damaged.values()))}" if study.damaged else ""
    return (
        f"{study.place.folder}: no run of the reference has finished yet, so nothing can be compared.{damage} "
        "Wait for the study, or give the same trickbag study command to continue it."
    )


def values(runs: Table, arms: Sequence[str], of: str) -> Floats:
    """[A, S, N] of ``correct`` or ``nll``; a row of NaN where there is no result."""
    images = next(len(judged.correct) for row in runs.values() for judged in row if judged)
    missing = np.full(images, np.nan)
    return np.array([[missing if judged is None else getattr(judged, of) for judged in runs[arm]] for arm in arms])


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
    found: dict[Question, Estimate] = dict(zip(declared, family, strict=True))
    for question in asked:
        if not question.declared:
            apart = any(names[name].role in CONTROLS for name, _ in question.weights)
            own = [name for name, _ in question.weights] if apart else pooled
            found[question] = estimates(study, runs, own, [question])[0]
    made = []
    for question in asked:
        nll = estimates(study, runs, [name for name, _ in question.weights], [question], "nll")[0]
        made.append(effect(question, found[question], nll, dearer(question, results), study.arms[0].name))
    return tuple(one for one in made if one)


def decided(study: Study, seeds: int) -> set[str]:
    """The arms that need no more seeds after so many: all declared questions about them are decided, or all there are."""
    runs = table(study, study.arms, seeds)
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
    weights, groups = weighted(asked, arms), study.facts["groups"][study.split] or None
    delta = study.facts["options"]["delta"] / 100
    return decide(values(runs, arms, "correct"), weights, study.looks, groups=groups, delta=delta)


def weighted(asked: Sequence[Question], arms: Sequence[str]) -> Floats:
    """[C, A] the weights of questions."""
    return np.array([[dict(q.weights).get(arm, 0.0) for arm in arms] for q in asked])


def estimates(
    study: Study, runs: Table, arms: Sequence[str], asked: Sequence[Question], of: str = "correct", split: str = ""
) -> tuple[Estimate, ...]:
    """The estimates of some questions as one family, of ``correct`` or ``nll`` (less is better there)."""
    if not asked:
        return ()
    weights = weighted(asked, arms)
    delta = study.facts["options"]["delta"] / 100 if of == "correct" else 0.0
    if study.facts["options"]["folds"] and split != "test":
        means = np.array([[np.nan if j is None else getattr(j, of).mean() for j in runs[arm]] for arm in arms])
        _, folds = study.facts["blocks"]
        return over_folds(means, weights, train=folds - 1, test=1, delta=delta)
    sign = 1 if of == "correct" else -1
    groups = study.facts["groups"][split or study.split] or None
    return effects(sign * values(runs, arms, of), weights, groups=groups, delta=delta)


def compared(study: Study, runs: Table, names: Sequence[str], one: str) -> tuple[Estimate, ...]:
    """What some arms have over one, as one family."""
    asked = [Question(name, "alone", "", ((name, 1.0), (one, -1.0)), True) for name in names]
    return estimates(study, runs, [*names, one], asked)


def against(question: Question, reference: str) -> str:
    """The arm that a question compares with the reference; empty where it compares others."""
    weights = dict(question.weights)
    other = [name for name, weight in question.weights if weight == 1]
    return other[0] if len(weights) == 2 and weights.get(reference) == -1 and other else ""


def effect(question: Question, found: Estimate, nll: Estimate, seconds_ratio: float | None, reference: str) -> Effect | None:
    """A question with its answer; None where no seed has all the runs that it compares."""
    if found.difference is None:
        return None
    aliases = f"cannot be told from {', '.join(question.aliases)}" if question.aliases else ""
    shared = {name: getattr(found, name) for name in SHARED}
    return Effect(
        **shared,
        name=question.name,
        arm=against(question, reference),
        kind=question.kind,
        says=question.says,
        difference=found.difference,
        note="; ".join(filter(None, [found.note, aliases])),
        nll_difference=None if nll.difference is None else -nll.difference,
        nll_interval=nll.this_set and Interval(-nll.this_set.high, -nll.this_set.low),
        seconds_ratio=seconds_ratio,
        declared=question.declared,
    )


def dearer(question: Question, results: Results) -> float | None:
    """The price of a question's arm as a multiple of that of the one it is compared with; None where there are several."""
    sides = [[name for name, weight in question.weights if sign * weight > 0] for sign in (1, -1)]
    if any(len(side) != 1 for side in sides):
        return None
    found = paired(*(results[side[0]] for side in sides))
    return found[0] if found else None


def failures(study: Study, arms: Sequence[Planned], results: Results) -> tuple[Failure, ...]:
    """The runs that did not end well: those that diverged, that are damaged by now, and that the last execution recorded."""
    names = {cell.key: cell for arm in study.arms for cell in study.row(arm) if cell}
    found = [
        Failure(arm.name, seed, "diverged", record["diverged"])
        for arm in arms
        for seed, record in zip(study.seeds, results[arm.name], strict=True)
        if record and "diverged" in record
    ]
    found += [
        Failure(names[key].arm, names[key].seed, "damaged", f"{reason} The same trickbag study command trains it again.")
        for key, reason in study.damaged.items()
        if key in names
    ]
    return (*found, *(Failure(**failure) for failure in study.facts["failures"]))


def sharing(records: Sequence[dict[str, Any]]) -> Sharing:
    """Steps that were trained, and that would have been had every run been trained alone."""
    whole = [record for record in records if "steps" in record]
    trained = {record["training"]: record["steps"] - record["first_step"] for record in whole}
    return Sharing(sum(trained.values()), sum(record["steps"] for record in whole))


def confirmation(study: Study, chosen: recommend.Choice) -> Confirmation | None:
    """The recommended recipe against the reference on the test set; None before it was confirmed."""
    pair = {"recommended": chosen.arm, "reference": study.arms[0]}
    fresh = study.facts["confirm_seeds"]
    cells = {name: [study.cell(arm, seed, "test") for seed in fresh] for name, arm in pair.items()}
    runs: Table = {name: [study.judged(cell, "test") for cell in row] for name, row in cells.items()}
    if not fresh or not all(judged for row in runs.values() for judged in row):
        return None
    weights = (("recommended", 1.0), ("reference", -1.0))
    question = Question("recommended", "combination", "the recommended recipe minus the reference", weights, True)
    found, nll = (estimates(study, runs, list(pair), [question], of, "test")[0] for of in ("correct", "nll"))
    seconds = [[(study.result(cell) or {}).get("seconds", 0.0) for cell in row] for row in cells.values()]
    told = effect(question, found, nll, ratio(seconds[0], seconds[1])[0] if all(map(all, seconds)) else None, "reference")
    assert told is not None
    return Confirmation(
        seeds=tuple(fresh),
        images=study.images("test"),
        reference=tuple(float(j.correct.mean()) for j in runs["reference"] if j),
        recommended=tuple(float(j.correct.mean()) for j in runs["recommended"] if j),
        effect=told,
        selected=chosen.gain,
        shrinkage=chosen.gain - told.difference,
    )
