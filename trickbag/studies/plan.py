"""What a study will do and cost, and what it can resolve, before it runs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated, Self

import numpy as np

from trickbag.data.images import Images
from trickbag.engine.assemble import build_model
from trickbag.ground.arguments import Between, public
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import counted, duration
from trickbag.recipe import Recipe
from trickbag.report.findings import CONTROLS
from trickbag.runs.request import Request
from trickbag.statistics.effects import by_arms, independent
from trickbag.statistics.looks import LOOKS, planned
from trickbag.statistics.power import GRAIN, PERSISTENT, detectable, evenly, expected, squares
from trickbag.statistics.variance import Share, Spread, off, taken
from trickbag.statistics.verdicts import SEEDS
from trickbag.studies.design import Arm, Design
from trickbag.studies.folds import Judging, Role, who
from trickbag.studies.jobs import Cell, Job, jobs, key, shape
from trickbag.studies.options import Options
from trickbag.studies.pilot import Expected, Pilot
from trickbag.studies.transfers import TransferPlan
from trickbag.trick import Trick

PROOF_SEEDS = 8
MOST_SEEDS = 20
"""That a budget is spent on."""


@dataclass(frozen=True)
class ProofPlan:
    """How the best candidate will be put to the proof."""

    images: int
    """That judge, over all its seeds."""
    groups: float
    """Independent ones that would say as much if all were judged alike often."""
    judged: int
    """Judgements of a recipe by independent images."""
    seconds: float
    """At most, on one worker."""
    before: float
    """Degrees of freedom behind what the study before it says of what seeds add."""
    most: int
    """Changes from the reference that a candidate can have."""
    apart: float
    """Variance between a candidate and the reference in one judgement, by what differs from seed to seed, as a multiple of the
    churn: less than 1 where nothing that is tried changes the training. See ``squares``."""

    @classmethod
    def build(cls, images: Images, judging: Judging, seconds: float, design: Design, seeds: int, most: int) -> Self:
        """With the images that have chosen nothing, after a study of the design with so many seeds."""
        others = [arm for arm in design.arms[1:] if arm.role not in CONTROLS]
        to_reference = np.hstack([-np.ones((len(others), 1)), np.eye(len(others))])
        here, there = _judged(images, judging, seeds, "study"), _judged(images, judging, PROOF_SEEDS, "proof")
        known = Share(0.0, independent(by_arms(to_reference)) * (seeds - 1) if others else 0.0)
        before = known.carried(expected(*here, seeds), expected(*there, PROOF_SEEDS))
        shapes = [shape(arm.recipe).key for arm in (design.arms[0], *others)]
        apart = squares(np.array([1.0, -1.0]), np.array([0, int(len(set(shapes)) > 1)]))
        return cls(judging.proof_images(images), *there, seconds, before.df, most, apart)

    def spread(self, kept: float) -> Spread:
        """How images will judge a recipe, as a multiple of the churn; see ``trickbag.studies.arms.kept``."""
        return expected(self.groups, self.judged, PROOF_SEEDS, kept=kept)

    def least(self, churn: float, changes: int) -> float:
        """The smallest gain of a recipe of so many changes that is proved with 80 % power; see ``Expected.churn``."""
        found = expected(self.groups, self.judged, PROOF_SEEDS, self.apart, PERSISTENT * changes)
        grain = GRAIN / self.groups**2 / churn
        one = off(found, taken(Share(0.0, self.before + PROOF_SEEDS - 1)), grain)
        return detectable(math.sqrt(churn * one.variance), one.df)

    def line(self, churn: float) -> str:
        """For people."""
        one, most = (self.least(churn, changes) for changes in (1, self.most))
        each = f" by one change, or of {100 * most:.2f} points by {self.most}," if self.most > 1 and most <= 1 else ""
        gain = f"a gain of {100 * one:.2f} points{each}" if one <= 1 else "they are too few, and no gain"
        return (
            f"proof: the best candidate against the reference, {PROOF_SEEDS} fresh seeds on {counted(self.images, 'image')} "
            f"that choose nothing; {gain} is proved with 80 % power; at most {duration(self.seconds)} more"
        )


def _judged(images: Images, judging: Judging, seeds: int, role: Role) -> tuple[float, int]:
    """How many independent images so many seeds judge, were each judged alike often, and how often in all."""
    groups = [np.unique(images.groups[judging.judges(images, turn, role)]) for turn in range(seeds)]
    return evenly(np.unique(np.concatenate(groups), return_counts=True)[1])


@dataclass(frozen=True, repr=False)
class StudyPlan(Shown):
    """A study that is ready to run.

    Examples:
        >>> import trickbag as tb
        >>> small = {"recipe": "cifar", "model": "cifar_resnet8", "set_": {"size": 16, "epochs": 1}}
        >>> made = tb.plan_study("photos", tricks="mixup", **small, out="planned")
        >>> [arm.name for arm in made.design.arms]
        ['reference', 'mixup', 'placebo']

    """

    options: Options
    reference: Recipe
    design: Design
    tricks: tuple[str, ...]
    """That are tried."""
    seeds: tuple[int, ...]
    fingerprint: str
    """Of the data and its division."""
    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]
    seconds: float
    """For all jobs on one worker, from timed steps."""
    disk: int
    """Bytes."""
    steps_share: float
    """Training that is left once what arms have in common is trained once."""
    judging: Judging
    images: int
    """That a run is judged on."""
    groups: int
    """Independent ones among them."""
    pool: int
    """Independent images that seeds judge, in turn or all at a time."""
    expected: Expected
    """What trainings of the reference will do; see ``Pilot.expected``."""
    rivals: tuple[tuple[str, float], ...]
    """What other designs resolve with as many trainings; see ``resolves``."""
    proof: ProofPlan | None
    unheld: float = 0.0
    """Seconds of a proof that the budget does not hold; 0 where it does, or none is asked for."""
    downstream: tuple[TransferPlan, ...] = ()
    """What is done with the classifiers besides."""
    hash: str = ""
    """Under which the study would store what it decides before its first run; empty where that is not asked for."""

    @classmethod
    def build(
        cls,
        options: Options,
        wanted: Request,
        reference: Recipe,
        design: Design,
        tricks: Sequence[Trick],
        seeds: Sequence[int],
        fingerprint: str,
        judging: Judging,
        pilot: Pilot,
        proof: ProofPlan | None = None,
        unheld: float = 0.0,
        rivals: Sequence[Design] = (),
    ) -> Self:
        """The plan of these arms and seeds; ``rivals`` are designs that answer the same questions."""
        runs = cells(design.arms, enumerate(seeds), fingerprint, judging)
        made = jobs(runs, fingerprint, judging, options.sharing)
        table, classes = wanted.data.images, len(wanted.data.images.classes)
        judges, pool = judging.judges(table, 0), len(np.unique(table.groups[judging.pool(table)]))
        images, groups = len(judges), len(np.unique(table.groups[judges]))
        once = images * pilot.timing(reference).judge
        model = build_model(reference, (), classes, wanted.data.channels, wanted.seed, "none")
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        plan = cls(
            options,
            reference,
            design,
            tuple(map(str, tricks)),
            tuple(seeds),
            fingerprint,
            runs,
            made,
            sum((1 - job.fork) * pilot.seconds(job.recipe) + (len(job.cells) - 1) * once for job in made),
            4 * weights * len(made) + 4 * (classes + 8) * images * len(runs),
            sum((1 - job.fork) * job.recipe.epochs for job in made) / max(1, sum(cell.recipe.epochs for cell in runs)),
            judging,
            images,
            groups,
            pool,
            pilot.expected,
            (),
            proof,
            unheld,
        )
        each = trainings(design, fingerprint, judging)
        alike = ((rival, len(seeds) * each / trainings(rival, fingerprint, judging)) for rival in rivals)
        return replace(plan, rivals=tuple((rival.kind, plan.resolves(count, rival)) for rival, count in alike))

    @public
    def resolves(self, seeds: Annotated[float, Between(0)], design: Design | None = None) -> float:
        """The smallest effect of a trick that so many seeds find with 80 % power: the median over the declared questions."""
        if not seeds:
            return math.inf
        arms, asked = (design or self.design).arms, (design or self.design).questions
        declared = [question for question in asked if question.declared] or asked
        weights = np.array([[dict(question.weights).get(arm.name, 0.0) for arm in arms] for question in declared])
        trainings = np.unique([f"{shape(arm.recipe).key} {arm.seed_offset}" for arm in arms], return_inverse=True)[1]
        judged = self.groups * seeds
        known = taken(Share(0.0, independent(by_arms(weights)) * max(seeds - 1, 0.0)))
        alike, images = median(squares(row, trainings) for row in weights), min(self.pool, judged)
        kept, grain = min(PERSISTENT, alike), median((weights**2).sum(1)) / images**2 / self.expected.churn
        one = off(expected(images, judged, seeds, alike - kept, kept), known, grain)
        return detectable(math.sqrt(self.expected.churn * one.variance), one.df, 0.05 / len(declared))

    def _sheet(self) -> Sheet:
        arms = [(arm.name, arm.edits or "the reference recipe") for arm in self.design.arms]
        facts = {
            "design": self.design.kind,
            "runs": f"{len(self.cells)}, each judged on {counted(self.images, 'image')}",
            "time": f"about {duration(self.seconds)} on one worker",
            "smallest effect found": f"{percent(self.resolves(len(self.seeds)))} with 80 % power, in points",
            "hash": self.hash,
        }
        title = f"plan: {counted(len(arms), 'arm')}, {counted(len(self.seeds), 'seed')}"
        return Sheet(title, {name: text for name, text in facts.items() if text}, ("arm", "what it changes"), arms)

    def lines(self) -> list[str]:
        """The plan for people."""
        two = self.expected
        least = ", ".join(f"{percent(self.resolves(seeds))} with {seeds} seeds" for seeds in LOOKS)
        controls = {question.name: f" ({question.says})" for question in self.design.questions if question.kind == "control"}
        arms = [f"  {arm.name}: {arm.edits or 'the reference recipe'}{controls.get(arm.name, '')}" for arm in self.design.arms]
        why = f", since {self.design.reason}" if self.design.reason else ""
        lines = [
            f"design: {self.design.kind}{why}. {self.design.weakness}",
            f"arms (recipes to compare): {len(self.design.arms)}, each with {counted(len(self.seeds), 'seed')}",
            *arms,
            *(f"  not run: {text}" for text in self.design.not_run),
            f"runs: {len(self.cells)}; each is judged on {counted(self.images, 'image')}: {who(self.judging)}",
            f"trainings: {len(self.jobs)}, with {100 * self.steps_share:.0f} % of the steps of runs trained alone",
            f"time: about {duration(self.seconds)} on one worker; disk: about {self.disk / 1e9:.2f} GB",
            f"smallest effect found with 80 % power, in points on new photos: {least}",
            (
                f"this assumes that two trainings disagree on {100 * two.churn:.0f} % of the images ({two.known}), "
                "and that no seed is better than another on all of them"
            ),
        ]
        if self.rivals:
            least = ", ".join(f"{percent(resolved)} by {kind}" for kind, resolved in self.rivals)
            lines.append(f"with as many trainings the other designs would find: {least}")
        if self.proof:
            lines.append(self.proof.line(self.expected.churn))
        if self.unheld:
            lines.append(
                f"proof: left out, since the budget does not hold the {duration(self.unheld)} that it may take; for a proof, "
                "give a larger --budget, or --seeds in its place"
            )
        lines += [one.line(len(self.cells)) for one in self.downstream]
        if len(self.seeds) < SEEDS:
            lines.append(f"with fewer than {SEEDS} seeds there are no verdicts: the results are descriptive only")
        if self.options.looks:
            after = ", ".join(map(str, planned(len(self.seeds))))
            lines.append(
                f"interim analyses after {after} seeds: arms that are decided by then stop, so the time is an upper limit"
            )
        if self.options.on == "test":
            lines.append("the arms are compared on the test images: the recipe is chosen on them, and the report says so")
        if self.hash:
            lines.append(f"plan: {self.hash}, the hash that the study stores before its first run")
        return lines


def percent(effect: float) -> str:
    """An effect in points of accuracy; none where it is more than all.

    >>> percent(0.0123), percent(1.5)
    ('1.23', 'none')
    """
    return f"{100 * effect:.2f}" if effect <= 1 else "none"


def trainings(design: Design, fingerprint: str, judging: Judging) -> float:
    """How many whole trainings a seed of a design takes, once what arms have in common is trained once."""
    return sum(1 - job.fork for job in jobs(cells(design.arms, [(0, 0)], fingerprint, judging), fingerprint, judging))


def cells(
    arms: Sequence[Arm], seeds: Iterable[tuple[int, int]], fingerprint: str, judging: Judging, role: Role = "study"
) -> tuple[Cell, ...]:
    """The runs of these arms: one per arm and seed, seed by seed; ``seeds``: the turn of each, and the seed."""
    made = []
    for turn, seed in seeds:
        for arm in arms:
            own = seed + arm.seed_offset
            name = key(arm.recipe, fingerprint, judging.name(turn, role), own)
            made.append(Cell(arm.name, arm.recipe, own, name, turn, role))
    return tuple(made)
