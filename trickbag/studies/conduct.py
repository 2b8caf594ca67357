"""A study from start to end: plan, carry out, analyse, prove, report; the same call again goes on where it was stopped."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trickbag import plugins
from trickbag.engine.pixels import Files
from trickbag.ground import store
from trickbag.ground.environment import check_alone
from trickbag.ground.errors import TrickbagError
from trickbag.ground.events import CellDone, Doing, Event, Note, Tell, silent
from trickbag.ground.text import counted
from trickbag.runs import provenance
from trickbag.statistics.looks import planned
from trickbag.studies import analysis, pictures, proof, questions
from trickbag.studies.arms import Arm
from trickbag.studies.decisions import declared, facts, spelled, used
from trickbag.studies.design import DEAR, MATCHED, matched
from trickbag.studies.execute import Carrier, Here, Outcome, Processes, execute
from trickbag.studies.finished import Finished, report
from trickbag.studies.folder import LEDGER, STUDY, ArmRecord, LedgerLine, StudyRecord, stored
from trickbag.studies.folds import Role
from trickbag.studies.jobs import Cell, jobs
from trickbag.studies.options import Options
from trickbag.studies.packing import packing
from trickbag.studies.plan import PROOF_SEEDS, ProofPlan, StudyPlan, cells
from trickbag.studies.planning import Planner
from trickbag.studies.record import Study, entry, table
from trickbag.studies.transfers import TransferPlan, Transferring
from trickbag.studies.words import points
from trickbag.studies.worker import carry, network

FRESH = 100_000
"""Added to the first seed for the proof's."""


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
    check_alone("a study")
    planner, given = Planner(data, options, out, began, tell, asked), plugins.active()
    with store.lock(planner.place.folder), plugins.using(kept=planner.place.folder), plugins.using(given):
        return Conductor(planner, means).go()


def plan(
    data: str | Path,
    options: Options | str | Path | None = None,
    *,
    out: str | Path | None = None,
    began: float | None = None,
    tell: Tell = silent,
    **asked: Any,
) -> StudyPlan:
    """What ``study`` would do and cost; nothing is trained but a few steps to be timed."""
    planner, given = Planner(data, options, out, began, tell, asked), plugins.active()
    with plugins.using(kept=planner.place.folder), plugins.using(given):
        made = planner.planned()
        return replace(made, hash=declared(made))


