"""From a study's folder to its findings: every figure is computed from stored predictions, again at each call."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trickbag.ground.errors import TrickbagError
from trickbag.report.findings import Arm, Effect, Failure, Findings, Sharing
from trickbag.studies import recommend, words
from trickbag.studies.answer import Found, answer, label, taken
from trickbag.studies.arms import Arm as Planned
from trickbag.studies.downstream import downstream
from trickbag.studies.folds import who
from trickbag.studies.pictures import pictures
from trickbag.studies.proof import proof, rests_on
from trickbag.studies.questions import Results, Table, answers, measures, met
from trickbag.studies.record import Study, idle, table
from trickbag.studies.summary import summary
from trickbag.studies.transfers import called


def findings(study: Study) -> Findings:
    """What the study found. Raises TrickbagError where a file is damaged."""
    runs, known, results, arms = measured(study)
    answered, nominated = nominating(study, known, runs, results)
    proved, facts, still = proof(study, nominated), study.facts, idle(runs)
    onwards = downstream(study, known)
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
        measures=measures(study, known, runs),
        downstream=onwards,
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
    beliefs = recommend.believed(answered, study.priors, recommend.clear(study))
    with_beliefs = (
        replace(e, expected=beliefs.of[e.name].gain, helps=beliefs.of[e.name].helps)
        if e.kind in recommend.DECIDING and e.name in beliefs.of
        else e
        for e in answered
    )
    nominated = recommend.nominate(study, answered, beliefs)
    return tuple(with_beliefs), replace(nominated, belief=rests_on(study, runs, nominated))


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


def failures(study: Study, arms: Sequence[Planned], results: Results) -> tuple[Failure, ...]:
    """The runs that did not end well: those that diverged, that are damaged by now, and that the last execution recorded."""
    proofs = [
        cell for arm in (study.arms[0], *(nominee.arm() for nominee in study.held.nominees)) for cell in study.proofs(arm)
    ]
    runs = [cell for arm in study.arms for cell in study.row(arm) if cell]
    names = {cell.key: cell for cell in (*runs, *proofs)}
    for one in study.held.downstream:
        names |= {f"{cell.key} {one.request}": replace(cell, arm=f"{cell.arm}, {called(one.task, one.name)}") for cell in runs}
    found = [
        Failure(arm.name, seed, "diverged", record["diverged"])
        for arm in arms
        for seed, record in zip(study.seeds, results[arm.name], strict=True)
        if record and "diverged" in record
    ]
    found += [
        Failure(cell.arm, cell.seed, "diverged", record["diverged"])
        for cell in proofs
        if (record := study.result(cell)) and "diverged" in record
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
