"""A detector or a segmenter: (recipe, data, seed) -> result; resumable at any moment, as a classifier is."""

import json
import math
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, cast

from safetensors.torch import load_file, save

from trickbag import plugins
from trickbag.engine.loop import Loop
from trickbag.engine.precision import fabric_for
from trickbag.ground import records, store
from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.events import Tell, silent
from trickbag.ground.records import Open, Record
from trickbag.ground.shown import Sheet, Shown
from trickbag.ground.text import duration
from trickbag.models.card import TRANSFER, WEIGHTS, Card
from trickbag.runs import seen
from trickbag.runs.folder import BEGUN, DIVERGED, Divergence
from trickbag.runs.outcome import environment
from trickbag.runs.provenance import remember
from trickbag.runs.under_way import UnderWay
from trickbag.transfers import heads
from trickbag.transfers.assemble import assemble
from trickbag.transfers.detectors import Detector
from trickbag.transfers.folder import (
    ASKED,
    FINISHED,
    RESULT,
    SEEN,
    Measured,
    TransferBegun,
    TransferCard,
    TransferLine,
    TransferRecord,
    packed,
)
from trickbag.transfers.judge import Marks, SceneJudge
from trickbag.transfers.moving import canvas
from trickbag.transfers.recipe import TransferRecipe
from trickbag.transfers.request import TransferRequest
from trickbag.transfers.segmenters import Segmenter
from trickbag.trick import judged_weights


@dataclass(frozen=True, repr=False)
class Transferred(Shown):
    """A finished detector or segmenter: its folder and the content of ``result.json``."""

    folder: Path
    record: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> "Transferred":
        """The result in a folder. Raises TrickbagError where it is damaged or unfinished."""
        folder = Path(folder)
        if reason := store.verify(folder, *FINISHED):
            raise TrickbagError(f"{folder} is not a finished detector or segmenter: {reason}.")
        return cls(folder, TransferRecord.load(folder).plain())

    def _sheet(self) -> Sheet:
        split = "test" if self.record["test"] else "val"
        judged = self.record[split]
        facts = {f"{split} {name}": f"{100 * value:.1f} %" for name, value in judged["measures"].items() if value is not None}
        return Sheet(f"{self.record['task']} {self.folder}", facts | {"time": duration(self.record["seconds"])})

    def network(self) -> Detector | Segmenter:
        """The trained network, in evaluation mode."""
        card = TransferCard.load(self.folder)
        height, width = card.canvas
        with plugins.using(kept=self.folder):
            made = heads.build(card.task, card.head, card.body, len(card.classes), "none", (height, width), card.norms)
        made.load_state_dict(load_file(self.folder / WEIGHTS))
        return made.eval()


def carry_out(wanted: TransferRequest, folder: Path, tell: Tell = silent) -> Transferred:
    """Find or make what was asked for, in its folder. Raises UsageError where that holds something else."""
    with store.lock(folder):
        if finished(wanted, folder):
            store.remove(folder / ".work")  # the process may have been killed between the manifest and this
            return Transferred.load(folder)
        if not (folder / BEGUN).exists():
            begun = TransferBegun(request=wanted.key, recipe=wanted.recipe.spelled())
            store.write(folder / BEGUN, store.to_json(begun.signed()))
        # Each time: the process may have been killed after the file above.
        store.write(folder / ASKED, store.to_json(wanted.asked(), indent=2))
        store.write(folder / "recipe.toml", wanted.recipe.toml())
        plugins.keep(wanted.own, folder)
        remember(wanted.scenes.fingerprint, wanted.scenes.root)
        return TransferRun(wanted, folder, fabric_for(wanted.recipe.precision), tell).go()


def finished(wanted: TransferRequest, folder: Path) -> bool:
    """Whether the folder holds what is asked for, finished. Raises where it holds something else, or training diverged."""
    damage, begun = store.verify(folder, *FINISHED), (folder / BEGUN).exists()
    if begun or not damage:
        held = TransferRecord.load(folder).request if not damage else TransferBegun.load(folder / BEGUN).request
        if held != wanted.key:
            said = differences(wanted, folder) or "it was made by another version of trickbag"
            raise UsageError(f"{folder} holds another transfer: {said}. Choose another --out.")
    elif (folder / store.MANIFEST).exists():
        raise TrickbagError(f"{folder} is damaged: {damage}. Restore it from a copy, or remove it to train again.")
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds nothing that can be continued. Choose another --out.")
    if damage and (folder / DIVERGED).exists():
        raise TrickbagError(Divergence.load(folder).message)
    return not damage


