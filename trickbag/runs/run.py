"""A run: (recipe, data, seed) -> result, the one place where engine, data and store meet; resumable at any moment."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any, cast

from lightning_fabric import Fabric
from torch import nn

from trickbag import plugins
from trickbag.engine.assemble import Normal, assemble, kept_pixels
from trickbag.engine.loop import Loop
from trickbag.engine.pixels import Joined, Pixels, pixels
from trickbag.engine.precision import fabric_for
from trickbag.ground import store
from trickbag.ground.arguments import Whole, public
from trickbag.ground.environment import whole
from trickbag.ground.errors import Interrupted, TrickbagError, UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.shown import Picture, Sheet, Shown
from trickbag.ground.text import duration
from trickbag.models.card import CARD
from trickbag.recipe import Recipe
from trickbag.runs import auto, classifier, provenance
from trickbag.runs.folder import BEGUN, DIVERGED, FINISHED, Begun, Divergence, Mistake, RunRecord, mistakes
from trickbag.runs.outcome import write_result
from trickbag.runs.request import Request, edited, unlabelled
from trickbag.runs.under_way import UnderWay
from trickbag.trick import itself, judged_weights


@dataclass(frozen=True, repr=False)
class Result(Shown):
    r"""A finished run: its folder and the content of ``result.json``.

    Examples:
        >>> import trickbag as tb
        >>> result = tb.finish("run")
        >>> sorted({error.true for error in result.errors()} - {"cat", "dog"}), result.curves()[:4]
        ([], b'\x89PNG')

    """

    folder: Path
    record: dict[str, Any]

    @classmethod
    @public
    def load(cls, folder: str | Path) -> "Result":
        """The result in a run's folder. Raises TrickbagError where it is damaged or unfinished."""
        folder = Path(folder)
        if reason := store.verify(folder, *FINISHED):
            raise TrickbagError(f"{folder} is not a finished run: {reason}.")
        return cls(folder, RunRecord.load(folder).plain())

    def _sheet(self) -> Sheet:
        split = "test" if self.record["test"] else "val"
        judged, (low, high) = self.record[split], self.record[split]["top1_interval"]
        scored = f"{100 * judged['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f}, {judged['n']:,} images)"
        name = {"test": "test top-1", "val": "validation top-1"}[split]
        facts = {name: scored, "macro recall": f"{100 * judged['macro_recall']:.1f} %"}
        return Sheet(f"run {self.folder}", facts | {"time": duration(self.record["seconds"])})

    def curves(self) -> Picture:
        """Loss, validation accuracy and learning rate over training, as a PNG picture."""
        return Picture((self.folder / "curves.png").read_bytes())

    def confusion(self) -> Picture:
        """How many images of each class were taken for which, as a PNG picture; ``confusion.csv`` has the numbers."""
        return Picture((self.folder / "confusion.png").read_bytes())

    @public
    def errors(self, most: Whole | None = None) -> list[Mistake]:
        """The judged images that were classified wrongly, the most confident mistakes first; None for all of them."""
        return mistakes(self.folder)[:most]

    @property
    def classifier(self) -> classifier.Classifier:
        """The trained classifier."""
        return classifier.Classifier.load(self.folder)


def carry_out(wanted: Request, folder: Path, tell: Tell = silent, wait: bool = False) -> Result:
    """Find or make the run that was asked for, in its folder. Under torchrun, every rank calls this.

    Raises UsageError where another process writes to the folder, unless ``wait`` is true.
    """
    ranks = whole("LOCAL_WORLD_SIZE", 1, 1)
    nodes = whole("WORLD_SIZE", 1, 1) // ranks
    fabric = fabric_for("fp32", ranks, nodes)
    fabric.launch()
    leader = fabric.global_rank == 0
    with store.lock(folder, wait) if leader else nullcontext():
        if fabric.broadcast(leader and finished(wanted, folder)):
            if leader:  # the process may have been killed between the manifest and this
                store.remove(folder / ".work")
            return Result.load(folder)
        recipe = cast(Recipe, fabric.broadcast(concrete(wanted, folder, tell) if leader else None))
        return Run(wanted, recipe, folder, fabric_for(recipe.precision, ranks, nodes), tell if leader else silent).go()


def finish(run: str | Path, *, tell: Tell = silent) -> Result:
    """Score and seal a run that was stopped, with the best epoch that it has kept; a finished run stays as it is.

    Raises UsageError where there is no such run, where its data or its recipe are others by now, or where it has kept no epoch.
    """
    folder = Path(run)
    if not os.path.isdir(folder):
        raise UsageError(f"There is no folder {folder}. Give the folder that train wrote.")
    with store.lock(folder), plugins.using(kept=folder):
        if not store.verify(folder, *FINISHED):
            tell(Note(f"{folder} is finished already and stays as it is"))
            return Result.load(folder)
        wanted, recipe = provenance.again(folder, tell), resumed(folder)
        return Run(wanted, recipe, folder, fabric_for(recipe.precision), tell).end()


def finished(wanted: Request, folder: Path) -> bool:
    """Whether the folder holds the finished run. Raises where it holds something else, or the run diverged."""
    damage = store.verify(folder, *FINISHED)
    begun = (folder / BEGUN).exists()
    if begun or not damage:
        held = RunRecord.load(folder).request if not damage else Begun.load(folder).request
        if held != wanted.key:
            raise UsageError(provenance.another(wanted, folder))
    elif (folder / store.MANIFEST).exists():
        raise TrickbagError(f"{folder} is damaged: {damage}. Restore it from a copy, or remove it to train again.")
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no run that can be continued. Choose another --out.")
    if damage and (folder / DIVERGED).exists():
        raise TrickbagError(Divergence.load(folder).message)
    return not damage


