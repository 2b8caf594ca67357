"""A study from start to end: plan, carry out, analyse, prove, report; the same call again goes on where it was stopped."""

import copy
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trickbag.engine.pixels import Files
from trickbag.ground import store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import CellDone, Doing, Event, Note, Tell, silent
from trickbag.ground.text import counted, duration
from trickbag.recipe import Recipe
from trickbag.report.findings import Effect, Findings, Proof
from trickbag.report.latex import effects_tex
from trickbag.report.methods import methods, references_bib
from trickbag.report.page import page
from trickbag.report.tables import arms_csv, effects_csv, markdown
from trickbag.runs import auto, provenance, seen
from trickbag.runs.auto import SAFETY, TRIAL_SHARE
from trickbag.runs.request import Request, called, check_named, edited, ingest, started, tell_where
from trickbag.statistics.looks import planned
from trickbag.statistics.power import seeds_within
from trickbag.statistics.verdicts import SEEDS
from trickbag.studies import analysis, pictures
from trickbag.studies.arms import Arm
from trickbag.studies.decisions import facts, spelled
from trickbag.studies.design import Design, design, matched
from trickbag.studies.execute import Carrier, Here, Outcome, Processes, execute
from trickbag.studies.folder import LEDGER, STUDY, ArmRecord, LedgerLine, StudyRecord, stored
from trickbag.studies.folds import FOLDS, PROVING, Judging, Role
from trickbag.studies.jobs import jobs
from trickbag.studies.options import Options
from trickbag.studies.packing import packing
from trickbag.studies.plan import MOST_SEEDS, PROOF_SEEDS, Pilot, Plan, ProofPlan, cells
from trickbag.studies.prior import expected, ordering, regime_of
from trickbag.studies.propose import propose
from trickbag.studies.record import Study, entry, table
from trickbag.studies.words import points
from trickbag.studies.worker import Place, carry
from trickbag.trick import Trick
from trickbag.tricks import parse

FRESH = 100_000
"""Added to the first seed for the proof's."""
DEAR = 1.05
"""Price, as a multiple of the reference's, above which a compute-matched reference is trained."""
MATCHED = ("alone", "full")
"""Roles of the arms that get one."""


@dataclass(frozen=True)
class Finished:
    """A study that was carried out."""

    folder: Path
    findings: Findings
    data: str
    """The data set, as the command line takes it."""

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What each trick does, a row each."""
        return self.findings.effects

    @property
    def recommended(self) -> Recipe:
        """The nominated recipe where it is proved, or expected to gain and costs nothing more; else the reference."""
        return Recipe.load(self.folder / "recommended.toml")

    @property
    def proof(self) -> Proof | None:
        """What the proof of the nominated recipe found; None where there was none."""
        return self.findings.proof

    def report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs nothing else, and return where it lies."""
        store.write(Path(path), page(self.findings))
        return Path(path)


@dataclass(frozen=True)
class Means:
    """How the jobs of a study are carried out; it changes no number but the last bits, where each gets other threads."""

    workers: int = 1
    """Trainings at a time; 0: as many as a few timed steps show to be the fastest in all."""
    ray: str = ""
    """Address of a Ray cluster; local starts one here; empty: processes of this machine."""
    command: str = ""
    """That reproduces the study, for the report."""


def study(
    data: str | Path,
    options: Options | str | Path | None = None,
    *,
    out: str | Path | None = None,
    means: Means = Means(),
    began: float | None = None,
    tell: Tell = silent,
    **asked: Any,
) -> Finished:
    """Measure which tricks help on a data set; ``asked`` are fields of ``Options``, over those of a TOML file.

    A budget counts from ``began``, by the monotonic clock; None: from now.
    Raises UsageError for what cannot be done as asked, TrickbagError where not one run of the reference succeeded.
    """
    conductor = Conductor(data, options, out, means, began, tell, asked)
    with store.lock(conductor.place.folder):
        return conductor.go()


def plan(
    data: str | Path,
    options: Options | str | Path | None = None,
    *,
    out: str | Path | None = None,
    began: float | None = None,
    tell: Tell = silent,
    **asked: Any,
) -> Plan:
    """What ``study`` would do and cost; nothing is trained but a few steps to be timed."""
    return Conductor(data, options, out, Means(), began, tell, asked).planned()


