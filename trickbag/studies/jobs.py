"""From arms to jobs: which trainings a study needs, once what they have in common is trained once.

Arms that differ in watchers and evaluation tricks alone share one training. Trainings that agree up to the share where a
trick begins share that beginning: one leaves its state there, the other goes on from it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from trickbag.engine.loop import ENGINE
from trickbag.recipe import Recipe
from trickbag.runs.request import identity
from trickbag.studies.folds import Judging, Role
from trickbag.trick import Trick


@dataclass(frozen=True)
class Cell:
    """One arm with one seed: a run."""

    arm: str
    recipe: Recipe
    seed: int
    key: str
    turn: int = 0
    """Which place the seed has among the study's, or among the proof's: it decides who judges."""
    role: Role = "study"


@dataclass(frozen=True)
class Job:
    """One training and the runs that come out of it."""

    recipe: Recipe
    """What shapes the training: no watchers, no evaluation tricks."""
    seed: int
    key: str
    cells: tuple[Cell, ...]
    turn: int = 0
    role: Role = "study"
    parent: str = ""
    """The job whose beginning this one shares."""
    fork: float = 0.0
    """The share of training that is shared with the parent."""
    forks: tuple[float, ...] = ()
    """Shares at which others go on from this job's state."""
    follow: tuple[Recipe, ...] = field(default=(), repr=False)
    """Recipes whose watchers look on: those of the cells, and of the jobs that fork from here."""


def key(recipe: Recipe, fingerprint: str, judges: str, seed: int) -> str:
    """The name of a run: a hash of all that decides it; ``judges``: see ``Judging.name``."""
    text = json.dumps([ENGINE, identity(recipe), fingerprint, judges, seed], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def shape(recipe: Recipe, before: float = 1.0) -> Recipe:
    """The recipe with those tricks alone that begin to shape the training before a share of it."""
    return recipe.edit(tricks=tuple(trick for trick in recipe.tricks if trick.begin() < before))


def shared(a: Recipe, b: Recipe) -> float:
    """The share of training at whose end two recipes' trainings first differ; 0 where they differ from the start."""
    if a.edit(tricks=()) != b.edit(tricks=()):
        return 0.0
    differing: Iterable[Trick] = set(a.tricks) ^ set(b.tricks)
    return min((trick.begin() for trick in differing), default=1.0)


def jobs(cells: Sequence[Cell], fingerprint: str, judging: Judging, sharing: bool = True) -> tuple[Job, ...]:
    """The trainings for these runs, each after the one whose beginning it shares; ``sharing=False`` trains every run alone."""
    if not sharing:
        return tuple(Job(shape(c.recipe), c.seed, c.key, (c,), c.turn, c.role, follow=(c.recipe,)) for c in cells)
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        judges = judging.name(cell.turn, cell.role)
        groups.setdefault(key(shape(cell.recipe), fingerprint, judges, cell.seed), []).append(cell)
    made: dict[str, Job] = {}
    for name, group in sorted(groups.items(), key=lambda item: (late(item[1][0].recipe), cells.index(item[1][0]))):
        first = group[0]
        follow = tuple(cell.recipe for cell in group)
        job = Job(shape(first.recipe), first.seed, name, tuple(group), first.turn, first.role, follow=follow)
        made[name] = _with_parent(job, made)
    return tuple(made.values())


def late(recipe: Recipe) -> int:
    """How many tricks begin to shape the training after its start."""
    return sum(0 < trick.begin() < 1 for trick in recipe.tricks)


def _with_parent(job: Job, made: dict[str, Job]) -> Job:
    """The job after the one with which it shares most; that one and those before it watch for this one too."""
    alike = [other for other in made.values() if (other.seed, other.turn, other.role) == (job.seed, job.turn, job.role)]
    candidates = [(shared(other.recipe, job.recipe), other) for other in alike]
    fork, parent = max(candidates, key=lambda pair: pair[0], default=(0.0, job))
    if not fork:
        return job
    made[parent.key] = replace(parent, forks=tuple(sorted({*parent.forks, fork})))
    ancestor = parent.key
    while ancestor:
        made[ancestor] = replace(made[ancestor], follow=made[ancestor].follow + job.follow)
        ancestor = made[ancestor].parent
    return replace(job, parent=parent.key, fork=fork)
