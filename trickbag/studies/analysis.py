"""From a study's folder to its findings: every figure is computed from stored predictions, again at each call."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trickbag.ground.errors import TrickbagError
from trickbag.report.findings import CONTROLS, Arm, Effect, Failure, Findings, Proof, Sharing
from trickbag.statistics.effects import PRIOR, Sample, effects
from trickbag.statistics.intervals import Interval
from trickbag.statistics.looks import Decided, decide
from trickbag.statistics.power import again, assurance
from trickbag.statistics.verdicts import Estimate
from trickbag.studies import recommend, words
from trickbag.studies.answer import Found, answer, label, taken
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.arms import Question
from trickbag.studies.folds import who
from trickbag.studies.pictures import pictures
from trickbag.studies.record import Floats, Judged, Study, idle, table
from trickbag.studies.summary import summary

SHARED = (
    *("points", "sd", "error", "interval", "over_seeds", "p", "better", "better_interval"),
    *("verdict", "more_seeds", "more_images", "correlation"),
)
"""Fields that an effect takes from its estimate as they are."""
SAME = 1e-12
"""Nats below which a difference in log-probability is what rounding leaves of 0."""
SAYS = "the nominated recipe minus the reference"
Table = dict[str, list[Judged | None]]
Results = dict[str, list[dict[str, Any] | None]]


def findings(study: Study) -> Findings:
    """What the study found. Raises TrickbagError where a file is damaged."""
    runs, known, results, arms = measured(study)
    answered, nominated = nominating(study, known, runs, results)
    proved, facts, still = proof(study, nominated), study.facts, idle(runs)
    hardest, rescued = pictures(study, {name: [j for j in row if j] for name, row in runs.items()})
    found = Found(study, arms, answered, nominated, proved, still)
    return Findings(
        name=facts["name"],
        answer=answer(found),
        recommended=label(found) + (nominated.arm if taken(found) else study.arms[0]).recipe.toml(),
        design=facts["design"],
        weakness=facts["weakness"],
        on_test=study.judging.on == "test",
        judges=who(study.judging),
        images=met(study, runs)[0],
        groups=met(study, runs)[1],
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
        proof=proved,
        prior=recommend.source(answered, study.priors),
        decided=words.decided(study),
        departures=tuple(facts["departures"]),
        sharing=sharing([record for row in results.values() for record in row if record]),
        environment=tuple(facts["environment"].items()),
        command=facts["command"],
        plan=facts["plan"],
        model=study.arms[0].recipe.model,
        epochs=study.arms[0].recipe.epochs,
    )


def nomination(study: Study) -> recommend.Nomination:
    """The recipe that the study would put to the proof."""
    runs, known, results, _ = measured(study)
    return nominating(study, known, runs, results)[1]


def nominating(
    study: Study, arms: Sequence[Planned], runs: Table, results: Results
) -> tuple[tuple[Effect, ...], recommend.Nomination]:
    """The effects, with what is believed of them, and the nominated recipe."""
    answered = answers(study, arms, runs, results)
    beliefs = recommend.believed(answered, study.priors)
    with_beliefs = (
        replace(e, expected=beliefs[e.name].gain, helps=beliefs[e.name].helps)
        if e.kind in recommend.DECIDING and e.name in beliefs
        else e
        for e in answered
    )
    return tuple(with_beliefs), recommend.nominate(study, answered, beliefs)


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


def met(study: Study, runs: Table) -> tuple[int, int]:
    """How many images judged so far, and how many independent ones."""
    rows = np.unique(np.concatenate([judged.rows for row in runs.values() for judged in row if judged]))
    return len(rows), len(np.unique(study.groups[rows]))


def samples(study: Study, runs: Table, arms: Sequence[str], of: str) -> list[Sample]:
    """What the runs of each seed say, ``correct``, ``nll`` or ``calibrated``, more being better."""
    sign, found = 1.0 if of == "correct" else -1.0, []
    for column in zip(*(runs[arm] for arm in arms), strict=True):
        rows = next((judged.rows for judged in column if judged), np.zeros(1, np.int64))
        missing = np.full(len(rows), np.nan)
        values = np.array([missing if judged is None else sign * getattr(judged, of) for judged in column])
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
    study: Study, runs: Table, arms: Sequence[str], asked: Sequence[Question], of: str = "correct", alpha: float = 0.05
) -> tuple[Estimate, ...]:
    """The estimates of some questions as one family, of ``correct`` or ``calibrated``, more being better."""
    if not asked:
        return ()
    weights, shares = weighted(asked, arms), of == "correct"
    return effects(
        samples(study, runs, arms, of),
        weights,
        same=alike(study, runs, arms, weights),
        shares=shares,
        pool=study.facts["counts"]["groups"],
        delta=study.facts["options"]["delta"] / 100 if shares else 0.0,
        alpha=alpha,
    )


def against(question: Question, reference: str) -> str:
    """The arm that a question compares with the reference; empty where it compares others."""
    weights = dict(question.weights)
    other = [name for name, weight in question.weights if weight == 1]
    return other[0] if len(weights) == 2 and weights.get(reference) == -1 and other else ""


def effect(question: Question, found: Estimate, loss: Estimate, seconds_ratio: float | None, reference: str) -> Effect | None:
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
        loss_difference=None if loss.difference is None else -loss.difference,
        loss_interval=loss.interval and Interval(-loss.interval.high, -loss.interval.low),
        loss_verdict=loss.verdict,
        seconds_ratio=seconds_ratio,
        declared=question.declared,
    )


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


def proof(study: Study, nominated: recommend.Nomination) -> Proof | None:
    """The nominated recipe against the reference on images that chose nothing; None before it was put to the proof."""
    nominees = [record.arm().recipe.key for record in study.held.nominees]
    if nominated.arm.recipe.key not in nominees:
        return None
    pair = {recommend.NOMINEE: nominated.arm, study.arms[0].name: study.arms[0]}
    cells = {name: study.proofs(arm) for name, arm in pair.items()}
    runs: Table = {name: [study.judged(cell) for cell in row] for name, row in cells.items()}
    if not all(judged for row in runs.values() for judged in row):
        return None
    question = Question(recommend.NOMINEE, "combination", SAYS, tuple(zip(pair, (1.0, -1.0), strict=True)), True)
    level = 0.05 / (1 + nominees.index(nominated.arm.recipe.key))
    found, loss = (estimates(study, runs, list(pair), [question], of, level)[0] for of in ("correct", "calibrated"))
    results = {name: [study.result(cell) for cell in row] for name, row in cells.items()}
    told = effect(question, found, loss, dearer(question, results), study.arms[0].name)
    assert told is not None
    reference, nominee = (
        tuple(float(j.correct.mean()) for j in runs[name] if j) for name in (study.arms[0].name, recommend.NOMINEE)
    )
    return Proof(
        seeds=tuple(study.facts["proof_seeds"]),
        images=met(study, runs)[0],
        level=level,
        reference=reference,
        nominee=nominee,
        effect=told,
        expected=nominated.belief.gain,
    )


def likely(study: Study, nominated: recommend.Nomination, images: int, judged: int, seeds: int) -> float:
    """The probability that the proof proves the nominated recipe, on so many images, each of which judges it in some seeds.

    How far the proof may be off is taken from the arm that is most like the recipe.
    """
    arm, reference = nearest(study, nominated.arm), study.arms[0]
    runs = table(study, [arm, reference])
    question = Question(arm.name, "alone", SAYS, ((arm.name, 1.0), (reference.name, -1.0)), True)
    found = estimates(study, runs, [*runs], [question])[0]
    if not found.error:
        return float(nominated.belief.gain > 0)
    met_images, counts = met(study, runs)[0], sum(len(one.rows) for one in runs[reference.name] if one)
    scale = again(judged, images) / judged * counts / again(counts, met_images)
    return assurance(*nominated.belief, found.error * math.sqrt(scale), seeds - 1 + PRIOR)


def nearest(study: Study, wanted: Planned) -> Planned:
    """The arm, not a control unless it is wanted, whose recipe differs least from another."""
    arms = [arm for arm in study.arms[1:] if arm.role not in CONTROLS or arm == wanted]

    def distance(arm: Planned) -> int:
        ours, theirs = arm.recipe.spelled(), wanted.recipe.spelled()
        return sum(bool(ours[name] != theirs[name]) for name in ours) + len(set(arm.recipe.tricks) ^ set(wanted.recipe.tricks))

    return min(arms, key=distance)
