"""Every classifier of a study also becomes a detector or a segmenter: what is asked for, its price, and how it is carried out.

They are trained one after another by the driver, once the study and its proof are finished. Runs of one seed whose bodies are
the same bit for bit, as with tricks that act beside or after training, share a training.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from trickbag.engine.assemble import build_model
from trickbag.engine.pixels import Data
from trickbag.ground import store
from trickbag.ground.errors import NoRoomError, UsageError
from trickbag.ground.events import CellDone, Doing, Event, Note, Tell
from trickbag.ground.text import counted, duration
from trickbag.runs.folder import BEGUN
from trickbag.scenes.table import Task
from trickbag.studies.arms import Arm
from trickbag.studies.execute import fault
from trickbag.studies.jobs import Cell
from trickbag.studies.options import TRANSFER, Options
from trickbag.studies.record import Study
from trickbag.transfers.body import Body
from trickbag.transfers.folder import FINISHED, TransferRecord
from trickbag.transfers.judge import MEASURES
from trickbag.transfers.request import TransferRequest, request
from trickbag.transfers.run import carry_out
from trickbag.transfers.seeds import timed

Classifier = Callable[[Cell], Path]
"""A run -> the folder with its network."""


@dataclass(frozen=True)
class TransferPlan:
    """What is done with the classifiers on one data set."""

    wanted: TransferRequest
    """With the study's first seed, and a network before any training."""
    seconds: float = 0.0
    """That a training takes, by a few timed steps."""

    @property
    def task(self) -> Task:
        """Which boxes or regions ask for."""
        return self.wanted.recipe.task

    @property
    def name(self) -> str:
        """For people."""
        return called(self.task, self.wanted.name)

    @property
    def split(self) -> Literal["val", "test"]:
        """That judges."""
        return "test" if len(self.wanted.scenes.split("test")) else "val"

    def on(self, run: Path, seed: int) -> TransferRequest:
        """A training on the body of a run."""
        return replace(self.wanted, recipe=self.wanted.recipe.edit(model=str(run)), seed=seed)

    def decided(self) -> str:
        """All that is fixed in advance, in words."""
        recipe, judges = self.wanted.recipe, len(self.wanted.scenes.split(self.split))
        return (
            f"{self.name}: {recipe.head}, {counted(recipe.epochs, 'epoch')}, {MEASURES[self.task][0]} on "
            f"{counted(judges, f'{self.split} image')}, request {self.wanted.key}; the declared effects as a family of its own"
        )

    def line(self, runs: int) -> str:
        """What it costs, where the study has so many runs."""
        recipe, scenes = self.wanted.recipe, self.wanted.scenes
        images = ", ".join(f"{len(scenes.split(split)):,} {split}" for split in ("train", "val", "test"))
        return (
            f"{self.name} ({recipe.head}, {counted(recipe.epochs, 'epoch')}; images: {images}): at most "
            f"{counted(runs, 'training')} of about {duration(self.seconds)} each, one after another after the study "
            f"({duration(runs * self.seconds)}, beyond any --budget); runs with the same network share one"
        )

    def record(self, held: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """As ``study.json`` has it; ``held`` is what it had, whose trainings stay."""
        known = (one["keys"] for one in held if one["request"] == self.wanted.key)
        return {
            "task": self.task,
            "name": self.wanted.name,
            "request": self.wanted.key,
            "split": self.split,
            "groups": self.wanted.scenes.split(self.split).groups.tolist(),
            "keys": next(known, {}),
        }


def called(task: Task, name: str) -> str:
    """A task with its data set, for people."""
    return f"{task} on {name}"


def asked(options: Options, model: str, tell: Tell) -> tuple[TransferPlan, ...]:
    """What the options ask for, with all data read and checked. Raises UsageError where they cannot be used."""
    made: list[TransferPlan] = []
    for text in options.transfer:
        match = TRANSFER.fullmatch(text)
        assert match
        task: Any = match[1]
        plan = TransferPlan(request(model, match[2], task, set_=options.transfer_set, seed=options.seed, tell=tell))
        judges = plan.wanted.scenes.split(plan.split)
        if not judges.per_image().any():
            raise UsageError(f"{match[2]}: nothing is marked on its {plan.split} images, so nothing can be judged there.")
        if any(plan.name == other.name for other in made):
            raise UsageError(f"two of --transfer are called {plan.name}. Remove one, or give its folder another name.")
        made.append(plan)
    return tuple(made)


def priced(plans: Iterable[TransferPlan], arms: Iterable[Arm], data: Data, tell: Tell) -> tuple[TransferPlan, ...]:
    """The plans, with the time of a training. Raises UsageError where the network of an arm cannot be a body."""
    made, seen = [], set()
    for plan in plans:
        for arm in arms:
            tricks = tuple(trick for trick in arm.recipe.tricks if "model" in trick.plugs())
            if (arm.recipe.model, tricks) not in seen:
                try:
                    Body(build_model(arm.recipe, tricks, len(data.images.classes), data.channels, 0, "none"), "frozen")
                except UsageError as error:
                    raise UsageError(f"--transfer: {arm.name} cannot be transferred: {error}") from None
            seen.add((arm.recipe.model, tricks))
        epoch, last = timed(plan.wanted, tell)
        made.append(replace(plan, seconds=plan.wanted.recipe.epochs * epoch + last))
    return tuple(made)


def classifiers(study: Study) -> list[Cell]:
    """The runs that ended well, seed by seed."""
    columns = zip(*(study.row(arm) for arm in study.arms), strict=True)
    runs = [cell for column in columns for cell in column if cell]
    return [cell for cell in runs if (result := study.result(cell)) and "diverged" not in result]


class Transferring:
    """The trainings of one plan, of which those that are finished are not made again."""

    def __init__(self, plan: TransferPlan, study: Study, classifier: Classifier, tell: Tell) -> None:
        self.plan, self.study, self.classifier, self.tell = plan, study, classifier, tell
        self.cells, self.failed = classifiers(study), list[dict[str, Any]]()

    def keys(self, known: Mapping[str, str]) -> dict[str, str]:
        """The training of each run; those that are known stay."""
        found = dict(known)
        for number, cell in enumerate(self.cells):
            self.tell(Doing("taking networks from their trainings", number, len(self.cells)))
            if cell.key not in found:
                self.attempt(cell, partial(self.name, cell, found))
        self.tell(Doing("taking networks from their trainings", len(self.cells), len(self.cells)))
        return found

    def name(self, cell: Cell, keys: dict[str, str]) -> None:
        """Enter the training of a run."""
        keys[cell.key] = self.wanted(cell).key

    def wanted(self, cell: Cell) -> TransferRequest:
        """The training on a run's body."""
        return self.plan.on(self.classifier(cell), cell.seed)

    def carry_out(self, keys: Mapping[str, str]) -> None:
        """Make what is not finished; one that fails stops no other."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            if cell.key in keys:
                first.setdefault(keys[cell.key], cell)
        left = [(key, cell) for key, cell in first.items() if not self.finished(key)]
        said = f"{self.plan.name}: {counted(len(first), 'training')} for {counted(len(self.cells), 'run')}"
        self.tell(Note(said + (f"; {len(first) - len(left)} are finished already" if len(left) < len(first) else "")))
        began = time.monotonic()
        for done, (key, cell) in enumerate(left, 1):
            folder = self.folder(key)
            cause = self.attempt(cell, partial(self.make, cell, folder))
            each = (time.monotonic() - began) / done
            value = None if cause else self.value(folder)
            arm, more = f"{cell.arm}, {self.plan.name}", each * (len(left) - done)
            self.tell(CellDone(arm, cell.seed, value, cause, done, len(left), more))

    def make(self, cell: Cell, folder: Path) -> None:
        """Train on a run's body, or go on with it."""
        carry_out(self.wanted(cell), folder, self.bars)

    def attempt(self, cell: Cell, act: Callable[[], object]) -> str:
        """Act, and keep and return why that failed; nothing where it did not."""
        kind, cause = fault(act)
        if kind == "room":
            raise NoRoomError(f"{cause} What was finished is kept; the same command continues.")
        if kind:
            self.failed.append({"arm": f"{cell.arm}, {self.plan.name}", "seed": cell.seed, "kind": kind, "cause": cause})
        return cause

    def folder(self, key: str) -> Path:
        """Of a training."""
        return self.study.place.transfer(self.plan.task, key)

    def finished(self, key: str) -> bool:
        """Whether a training is; one that is damaged by now is set aside."""
        folder = self.folder(key)
        damage = store.verify(folder, *FINISHED)
        if damage and (folder / store.MANIFEST).exists() and not (folder / BEGUN).exists():
            aside = store.set_aside(folder).name
            self.tell(Note(f"{folder} is damaged: {damage}. It is now {aside}, and the training is made again."))
        if not damage:
            store.remove(folder / ".work")  # the process may have been killed between the manifest and this
        return not damage

    def value(self, folder: Path) -> float | None:
        """What is reported first of a finished one."""
        record = TransferRecord.load(folder).plain()
        found: float | None = record[self.plan.split]["measures"][MEASURES[self.plan.task][0]]
        return found

    def bars(self, event: Event) -> None:
        """Pass on progress; each training's own notes would hide the study's."""
        if isinstance(event, Doing):
            self.tell(event)