class Conductor:
    """One call of ``study``, on a folder that no other process writes to."""

    def __init__(self, planner: Planner, means: Means) -> None:
        self.planner, self.means = planner, means
        self.options, self.place, self.judging, self.tell = planner.options, planner.place, planner.judging, planner.tell
        self.failed: list[dict[str, Any]] = []

    def go(self) -> Finished:
        """Plan, run, analyse, and put the best candidate to the proof."""
        self.mend()
        plan = self.planner.planned_there(self.means.ray) if self.means.ray else self.planner.planned()
        for line in plan.lines():
            self.tell(Note(line))
        self.write(plan)
        if not self.means.workers and not self.means.ray:
            self.pack(plan)
        self.run_looks(plan)
        self.add_matched(plan)
        if plan.proof:
            self.prove(plan.proof)
        for one in plan.downstream:
            self.transfer(one)
        self.keep_pictures()
        return report(self.place.folder)

    def mend(self) -> None:
        """Set aside what is damaged, and say so: what was decided is decided anew, a run is trained again."""
        folder = self.place.folder
        if (folder / STUDY).exists() and (reason := refusal(partial(StudyRecord.load, folder))):
            aside = store.set_aside(folder / STUDY)
            said = f"{reason.partition(' Give the same')[0]} It is now {aside.name}, and what it had decided was decided anew."
            self.planner.lost = {"departures": [said]}
            self.tell(Note(said))
        if reason := refusal(partial(store.lines, folder / LEDGER, LedgerLine)):
            self.tell(Note(f"{reason} It is now {store.set_aside(folder / LEDGER).name}, and a new one was begun."))
        for run in sorted(folder.glob("runs/" + 16 * "[0-9a-f]")):
            if reason := refusal(partial(stored, run)):
                self.tell(Note(f"{reason} It is now {store.set_aside(run).name}, and the run is trained again."))

    def pack(self, plan: StudyPlan) -> None:
        """Decide how many trainings go on at a time."""
        workers, reason = packing(plan.reference, self.planner.data, self.options.seed, len(plan.design.arms) * len(plan.seeds))
        self.tell(Note(reason))
        self.means = replace(self.means, workers=workers)

    def run_looks(self, plan: StudyPlan) -> None:
        """Carry out the runs; with looks, after each only those of arms that are not decided."""
        arms, begun = plan.design.arms, 0
        for seeds in planned(len(plan.seeds)) if self.options.looks else [len(plan.seeds)]:
            self.run(arms, list(enumerate(plan.seeds))[begun:seeds])
            if seeds == len(plan.seeds):
                return
            ended = questions.decided(Study.load(self.place.folder), seeds)
            for arm in (arm for arm in arms if arm.name in ended):
                self.tell(Note(f"{arm.name} is decided after {seeds} seeds and stops"))
            arms, begun = tuple(arm for arm in arms if arm.name not in ended), seeds
            self.update(stopped=self.planner.held["stopped"] | dict.fromkeys(sorted(ended), seeds))

    def run(self, arms: Sequence[Arm], seeds: Sequence[tuple[int, int]], role: Role = "study") -> None:
        """Carry out the runs of some arms that are not finished; ``seeds``: the turn of each, and the seed."""
        runs = cells(arms, seeds, self.planner.data.fingerprint, self.judging, role)
        names = {entry(cell.recipe, self.judging.name(cell.turn, role), cell.seed): cell.key for cell in runs}
        self.update(keys=self.planner.held["keys"] | names)
        made = jobs(runs, self.planner.data.fingerprint, self.judging, self.options.sharing)
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
        task = partial(carry, wanted=self.planner.wanted, place=self.place, judging=self.judging, alone=alone)
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
            arm = cell.arm if cell.role == "study" else f"{cell.arm}, proof"  # judged by other images: no mean goes over both
            self.tell(CellDone(arm, cell.seed, accuracy, outcome.cause or record.get("diverged", ""), done, total, left))

    def write(self, plan: StudyPlan) -> None:
        """Store what was decided, before the first run, and any departure from an earlier call's decision."""
        if not self.planner.held:
            provenance.keep(self.planner.wanted, self.place.folder, on=self.options.on)
        plugins.keep(used(plan), self.place.folder)
        told = facts(plan, self.planner.wanted, self.planner.held or self.planner.lost)
        self.keep(told | {"command": self.means.command, "data": str(self.planner.source)})
        departed = f"; {counted(len(told['departures']), 'departure')} from it" if told["departures"] else ""
        self.tell(Note(f"plan: {told['plan']}, stored in {self.place.folder / STUDY} before the first run{departed}"))

    def update(self, **changes: Any) -> None:
        """Change what ``study.json`` says."""
        self.keep(self.planner.held | changes)

    def keep(self, fields: dict[str, Any]) -> None:
        """Write ``study.json``."""
        store.write(self.place.folder / STUDY, store.to_json(StudyRecord.of(fields).signed(), indent=1))

    def add(self, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
        """Run arms that the study itself led to."""
        known = self.planner.held["arms"]
        new = [spelled(arm) for arm in arms if arm.name not in [a["name"] for a in known]]
        self.update(arms=[*known, *new])
        self.run(arms, list(enumerate(seeds)))

    def add_matched(self, plan: StudyPlan) -> None:
        """Train the reference as long as every trick that costs more takes."""
        if not self.options.matched:
            return
        found = analysis.findings(Study.load(self.place.folder))
        dear = [a.price.ratio for a in found.arms if a.role in MATCHED and a.price and a.price.ratio > DEAR]
        arms = {arm.recipe.key: arm for arm in (matched(plan.reference, ratio) for ratio in dear)}
        arms.pop(plan.reference.key, None)
        if held := [arm for arm in self.planner.held["arms"] if arm["role"] == "matched"]:
            arms = {arm["name"]: ArmRecord.of(arm).arm() for arm in held}  # times differ at each call: the first count
        self.add(list(arms.values()), plan.seeds)

    def prove(self, plan: ProofPlan) -> None:
        """Train the nominated recipe and the reference with fresh seeds, judged by images that have chosen nothing."""
        held = Study.load(self.place.folder)
        nominated = analysis.nomination(held)
        if not nominated.changes:
            self.tell(Note("nothing to prove: no change that was tried is expected to gain"))
            return
        fresh = [self.options.seed + FRESH + n for n in range(PROOF_SEEDS)]
        gain, before = points(nominated.belief.gain), proof.foreseen(held, nominated, plan)
        self.tell(
            Note(
                f"proof of {' '.join(nominated.changes)}: expected to gain {gain} points; {PROOF_SEEDS} fresh seeds judge the "
                f"gain on {counted(plan.images, 'image')} that chose nothing{before.words() if before else ''}"
            )
        )
        known = self.planner.held["nominees"]
        if nominated.arm.recipe.key not in held.nominees:
            known = [*known, spelled(nominated.arm)]
        self.update(proof_seeds=fresh, nominees=known)
        self.run([held.arms[0], nominated.arm], list(enumerate(fresh)), "proof")

    def transfer(self, plan: TransferPlan) -> None:
        """Fine-tune every classifier on one data set with boxes or regions."""
        made = Transferring(plan, Study.load(self.place.folder), self.classifier, self.tell)
        held = self.planner.held["downstream"]
        (own,) = (one for one in held if one["request"] == plan.wanted.key)
        own["keys"] = made.keys(own["keys"])
        self.update(downstream=held)
        made.carry_out(own["keys"])
        self.failed += made.failed
        self.update(failures=self.failed)

    def classifier(self, cell: Cell) -> Path:
        """The folder with the network of a run."""
        (job,) = jobs([cell], self.planner.data.fingerprint, self.judging, self.options.sharing)
        return network(job, self.planner.wanted, self.place, self.judging, self.bars)

    def keep_pictures(self) -> None:
        """Store thumbnails of the images that the report shows."""
        held = Study.load(self.place.folder)
        files = Files(self.planner.data.images, self.planner.data.channels, 2 * pictures.SIDE)
        runs = {name: [judged for judged in row if judged] for name, row in table(held, held.arms).items()}
        pictures.save(held, runs, lambda row: files[row])


def refusal(act: Callable[[], object]) -> str:
    """What an act is refused with; an empty string where it is not."""
    try:
        act()
    except TrickbagError as error:
        return str(error)
    return ""


def threads(workers: int) -> int:
    """Of each worker: its share of the cores, no more than this process would use."""
    return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // workers))