def report(folder: str | Path) -> Finished:
    """The findings of a study's folder, computed anew, and its report and tables written. Raises UsageError, TrickbagError."""
    held = Study.load(folder)
    found = analysis.findings(held)
    files = {
        "report.html": page(found),
        "report.md": markdown(found),
        "effects.csv": effects_csv(found),
        "arms.csv": arms_csv(found),
        "recommended.toml": found.recommended,
        "methods.md": methods(found),
        "effects.tex": effects_tex(found),
        "references.bib": references_bib(found),
    }
    for name, text in files.items():
        store.write(held.place.folder / name, text)
    return Finished(held.place.folder, found, held.facts.get("data", "DATA"))


class Conductor:
    """One call of ``study``."""

    def __init__(
        self,
        data: str | Path,
        options: Options | str | Path | None,
        out: str | Path | None,
        means: Means,
        began: float | None,
        tell: Tell,
        asked: Mapping[str, Any],
    ) -> None:
        began = time.monotonic() if began is None else began
        if options is None or isinstance(options, Options):
            fields = (options.model_dump(by_alias=True) if options else {}) | dict(asked)
            self.options = Options.build(fields)
        else:
            self.options = Options.load(options, **asked)
        self.source, self.means, self.tell = data, means, tell
        o = self.options
        # An epoch that is chosen may be the same for all arms, however their tricks shape what comes after it.
        kept = {} if "keep" in o.set_ else {"keep": "last"}
        recipe, chosen = started(
            *edited(o.recipe, o.model, o.weights, o.with_, o.without, o.set_ | kept), o.recipe == "auto", tell
        )
        self.data, self.audit = ingest(data, recipe, o.seed, "skip", "skip", tell, o.depth)
        name = called(data)
        self.wanted = Request(self.data, self.audit, recipe, o.recipe == "auto", chosen, 0.0, o.seed, name, began)
        self.failed: list[dict[str, Any]] = []
        self.lost: dict[str, Any] = {}
        """What the new ``study.json`` says of a damaged one."""
        self.place = Place(Path("studies") / f"{name}-{self.wanted.key[:8]}" if out is None else store.folder_of(out))
        tell_where(self.place.folder, data, tell)

    @property
    def held(self) -> dict[str, Any]:
        """What an earlier call has stored; nothing where there was none."""
        return StudyRecord.load(self.place.folder).plain() if (self.place.folder / STUDY).exists() else {}

    def reference(self) -> Recipe:
        """The reference with everything decided, once: an earlier call's decision stays."""
        held = self.held
        if held:
            if held["request"] != self.wanted.key or held["options"]["on"] != self.options.on:
                raise UsageError(provenance.another(self.wanted, self.place.folder, "study", on=self.options.on))
            return Recipe(**held["arms"][0]["recipe"])
        if not self.lost and any(not path.name.startswith(".") for path in self.place.folder.glob("*")):
            raise UsageError(f"{self.place.folder} is not empty and is not a study. Choose another --out.")
        decision = auto.decide(self.wanted, self.tell)
        for reason in decision.reasons:
            self.tell(Note(reason))
        return decision.recipe

    def planned(self) -> Plan:
        """The plan: arms, seeds, trainings and their price; with a budget, the most that fits it, the proof included."""
        o = self.options
        named = [parse(text) for text in o.tricks] if o.tricks != "auto" else []
        together = [[parse(text) for text in texts] for texts in o.combine]
        check_named(chain(self.wanted.recipe.tricks, named, *together))
        if o.on == "test" and not len(self.data.images.split("test")):
            raise UsageError("--on test reads the test images, and there are none. Leave it out.")
        reference = self.reference()
        tricks = self.proposed(reference) if o.tricks == "auto" else named
        self.look_back([*self.wanted.recipe.tricks, *tricks, *chain(*together)])
        pilot = Pilot(replace(self.wanted, recipe=reference), TRIAL_SHARE * o.budget or math.inf)
        made = partial(design, reference, tricks, vary=o.vary, combine=together, same=o.same)
        if o.budget:
            return self.within(reference, made, tricks, pilot)
        others = ("add-one", "leave-one-out", "two-sided") if o.design == "auto" and len(tricks) > 1 else ()
        chosen = made(kind=o.design)
        rivals = [rival for rival in (made(kind=kind) for kind in others) if rival.kind != chosen.kind]
        return self.laid(reference, chosen, tricks, math.prod(o.blocks) or o.seeds, pilot, self.proving, rivals)

    def within(self, reference: Recipe, made: Callable[..., Design], tricks: Sequence[Trick], pilot: Pilot) -> Plan:
        """The most that fits the budget: the proof before a larger design, a larger design before more seeds."""
        o = self.options
        if decided := self.decided():
            return self.laid(reference, made(kind=decided[0]), tricks, decided[1], pilot, decided[2])
        kinds = [o.design, "add-one"] if o.design == "auto" else [o.design]
        for proof, kind in product(sorted({self.proving, bool(o.proof)}, reverse=True), kinds):
            chosen = made(kind=kind)
            each = self.laid(reference, chosen, tricks, 1, pilot, False).seconds + self.later(chosen, pilot)
            last = self.proof_seconds(chosen, pilot) if proof else 0.0
            gone = time.monotonic() - self.wanted.began
            most = math.prod(o.blocks) or MOST_SEEDS
            seeds = min(seeds_within(max(SAFETY * o.budget - gone - last, 0.0), each), most)
            if seeds >= SEEDS:
                return self.laid(reference, chosen, tricks, seeds, pilot, proof)
        least = math.ceil((SEEDS * each + last + gone) / SAFETY)
        raise UsageError(
            f"--budget {o.budget:g}s is too short: {SEEDS} seeds of the smallest design"
            f"{', with the proof,' if proof else ''} take about {duration(least)}. Give as "
            "much, try fewer tricks, or train fewer epochs (--set epochs=…)."
        )

    @cached_property
    def proving(self) -> bool:
        """Whether the best candidate is put to the proof, unless the budget is too short for it."""
        o, images = self.options, self.data.images
        few = not o.budget and (math.prod(o.blocks) or o.seeds) < SEEDS
        possible = o.on == "val" and self.judging.proof_images(images) > 0 and not few
        if o.proof and few:
            raise UsageError(
                f"--proof needs a candidate, and so {SEEDS} seeds at least. Give --seeds {SEEDS}, or leave it out."
            )
        if o.proof and not possible:
            raise UsageError(
                "--proof reads images that nothing has judged by, and there are none. Leave it out, or give --rotate."
            )
        return possible and o.proof is not False

    @staticmethod
    def proof_seconds(made: Design, pilot: Pilot) -> float:
        """The longest that the proof may take."""
        seconds = [pilot.seconds(arm.recipe) for arm in made.arms]
        return PROOF_SEEDS * (seconds[0] + max(seconds))

    def decided(self) -> tuple[str, int, bool] | None:
        """The design, the number of seeds and whether there is a proof, as an earlier call with the same options chose them."""
        held = self.held
        same = held and store.to_json(held["options"]) == store.to_json(self.options.model_dump(by_alias=True))
        return (held["design"], len(held["seeds"]), held["proving"]) if same else None

    def later(self, made: Design, pilot: Pilot) -> float:
        """About how many seconds a seed takes in the arms to which a study may lead."""
        seconds = [pilot.seconds(arm.recipe) for arm in made.arms]
        matched = [s for arm, s in zip(made.arms, seconds, strict=True) if arm.role in MATCHED and s > DEAR * seconds[0]]
        return sum(matched) if self.options.matched else 0.0

    def planned_there(self) -> Plan:
        """The plan as a machine of the cluster makes it: what is timed and chosen for a device is so for the jobs' one."""
        from trickbag.studies.cluster import answered

        self.tell(Note("planning on a machine of the cluster"))
        elsewhere = copy.copy(self)
        elsewhere.tell = silent
        gone = time.monotonic() - self.wanted.began
        plan, told = answered(self.means.ray, torch.get_num_threads(), partial(retold, elsewhere, gone))
        for event in told:
            self.tell(event)
        return plan

    def proposed(self, reference: Recipe) -> list[Trick]:
        """The tricks that the data set suggests, told with the reasons."""
        o = self.options
        known = expected(o.prior, regime_of(reference), self.data.fingerprint) if o.prior else {}
        found = propose(self.audit, reference, o.teacher, known=known)
        if order := ordering(known, (str(trick) for trick, _ in found)):
            self.tell(Note(order))
        check_named(trick for trick, _ in found)
        for trick, reason in found:
            self.tell(Note(f"{trick}: {reason}"))
        return [trick for trick, _ in found]

    def look_back(self, tricks: Sequence[Trick]) -> None:
        """Tell which of the images that arms are judged on were trained on by runs that they build on, in the report too."""
        images, known = self.data.images, self.audit.findings
        if self.judging.folds:
            images = replace(images, splits=np.where(images.splits == "test", "test", "val"))
        for finding in seen.about_seen(images, [*seen.runs(self.wanted.recipe), *seen.asked(tricks)]):
            if finding not in known:
                self.tell(Note(f"{finding.message} {finding.suggestion}"))
                known = (*known, finding)
        self.audit = replace(self.audit, findings=known)
        self.wanted = replace(self.wanted, audit=self.audit)

    def laid(
        self,
        reference: Recipe,
        made: Design,
        tricks: Sequence[Trick],
        count: int,
        pilot: Pilot,
        proof: bool,
        rivals: Sequence[Design] = (),
    ) -> Plan:
        """A plan with so many seeds."""
        seeds = tuple(range(self.options.seed, self.options.seed + count))
        last = ProofPlan.build(self.data.images, self.judging, self.proof_seconds(made, pilot)) if proof else None
        asked = self.options, self.wanted, reference, made, tricks, seeds, self.data.fingerprint, self.judging
        return Plan.build(*asked, pilot, last, rivals)

    def go(self) -> Finished:
        """Plan, run, analyse, and put the best candidate to the proof."""
        self.mend()
        plan = self.planned_there() if self.means.ray else self.planned()
        for line in plan.lines():
            self.tell(Note(line))
        self.write(plan)
        if not self.means.workers and not self.means.ray:
            self.pack(plan)
        self.run_looks(plan)
        self.add_matched(plan)
        if plan.proof:
            self.prove(plan.proof)
        self.keep_pictures()
        return report(self.place.folder)

    def mend(self) -> None:
        """Set aside what is damaged, and say so: what was decided is decided anew, a run is trained again."""
        folder = self.place.folder
        if (folder / STUDY).exists() and (reason := refusal(partial(StudyRecord.load, folder))):
            aside = store.set_aside(folder / STUDY)
            said = f"{reason.partition(' Give the same')[0]} It is now {aside.name}, and what it had decided was decided anew."
            self.lost = {"departures": [said]}
            self.tell(Note(said))
        if reason := refusal(partial(store.lines, folder / LEDGER, LedgerLine)):
            self.tell(Note(f"{reason} It is now {store.set_aside(folder / LEDGER).name}, and a new one was begun."))
        for run in sorted(folder.glob("runs/" + 16 * "[0-9a-f]")):
            if reason := refusal(partial(stored, run)):
                self.tell(Note(f"{reason} It is now {store.set_aside(run).name}, and the run is trained again."))

    def pack(self, plan: Plan) -> None:
        """Decide how many trainings go on at a time."""
        workers, reason = packing(plan.reference, self.data, self.options.seed, len(plan.design.arms) * len(plan.seeds))
        self.tell(Note(reason))
        self.means = replace(self.means, workers=workers)

    def run_looks(self, plan: Plan) -> None:
        """Carry out the runs; with looks, after each only those of arms that are not decided."""
        arms, begun = plan.design.arms, 0
        for seeds in planned(len(plan.seeds)) if self.options.looks else [len(plan.seeds)]:
            self.run(arms, list(enumerate(plan.seeds))[begun:seeds])
            if seeds == len(plan.seeds):
                return
            ended = analysis.decided(Study.load(self.place.folder), seeds)
            for arm in (arm for arm in arms if arm.name in ended):
                self.tell(Note(f"{arm.name} is decided after {seeds} seeds and stops"))
            arms, begun = tuple(arm for arm in arms if arm.name not in ended), seeds
            self.update(stopped=self.held["stopped"] | dict.fromkeys(sorted(ended), seeds))

    @cached_property
    def judging(self) -> Judging:
        """Who judges the runs: each seed another fold where the tool makes the validation split, and no run that is built on
        has seen these images."""
        o, (_, folds) = self.options, self.options.blocks
        if folds:
            return Judging("val", folds, 0, o.seed, self.wanted.recipe.val_share)
        named = [*(o.tricks if o.tricks != "auto" else ()), *chain(*o.combine)]
        named += [f"distill(teacher={o.teacher!r})"] if o.teacher else []
        built = [*seen.runs(self.wanted.recipe), *seen.asked(map(parse, named))]
        given = bool((self.audit.images.splits == "val").any()) or bool(built)
        rotate = o.on == "val" and not given if o.rotate is None else o.rotate
        kept = (FOLDS, PROVING) if rotate else (0, 0)
        return Judging(o.on, *kept, o.seed, self.wanted.recipe.val_share)

    def run(self, arms: Sequence[Arm], seeds: Sequence[tuple[int, int]], role: Role = "study") -> None:
        """Carry out the runs of some arms that are not finished; ``seeds``: the turn of each, and the seed."""
        runs = cells(arms, seeds, self.data.fingerprint, self.judging, role)
        names = {entry(cell.recipe, self.judging.name(cell.turn, role), cell.seed): cell.key for cell in runs}
        self.update(keys=self.held["keys"] | names)
        made = jobs(runs, self.data.fingerprint, self.judging, self.options.sharing)
        for job in made:
            if all(map(self.place.done, job.cells)):  # a command may have been killed between the last run and this
                store.remove(self.place.work(job.key))
        order = np.random.default_rng(self.options.seed).permutation(len(made))
        left = sum(not self.place.done(cell) for cell in runs)
        total, began = left, time.monotonic()
        if 0 < left < len(runs):
            self.tell(Note(f"{len(runs) - left} of {len(runs)} runs are finished already; what follows is of the others"))

        def ended(outcome: Outcome) -> None:
            nonlocal left
            left = sum(not self.place.done(cell) for cell in runs)
            self.told(outcome, total - left, total, time.monotonic() - began)

        failed = execute([made[n] for n in order], self.place, self.carrier(), ended)
        self.failed += [
            {"arm": cell.arm, "seed": cell.seed, "kind": outcome.kind, "cause": outcome.cause}
            for outcome in failed
            for cell in outcome.job.cells
        ]
        self.update(failures=self.failed)

    def carrier(self) -> Carrier:
        """What carries jobs: this process, others on this machine, or a cluster."""
        alone = self.means.workers == 1 and not self.means.ray
        task = partial(carry, wanted=self.wanted, place=self.place, judging=self.judging, alone=alone)
        if self.means.ray:
            from trickbag.studies.cluster import Cluster

            return Cluster(task, self.means.ray, torch.get_num_threads())
        if self.means.workers == 1:
            return Here(partial(task, tell=self.bars))
        return Processes(task, self.means.workers, threads(self.means.workers))

    def bars(self, event: Event) -> None:
        """Pass on progress; the runs' own notes would hide the study's."""
        if isinstance(event, Doing):
            self.tell(event)

    def told(self, outcome: Outcome, done: int, total: int, seconds: float) -> None:
        """Tell how the runs of a job ended, and how long the rest will take."""
        left = seconds / done * (total - done) if done else None
        for cell in outcome.job.cells:
            record = stored(self.place.run(cell.key)) if self.place.done(cell) else {}
            accuracy = record.get("counts_with", record.get("scores", {}).get("top1"))
            self.tell(CellDone(cell.arm, cell.seed, accuracy, outcome.cause or record.get("diverged", ""), done, total, left))

    def write(self, plan: Plan) -> None:
        """Store what was decided, before the first run, and any departure from an earlier call's decision."""
        if not self.held:
            provenance.keep(self.wanted, self.place.folder, on=self.options.on)
        told = facts(plan, self.wanted, self.data.fingerprint, self.held or self.lost)
        self.keep(told | {"command": self.means.command, "data": str(self.source)})
        departed = f"; {counted(len(told['departures']), 'departure')} from it" if told["departures"] else ""
        self.tell(Note(f"plan: {told['plan']}, stored in {self.place.folder / STUDY} before the first run{departed}"))

    def update(self, **changes: Any) -> None:
        """Change what ``study.json`` says."""
        self.keep(self.held | changes)

    def keep(self, fields: dict[str, Any]) -> None:
        """Write ``study.json``."""
        store.write(self.place.folder / STUDY, store.to_json(StudyRecord.of(fields).signed(), indent=1))

    def add(self, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
        """Run arms that the study itself led to."""
        known = self.held["arms"]
        new = [spelled(arm) for arm in arms if arm.name not in [a["name"] for a in known]]
        self.update(arms=[*known, *new])
        self.run(arms, list(enumerate(seeds)))

    def add_matched(self, plan: Plan) -> None:
        """Train the reference as long as every trick that costs more takes."""
        if not self.options.matched:
            return
        found = analysis.findings(Study.load(self.place.folder))
        dear = [a.price.ratio for a in found.arms if a.role in MATCHED and a.price and a.price.ratio > DEAR]
        arms = {arm.recipe.key: arm for arm in (matched(plan.reference, ratio) for ratio in dear)}
        arms.pop(plan.reference.key, None)
        if held := [a for a in self.held["arms"] if a["role"] == "matched"]:  # times differ at each call: the first count
            arms = {a["name"]: ArmRecord.of(a).arm() for a in held}
        self.add(list(arms.values()), plan.seeds)

    def prove(self, plan: ProofPlan) -> None:
        """Train the nominated recipe and the reference with fresh seeds, judged by images that have chosen nothing."""
        held = Study.load(self.place.folder)
        nominated = analysis.nomination(held)
        if not nominated.changes:
            self.tell(Note("nothing to prove: no change that was tried is expected to gain"))
            return
        fresh = [self.options.seed + FRESH + n for n in range(PROOF_SEEDS)]
        likely = analysis.likely(held, nominated, plan.images, plan.judged, PROOF_SEEDS)
        self.tell(
            Note(
                f"proof of {' '.join(nominated.changes)}: expected to gain {points(nominated.belief.gain)} points, which "
                f"{PROOF_SEEDS} fresh seeds on {counted(plan.images, 'image')} that chose nothing prove with a probability "
                f"of {100 * likely:.0f} %"
            )
        )
        known = self.held["nominees"]
        if nominated.arm.recipe.key not in [ArmRecord.of(arm).arm().recipe.key for arm in known]:
            known = [*known, spelled(nominated.arm)]
        self.update(proof_seeds=fresh, nominees=known)
        self.run([held.arms[0], nominated.arm], list(enumerate(fresh)), "proof")

    def keep_pictures(self) -> None:
        """Store thumbnails of the images that the report shows."""
        held = Study.load(self.place.folder)
        files = Files(self.data.images, self.data.channels, 2 * pictures.SIDE)
        runs = {name: [judged for judged in row if judged] for name, row in table(held, held.arms).items()}
        pictures.save(held, runs, lambda row: files[row])


def refusal(act: Callable[[], object]) -> str:
    """What an act is refused with; an empty string where it is not."""
    try:
        act()
    except TrickbagError as error:
        return str(error)
    return ""


def retold(conductor: Conductor, gone: float) -> tuple[Plan, list[Event]]:
    """The plan and what is told on the way to it, on a machine with a clock of its own: ``gone`` are seconds of the budget."""
    told: list[Event] = []
    conductor.tell, conductor.wanted = told.append, replace(conductor.wanted, began=time.monotonic() - gone)
    return conductor.planned(), told


def threads(workers: int) -> int:
    """Of each worker: its share of the cores, no more than this process would use."""
    return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // workers))