def concrete(wanted: Request, folder: Path, tell: Tell) -> Recipe:
    """The recipe with everything decided: once, at the start; a resumed run finds it stored."""
    if (folder / BEGUN).exists():
        return resumed(folder)
    decision = auto.decide(wanted, tell)
    for reason in decision.reasons:
        tell(Note(reason))
    begun = Begun(request=wanted.key, recipe=decision.recipe.spelled(), reasons=list(decision.reasons), short=decision.short)
    store.write(folder / BEGUN, store.to_json(begun.signed()))  # first: it says whose folder this is
    provenance.keep(wanted, folder)
    store.write(folder / "check.json", store.to_json(wanted.audit.as_json(), indent=2))
    store.write(folder / "recipe.toml", decision.recipe.toml(decision.reasons))
    return decision.recipe


def resumed(folder: Path) -> Recipe:
    """The recipe that was decided for a run. Raises UsageError where its ``recipe.toml`` says something else by now."""
    begun, file = Begun.load(folder), folder / "recipe.toml"
    recipe = Recipe.build(begun.recipe, f"{folder / BEGUN}")
    if not file.exists():
        store.write(file, recipe.toml(begun.reasons))
    old, new = recipe.spelled(), Recipe.load(file).spelled()
    if changed := [f"{name} is {new[name]} and was {old[name]}" for name in old if new[name] != old[name]]:
        raise UsageError(
            f"{file} was edited after the run began: {'; '.join(changed)}. Put it back to continue, or train the edited recipe "
            f"as a run of its own: --recipe {file} --out …"
        )
    return recipe


class Run(UnderWay[Recipe, Result]):
    """The run under way.

    A study has the watchers of other recipes follow the same training, and has the teachers that are recipes trained with one
    seed for all runs (``teacher_seed``).
    """

    def __init__(
        self,
        wanted: Request,
        recipe: Recipe,
        folder: Path,
        fabric: Fabric,
        tell: Tell,
        follow: Sequence[Recipe] = (),
        prefix: Path | None = None,
        forks: Mapping[float, Path] = MappingProxyType({}),
        teacher_seed: int | None = None,
    ) -> None:
        super().__init__(recipe, folder, fabric, tell, follow, prefix, forks)
        self.wanted = wanted
        self.teacher_seed = wanted.seed if teacher_seed is None else teacher_seed

    def go(self) -> Result:
        """Train from the newest checkpoint, or from the start, to the result."""
        try:
            return super().go()
        except Interrupted as stop:
            stop.args = (f"{stop} To score the best epoch so far instead: trickbag finish {quote(str(self.folder))}.",)
            raise

    def end(self) -> Result:
        """The result with what the newest checkpoint has kept, untrained further. Raises UsageError where that is nothing."""
        self.fabric.launch()
        loop = self.assemble()
        self.resume(loop)
        kept = loop.best.get(judged_weights(self.recipe.tricks))
        if not kept:
            raise UsageError(f"{self.folder} was stopped before its first epoch. Continue it with the command that began it.")
        where = f"step {loop.step:,} of {loop.judge.facts.steps:,}"
        self.tell(Note(f"the run came to {where}; the best epoch is {kept['epoch']} of {self.recipe.epochs}"))
        return self.seal(loop)

    def seal(self, loop: Loop) -> Result:
        """Score the kept epoch once and write the files of a finished run."""
        began = time.monotonic()
        if self.leader:
            short = Begun.load(self.folder).short
            write_result(self.folder, self.wanted, self.recipe, loop, self.spent, began, short)
            store.remove(self.folder / ".work")
        self.fabric.barrier()
        return Result.load(self.folder)

    def assemble(self) -> Loop:
        """The loop before its first step."""
        data, shorter = self.wanted.data, kept_pixels(self.recipe)
        table: Pixels = pixels(data, shorter, self.tell, self.recipe.fit)
        for folder in {trick.place() for trick in self.recipe.tricks} - {""}:  # one at most: see trick.conflict
            more = unlabelled(folder, data, self.tell)
            table = Joined(table, pixels(more, shorter, self.tell, self.recipe.fit))
            data = data._replace(images=data.images.joined(more.images))
        loop = assemble(self.recipe, data, table, self.wanted.seed, self.fabric, self.network, self.others, self.tell)
        self.taught = self.taught._replace(seconds=self.taught.seconds + loop.judge.spared)
        return loop

    def network(self, run: str, normal: Normal) -> nn.Module:
        """The trained network of another run: a folder, or a recipe that is found in the store or trained now."""
        folder = Path(run)
        if not (folder / CARD).exists():
            if share := itself(run):
                recipe, chosen = replaced(self.recipe, share), frozenset[str]()
            else:
                recipe, chosen = edited(run)
            seed = self.wanted.seed if share else self.teacher_seed
            wanted = replace(self.wanted, recipe=recipe, auto=run == "auto", chosen=chosen, budget=0, seed=seed)
            folder = self.folder.parent / f"{self.wanted.name}-teacher-{wanted.key[:8]}"
            began = time.monotonic()
            if not (folder / store.MANIFEST).exists():
                self.tell(Note(f"training the teacher {run} first, in {folder}"))
            carry_out(wanted, folder, self.tell, wait=True)
            self.waited += time.monotonic() - began
        taught = classifier.teacher(folder, self.wanted.data.images.classes, normal)
        self.taught = self.taught._replace(seconds=self.taught.seconds + RunRecord.load(folder).seconds)
        return taught


def replaced(recipe: Recipe, share: float = 1.0) -> Recipe:
    """The recipe without what asks for other networks, for a share of its epochs."""
    epochs = min(recipe.epochs, max(1, round(share * recipe.epochs)))
    return recipe.edit(without=[trick.name() for trick in recipe.tricks if trick.networks], epochs=epochs)
