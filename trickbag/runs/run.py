"""A run: (recipe, data, seed) -> result, the one place where engine, data and store meet; resumable at any moment."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trickbag import plugins
from trickbag.engine.assemble import Normal, assemble, kept_pixels
from trickbag.engine.loop import Diverged, Judged, Loop, Step
from trickbag.engine.pixels import Joined, Pixels, pixels
from trickbag.engine.precision import fabric_for
from trickbag.ground import store
from trickbag.ground.environment import number, whole
from trickbag.ground.errors import Interrupted, TrickbagError, UsageError
from trickbag.ground.events import Doing, EpochDone, Note, Tell, silent
from trickbag.ground.records import MALFORMED
from trickbag.ground.shown import Picture, Sheet, Shown
from trickbag.ground.signals import stopping
from trickbag.ground.text import duration
from trickbag.models.card import CARD
from trickbag.recipe import Recipe
from trickbag.runs import auto, classifier, provenance
from trickbag.runs.folder import BEGUN, DIVERGED, FINISHED, LOG, Begun, Divergence, LogLine, Mistake, RunRecord, mistakes
from trickbag.runs.outcome import Spent, write_result
from trickbag.runs.request import Request, edited, unlabelled
from trickbag.trick import judged_weights

CHECKPOINT_SECONDS = 20.0
"""Between two checkpoints, unless TRICKBAG_CHECKPOINT_SECONDS says otherwise."""
LOG_EVERY = 50


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

    def errors(self, most: int | None = None) -> list[Mistake]:
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


class Run:
    """The run under way.

    A study has the watchers of other recipes follow the same training (``follow``), begins where another run with the same
    beginning stood (``prefix``, a folder with its state), leaves its own state for others at some shares (``forks``), and has
    the teachers that are recipes trained with one seed for all runs (``teacher_seed``).
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
        self.wanted, self.recipe, self.folder, self.fabric, self.tell = wanted, recipe, folder, fabric, tell
        self.others, self.prefix, self.forks = follow, prefix, forks
        self.teacher_seed = wanted.seed if teacher_seed is None else teacher_seed
        self.leader = fabric.global_rank == 0
        self.checkpoints = store.Checkpoints(folder / ".work")
        self.log = folder / LOG
        self.spent = self.taught = Spent()
        self.waited = 0.0
        self.first = 0

    def go(self) -> Result:
        """Train from the newest checkpoint, or from the start, to the result."""
        try:
            loop = self.train()
        except Interrupted as stop:
            stop.args = (f"{stop} To score the best epoch so far instead: trickbag finish {quote(str(self.folder))}.",)
            raise
        return self.seal(loop)

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

    def train(self) -> Loop:
        """Train to the end. Raises TrickbagError where the loss is no longer a number."""
        self.fabric.launch()
        began = time.monotonic()
        loop = self.assemble()
        self.resume(loop)
        if self.leader:
            store.check_room(self.folder, self.state(loop))
        self.spend(seconds=time.monotonic() - began - self.waited)
        try:
            with stopping(together=self.fabric.world_size > 1) as stop:
                self.follow(loop, stop)
        except Diverged as diverged:
            raise TrickbagError(self.diverged(diverged, loop)) from None
        finally:
            self.checkpoints.end()
        return loop

    def assemble(self) -> Loop:
        """The loop before its first step."""
        data, shorter = self.wanted.data, kept_pixels(self.recipe)
        table: Pixels = pixels(data, shorter, self.tell, self.recipe.fit)
        for trick in self.recipe.tricks:
            if trick.folder:
                more = unlabelled(str(getattr(trick, trick.folder)), data, self.tell)
                table = Joined(table, pixels(more, shorter, self.tell, self.recipe.fit))
                data = data._replace(images=data.images.joined(more.images))
        loop = assemble(self.recipe, data, table, self.wanted.seed, self.fabric, self.network, self.others, self.tell)
        self.taught = self.taught._replace(seconds=self.taught.seconds + loop.judge.spared)
        return loop

    def spend(self, seconds: float = 0.0, step_seconds: float = 0.0, images: int = 0) -> None:
        """Add to what the run took."""
        old = self.spent
        self.spent = Spent(old.seconds + seconds, old.step_seconds + step_seconds, old.images + images)

    def resume(self, loop: Loop) -> None:
        """Go on from the newest valid checkpoint, and take the log back to it."""
        found = self.checkpoints.latest(lambda text: self.tell(Note(text))) if self.leader else None
        found = self.fabric.broadcast(found)
        if not found and self.prefix and not store.verify(self.prefix, *store.STATE, LOG):
            state = store.load_state(self.prefix)
            found = state["loop"]["step"], state | {"first": state["loop"]["step"]}
            store.write(self.log, (self.prefix / LOG).read_bytes())
        if found:
            step, state = found
            self.restore(loop, state)
            self.tell(Note(f"continuing at step {step:,} of {loop.judge.facts.steps:,}"))
        else:
            self.spent = self.taught
        if self.leader:
            reached = {"step": loop.step, "epoch": loop.epoch} if found else {"step": -1, "epoch": -1}
            kept = [line for line in store.lines(self.log, LogLine) if line[line["kind"]] <= reached[line["kind"]]]
            store.write(self.log, "".join(store.to_json(line) + "\n" for line in kept))

    def restore(self, loop: Loop, state: dict[str, Any]) -> None:
        """Put the loop and what was spent to where a state was made. Raises TrickbagError where the state is of another run."""
        try:
            loop.load(state["loop"])
            loop.watched = state["watched"]
            self.spent, self.first = Spent(*state["spent"]), state["first"]
        except MALFORMED as error:
            raise TrickbagError(
                f"the state in {self.folder} does not fit this training, as one of another version of trickbag "
                f"({type(error).__name__}: {error}). Continue with that version, or remove the folder to begin anew."
            ) from error

    def follow(self, loop: Loop, stop: Callable[[], int]) -> None:
        """Train to the end; log, tell, and save the state now and then."""
        saved = clock = time.monotonic()
        often = number("TRICKBAG_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS)
        for judged in loop.prepare() if not loop.best else ():
            self.spend(seconds=time.monotonic() - clock)
            clock = time.monotonic()
            self.judged(judged, loop)
        for event in loop.train():
            now = time.monotonic()
            took, clock = now - clock, now
            self.spend(seconds=took)
            if isinstance(event, Judged):
                self.judged(event, loop)
            else:
                self.spend(step_seconds=took, images=event.images)
                self.stepped(event, loop)
                self.fork(event, loop)
            stopped = self.agreed(stop())
            if self.leader and (stopped or now - saved > often):
                self.save(loop)
                saved = time.monotonic()
            if stopped:
                where = f"step {loop.step:,} of {loop.judge.facts.steps:,}"
                raise Interrupted(f"stopped at {where}. The same command continues there.", stopped)
        if self.leader:
            self.save(loop)

    def agreed(self, stopped: int) -> int:
        """The signal that any rank was sent, 0 for none: all stop after the same step."""
        if self.fabric.world_size == 1:
            return stopped
        return int(cast(Tensor, self.fabric.all_reduce(torch.tensor(stopped, device=self.fabric.device), reduce_op="max")))

    def save(self, loop: Loop) -> None:
        """A checkpoint of all that the next step depends on, written while training goes on."""
        loop.check_finite()
        self.checkpoints.begin(loop.step, self.state(loop))

    def state(self, loop: Loop) -> dict[str, Any]:
        """All that the next step depends on, what was spent, and the step at which this run's own training began."""
        return {"loop": loop.state(), "spent": tuple(self.spent), "watched": loop.watched, "first": self.first}

    def fork(self, event: Step, loop: Loop) -> None:
        """Leave the state for runs that go another way from here."""
        for share, path in self.forks.items():
            if event.t >= share and not path.exists():
                with store.writing(path) as folder:
                    store.save_state(folder, self.state(loop))
                    store.write(folder / LOG, "".join(store.to_json(line) + "\n" for line in store.lines(self.log, LogLine)))

    def stepped(self, event: Step, loop: Loop) -> None:
        """Tell of a step, and log every fiftieth."""
        self.tell(Doing(f"epoch {loop.epoch + 1} of {self.recipe.epochs}", event.step, loop.judge.facts.steps))
        if self.leader and event.step % LOG_EVERY == 0:
            rate = self.spent.images / self.spent.step_seconds
            line = {"kind": "step", "step": event.step, "t": event.t, "loss": float(event.loss), "lr": event.lr}
            store.append(self.log, line | {"images_per_second": round(rate, 1)})

    def judged(self, event: Judged, loop: Loop) -> None:
        """Log and tell an epoch's scores."""
        line: dict[str, Any] = {
            "kind": "epoch",
            "epoch": event.epoch,
            "step": event.step,
            "t": loop.share,
            "loss": loop.mean_loss,
        }
        own = judged_weights(self.recipe.tricks)
        line |= {"lr": loop.lr, "seconds": round(self.spent.seconds, 1)}
        line |= {"val": event.scores[own].headline(), "kept": own in event.kept}
        if event.scores[""] is not event.scores[own]:
            line["raw"] = event.scores[""].headline()
        if self.others:
            line["weights"] = {name: scores.headline() for name, scores in event.scores.items()}
        if self.leader:
            store.append(self.log, line)
        self.tell(EpochDone(event.epoch, self.recipe.epochs, line))

    def diverged(self, event: Diverged, loop: Loop) -> str:
        """Record that the run diverged, with the step, the learning rate and the files, and say so."""
        files = [loop.loader.pixels.images.paths[row] for row in event.rows]
        message = (
            f"the loss is no longer a number at step {event.step:,} (learning rate {event.lr:.3g}). The last good checkpoint "
            f"is in {self.folder / '.work'}; the batch: {self.folder / DIVERGED}. Lower the rate (--set lr=…), or add "
            "--with warmup or --with clip_gradient."
        )
        if self.leader:
            record = {"message": message, "step": event.step, "lr": event.lr, "files": files}
            store.write(self.folder / DIVERGED, store.to_json(record, indent=2))
        return message

    def network(self, run: str, normal: Normal) -> nn.Module:
        """The trained network of another run: a folder, or a recipe that is found in the store or trained now."""
        folder = Path(run)
        if not (folder / CARD).exists():
            if run == "self":
                recipe, chosen = replaced(self.recipe), frozenset[str]()
            else:
                recipe, chosen = edited(run)
            seed = self.wanted.seed if run == "self" else self.teacher_seed
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


def replaced(recipe: Recipe) -> Recipe:
    """The recipe without what asks for other networks."""
    return recipe.edit(without=[trick.name() for trick in recipe.tricks if trick.networks])