def differences(wanted: TransferRequest, folder: Path) -> str:
    """How what is asked for differs from what a seed's folder was begun with; nothing where that is not known."""
    if not (folder / ASKED).is_file():
        return ""
    held = records.read(folder / ASKED, Open, "Choose another --out.").plain()
    now = json.loads(json.dumps(wanted.asked()))
    return "; ".join(
        f"{name} was {held.get(name)} and is now {now.get(name)}" for name in held | now if held.get(name) != now.get(name)
    )


class TransferRun(UnderWay[TransferRecipe, Transferred]):
    """A transfer under way."""

    line: ClassVar[type[Record]] = TransferLine

    def __init__(self, wanted: TransferRequest, folder: Path, fabric: Any, tell: Tell) -> None:
        super().__init__(wanted.recipe, folder, fabric, tell)
        self.wanted = wanted

    def assemble(self) -> Loop:
        """The loop before its first step."""
        return assemble(self.recipe, self.wanted.scenes, self.wanted.seed, self.fabric, self.tell)

    def seal(self, loop: Loop) -> Transferred:
        """Score the kept epoch once and write the files."""
        began = time.monotonic()
        best = loop.best[judged_weights(self.recipe.tricks)]
        loop.model.load_state_dict(best["model"])
        judge, scenes = cast(SceneJudge, loop.judge), self.wanted.scenes
        found = {split: judge.judge(loop.model, split) for split in ("val", "test") if len(scenes.split(split))}
        record = TransferRecord(
            task=self.recipe.task,
            val=measured(found["val"], scenes.classes),
            test=measured(found["test"], scenes.classes) if "test" in found else None,
            seconds=round(self.spent.seconds + time.monotonic() - began, 2),
            epochs=self.recipe.epochs,
            kept_epoch=best["epoch"],
            seed=self.wanted.seed,
            recipe_key=self.recipe.key,
            data_fingerprint=scenes.fingerprint,
            request=self.wanted.key,
            images={split: len(scenes.split(split)) for split in ("train", "val", "test")},
            environment=environment(),
        )
        tensors = {name: value.cpu().contiguous() for name, value in loop.model.state_dict().items()}
        files: dict[str, bytes | str] = {
            WEIGHTS: save(tensors),
            TRANSFER: store.to_json(self.card(cast(Detector | Segmenter, loop.model)).plain(), indent=2),
            SEEN: packed(found, scenes),
            seen.IMAGES: self.account().packed(),
            RESULT: store.to_json(record.plain(), indent=2),
        }
        for name, content in files.items():
            store.write(self.folder / name, content)
        store.seal(self.folder)
        store.remove(self.folder / ".work")
        return Transferred.load(self.folder)

    def account(self) -> seen.Seen:
        """Which images it was trained on and judged by, and those of the run that it began with."""
        scenes = self.wanted.scenes
        before = [Path(self.recipe.model)] if self.recipe.from_run else []
        return seen.Seen.of(scenes.split("train").images, scenes.images).also(
            seen.NOTHING._replace(train=seen.together(before).train)
        )

    def card(self, model: Detector | Segmenter) -> TransferCard:
        """What the network is built from."""
        recipe, body = self.recipe, model.body
        return TransferCard(
            task=recipe.task,
            head=recipe.head,
            body=Card.load(Path(recipe.model)) if recipe.from_run else recipe.model,
            norms="frozen" if body.frozen else "trained",
            classes=list(self.wanted.scenes.classes),
            size=recipe.size,
            canvas=list(canvas(self.wanted.scenes.sizes, recipe.size)),
            mean=list(body.mean),
            std=list(body.std),
            precision=recipe.precision,
            trickbag=version("trickbag"),
        )


def measured(found: Marks, classes: tuple[str, ...]) -> Measured:
    """What ``result.json`` says of a split."""

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    return Measured(
        n=len(found.seen),
        measures={name: known(value) for name, value in found.measures.items()},
        classes={name: {of: known(values[k]) for of, values in found.classes.items()} for k, name in enumerate(classes)},
    )
