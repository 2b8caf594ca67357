"""What is asked for: a recipe, data with boxes or regions, a seed; and how it differs from what a folder holds."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trickbag import plugins
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Note, Tell, silent
from trickbag.ground.typed import assignments
from trickbag.models.card import Card, transferred
from trickbag.recipe import recipe_names
from trickbag.runs.request import Bad, called, content
from trickbag.scenes.audit import check
from trickbag.scenes.splits import divide
from trickbag.scenes.table import Scenes, Task
from trickbag.transfers.body import identity
from trickbag.transfers.recipe import TransferRecipe
from trickbag.trick import Tricks
from trickbag.tricks import parse


@dataclass(frozen=True)
class TransferRequest:
    """Everything that decides a result."""

    scenes: Scenes
    """Every image in a split."""
    recipe: TransferRecipe
    seed: int
    name: str
    """Of the data set, for folders."""

    @property
    def own(self) -> dict[str, plugins.Plugin]:
        """The plugins that hold a part of the recipe, or of the network of the run that it begins with, by name."""
        held = plugins.of(self.recipe.tricks, self.recipe.model)
        if self.recipe.from_run:
            with plugins.using(kept=self.recipe.model):
                card = Card.load(Path(self.recipe.model))
                held |= plugins.of(map(parse, card.tricks), card.model)
        return held

    def asked(self) -> dict[str, Any]:
        """All of it in plain values. A run counts by its body, wherever it lies."""
        found: dict[str, Any] = self.recipe.spelled()
        found |= {f"plugin {name}": plugin.digest for name, plugin in self.own.items()}
        if self.recipe.from_run:
            found["model"] = identity(self.recipe.model)
        found["content of the weights"] = content(self.recipe.weights)
        splits = hashlib.blake2b(" ".join(self.scenes.splits.tolist()).encode(), digest_size=8).hexdigest()
        return found | {"seed": self.seed, "data": self.scenes.fingerprint, "splits": splits}

    @property
    def key(self) -> str:
        """A hash of it."""
        return hashlib.blake2b(json.dumps(self.asked(), sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the result lies when the user names no place."""
        return Path("runs") / f"{self.name}-{self.recipe.task}-{self.key[:8]}"


def request(
    model: str | Path,
    data: str | Path,
    to: Task,
    recipe: str | Path | TransferRecipe | None = None,
    *,
    weights: str | Path | None = None,
    with_: Tricks = (),
    without: Tricks = (),
    set_: Mapping[str, Any] | Iterable[str] = (),
    seed: int = 0,
    ignore: str | Iterable[str] = (),
    on_leak: Bad = "skip",
    tell: Tell = silent,
) -> TransferRequest:
    """What ``trickbag.transfers`` is asked for, with the data read and checked. Raises UsageError."""
    if to not in recipe_names(TransferRecipe.built_in):
        raise UsageError(f"--to {to}: choose detection or segmentation.")
    base = recipe if isinstance(recipe, TransferRecipe) else TransferRecipe.load(recipe or to)
    if base.task != to:
        raise UsageError(f"the recipe is one for {base.task}, not for {to}. Choose another --recipe, or --to {base.task}.")
    fields = assignments(set_)
    for name, said in {"model": "the network is named before the data", "task": "--to says it"}.items():
        if name in fields:
            raise UsageError(f"--set {name}={fields[name]}: {said}. Leave it out.")
    asked = base.edit(with_, without, **fields | {"model": str(model)} | ({} if weights is None else {"weights": str(weights)}))
    if asked.from_run and (weights is not None or asked.weights != "none"):
        raise UsageError(f"{model} is a run with weights of its own: leave --weights out.")
    if transferred(Path(asked.model)):
        raise UsageError(f"{model} is a detector or a segmenter already. Give the run or the timm model that it began with.")
    scenes = ingest(data, asked, seed, ignore, on_leak, tell)
    return TransferRequest(scenes, asked, seed, called(data))


def ingest(
    data: str | Path,
    recipe: TransferRecipe,
    seed: int,
    ignore: str | Iterable[str],
    on_leak: Bad,
    tell: Tell,
) -> Scenes:
    """Read, check and divide a data set. Raises UsageError where its errors forbid training."""
    found = check(data, recipe.task, ignore, tell=tell)
    if on_leak == "skip":
        found = found.without_leaks()
    if found.errors:
        raise UsageError(f"{found.errors[0].message} {found.errors[0].suggestion}")
    for finding in found.findings:
        if finding.severity == "warning":
            tell(Note(f"{finding.message} {finding.suggestion}".strip()))
    scenes = divide(found.scenes, seed, recipe.val_share, recipe.test_share)
    for split in ("train", "val", *(["test"] if recipe.test_share else [])):
        if not (scenes.splits == split).any():
            raise UsageError(f"{data}: no image is left for {split}. Add images, or raise --set {split}_share.")
    return scenes
