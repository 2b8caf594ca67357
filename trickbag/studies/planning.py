"""What a study asks for, and on the way from it to the plan: reference, tricks, design, seeds, who judges, and the price."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trickbag import plugins
from trickbag.ground import store
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Event, Note, Tell, silent
from trickbag.ground.text import duration
from trickbag.recipe import Recipe
from trickbag.runs import auto, provenance, seen
from trickbag.runs.auto import SAFETY, TRIAL_SHARE
from trickbag.runs.request import Request, called, check_named, check_used, edited, ingest, started, tell_where
from trickbag.statistics.power import seeds_within
from trickbag.statistics.verdicts import SEEDS
from trickbag.studies import transfers
from trickbag.studies.design import DEAR, MATCHED, Design, check_asked, design
from trickbag.studies.folder import STUDY, StudyRecord
from trickbag.studies.folds import FOLDS, PROVING, Judging
from trickbag.studies.options import Options
from trickbag.studies.pilot import Pilot
from trickbag.studies.plan import MOST_SEEDS, PROOF_SEEDS, ProofPlan, StudyPlan
from trickbag.studies.prior import expected, ordering, regime_of
from trickbag.studies.propose import propose
from trickbag.studies.worker import Place
from trickbag.trick import Trick
from trickbag.tricks import parse


class Planner:
    """What one call of ``study`` or ``plan`` asks for; its folder may hold what an earlier call decided."""

    def __init__(
        self,
        data: str | Path,
        options: Options | str | Path | None,
        out: str | Path | None,
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
        self.source, self.tell = data, tell
        o = self.options
        # An epoch that is chosen may be the same for all arms, however their tricks shape what comes after it.
        kept = {} if "keep" in o.set_ else {"keep": "last"}
        recipe, chosen = started(
            *edited(o.recipe, o.model, o.weights, o.with_, o.without, o.set_ | kept), o.recipe == "auto", tell
        )
        self.data, self.audit = ingest(data, recipe, o.seed, "skip", "skip", tell, o.depth, o.corrections)
        self.downstream = transfers.asked(o, recipe.model, tell)
        name = called(data)
        self.wanted = Request(self.data, self.audit, recipe, o.recipe == "auto", chosen, 0.0, o.seed, name, began)
        # Metrics are asked of stored predictions, at each report: with others, the runs are the same.
        self.wanted = replace(self.wanted, plugins=tuple(p for p in plugins.active() if p.trick or p.networks))
        self.lost: dict[str, Any] = {}
        """What the new ``study.json`` says of a damaged one."""
        self.place = Place(Path("studies") / f"{name}-{self.wanted.key[:8]}" if out is None else store.folder_of(out))
        tell_where(self.place.folder, data, tell)

    @property
    def held(self) -> dict[str, Any]:
        """What an earlier call has stored; nothing where there was none."""
        return StudyRecord.load(self.place.folder).plain() if (self.place.folder / STUDY).exists() else {}

    def planned(self) -> StudyPlan:
        """The plan: arms, seeds, trainings and their price; with a budget, the most that fits it, the proof included."""
        o = self.options
        named = [parse(text) for text in o.tricks] if o.tricks != "auto" else []
        together = [[parse(text) for text in texts] for texts in o.combine]
        check_named(chain(self.wanted.recipe.tricks, named, *together))
        self.check_plugins(chain(self.wanted.recipe.tricks, named, *together))
        if o.on == "test" and not len(self.data.images.split("test")):
            raise UsageError("--on test reads the test images, and there are none. Leave it out.")
        if o.prior:
            expected(o.prior, regime_of(self.wanted.recipe))  # a file that cannot be read is refused before steps are timed
        if o.tricks != "auto":
            check_asked(named, o.vary, together, o.same)
        reference = self.reference()
        tricks = self.proposed(reference) if o.tricks == "auto" else named
        self.look_back([*self.wanted.recipe.tricks, *tricks, *chain(*together)])
        pilot = Pilot(replace(self.wanted, recipe=reference), TRIAL_SHARE * o.budget or math.inf)
        made = partial(design, reference, tricks, vary=o.vary, combine=together, same=o.same)
        if o.budget:
            return self.with_transfers(self.within(reference, made, tricks, pilot))
        others = ("add-one", "leave-one-out", "two-sided") if o.design == "auto" and len(tricks) > 1 else ()
        chosen = made(kind=o.design)
        rivals = [rival for rival in (made(kind=kind) for kind in others) if rival.kind != chosen.kind]
        count = math.prod(o.blocks) or o.seeds
        return self.with_transfers(self.laid(reference, chosen, tricks, count, pilot, self.proving, rivals))

    def with_transfers(self, plan: StudyPlan) -> StudyPlan:
        """The plan, with the price of what is done with its classifiers."""
        return replace(plan, downstream=transfers.priced(self.downstream, plan.design.arms, self.data, self.tell))

    def check_plugins(self, tricks: Iterable[Trick]) -> None:
        """Raise UsageError where a plugin is given and nothing of it is tried."""
        for name, metric in plugins.metrics().items():
            if not metric.each:
                raise UsageError(
                    f"the metric {name} gives one number for all images. A study needs one for each, to know how far a mean "
                    "may be off: return an array [N], or leave the plugin out."
                )
        used = plugins.of(tricks, self.wanted.recipe.model) | plugins.measuring()
        for model in self.options.vary.get("model", ()):
            used |= plugins.of((), model)
        check_used(self.wanted.plugins, used)

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

    def within(self, reference: Recipe, made: Callable[..., Design], tricks: Sequence[Trick], pilot: Pilot) -> StudyPlan:
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
        fit = math.floor(reference.epochs * max(SAFETY * o.budget - gone, 0.0) / (SEEDS * each + last))
        fewer = f"at most {fit} of {reference.epochs}" if fit else "fewer"
        raise UsageError(
            f"A budget of {duration(o.budget)} is too short: {SEEDS} seeds of the smallest design"
            f"{', with the proof,' if proof else ''} take about {duration(least)}. Give as much with --budget, "
            f"or try fewer tricks, smaller images (--set size=…), or {fewer} epochs (--set epochs=…)."
        )

    def decided(self) -> tuple[str, int, bool] | None:
        """The design, the number of seeds and whether there is a proof, as an earlier call with the same options chose them."""
        held = self.held

        def deciding(options: Mapping[str, Any]) -> str:
            return store.to_json({name: value for name, value in options.items() if not name.startswith("transfer")})

        same = held and deciding(held["options"]) == deciding(self.options.model_dump(by_alias=True))
        return (held["design"], len(held["seeds"]), held["proving"]) if same else None

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

    def later(self, made: Design, pilot: Pilot) -> float:
        """About how many seconds a seed takes in the arms to which a study may lead."""
        seconds = [pilot.seconds(arm.recipe) for arm in made.arms]
        matched = [s for arm, s in zip(made.arms, seconds, strict=True) if arm.role in MATCHED and s > DEAR * seconds[0]]
        return sum(matched) if self.options.matched else 0.0

    def laid(
        self,
        reference: Recipe,
        made: Design,
        tricks: Sequence[Trick],
        count: int,
        pilot: Pilot,
        proof: bool,
        rivals: Sequence[Design] = (),
    ) -> StudyPlan:
        """A plan with so many seeds."""
        seeds = tuple(range(self.options.seed, self.options.seed + count))
        last = None
        if proof:
            most = max(len(tricks) + len(self.options.vary), 1)
            last = ProofPlan.build(self.data.images, self.judging, self.proof_seconds(made, pilot), made, count, most)
        unheld = self.proof_seconds(made, pilot) if self.proving and not proof else 0.0
        asked = self.options, self.wanted, reference, made, tricks, seeds, self.data.fingerprint, self.judging
        return StudyPlan.build(*asked, pilot, last, unheld, rivals)

    def planned_there(self, ray: str) -> StudyPlan:
        """The plan as a machine of the cluster makes it: what is timed and chosen for a device is so for the jobs' one."""
        from trickbag.studies.cluster import answered

        self.tell(Note("planning on a machine of the cluster"))
        elsewhere = copy.copy(self)
        elsewhere.tell, elsewhere.downstream = silent, ()
        gone = time.monotonic() - self.wanted.began
        plan, told = answered(ray, torch.get_num_threads(), partial(retold, elsewhere, gone))
        for event in told:
            self.tell(event)
        return self.with_transfers(plan)  # they are made here, where their data lie


def retold(planner: Planner, gone: float) -> tuple[StudyPlan, list[Event]]:
    """The plan and what is told on the way to it, on a machine with a clock of its own: ``gone`` are seconds of the budget."""
    told: list[Event] = []
    planner.tell, planner.wanted = told.append, replace(planner.wanted, began=time.monotonic() - gone)
    with plugins.using(planner.wanted.plugins):
        return planner.planned(), told
