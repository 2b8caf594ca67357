"""What is asked of a run: data that was read and checked, a recipe with the user's edits, a seed, a budget."""

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trickbag import plugins as shelved
from trickbag.data.audit import Audit, audit
from trickbag.data.findings import Finding, some
from trickbag.data.images import Images, divide
from trickbag.data.named import is_named
from trickbag.data.reading import Place, read
from trickbag.data.shards import is_pattern, title
from trickbag.data.unlabelled import read_unlabelled
from trickbag.engine.pixels import Data
from trickbag.ground.cache import Stamp, check_writable, expanded, stamp
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell, silent
from trickbag.ground.text import show
from trickbag.ground.typed import assignments, names, seconds, spellings
from trickbag.models import networks
from trickbag.models import weights as files
from trickbag.recipe import Recipe, idle
from trickbag.runs import seen
from trickbag.trick import Trick, Tricks, itself
from trickbag.tricks import parse

Bad = Literal["skip", "error"]
"""Leave out what is bad, and list it, or stop at it."""


@dataclass(frozen=True)
class Request:
    """Everything that decides a result."""

    data: Data
    audit: Audit
    recipe: Recipe
    """With the user's edits; what it leaves open is decided at the start of the run."""
    auto: bool
    """Whether model, size, length and tricks are for trickbag to choose."""
    chosen: frozenset[str]
    """Fields and tricks that the user named and auto leaves alone."""
    budget: float
    """Seconds for the whole run; 0 for no limit."""
    seed: int
    name: str
    """Of the data set, for folders."""
    began: float
    """When the work began, by the monotonic clock: a budget counts from here."""
    source: Mapping[str, str | int] = field(default_factory=dict)
    """Where the data come from and what is done with bad ones: data, on_bad and on_leak of ``request``."""
    before: seen.Seen = seen.NOTHING
    """What the runs have seen that the recipe builds on."""
    plugins: tuple[shelved.Plugin, ...] = ()
    """All that were active when it was asked for."""

    @property
    def own(self) -> dict[str, shelved.Plugin]:
        """Of these, by name, those that hold a part of the recipe, or metrics."""
        held = shelved.of(self.recipe.tricks, self.recipe.model)
        return held | {plugin.name: plugin for plugin in self.plugins if plugin.metrics}

    @property
    def key(self) -> str:
        """A hash of the request, the content of the data, how it is divided, and the weights that training starts from."""
        divided = hashlib.blake2b(" ".join(self.data.images.splits.tolist()).encode(), digest_size=8).hexdigest()
        asked = [identity(self.recipe), self.auto, sorted(self.chosen), float(self.budget), self.seed]
        asked += [self.data.fingerprint, divided]
        asked += [{plugin.name: plugin.digest} for plugin in self.plugins if plugin.metrics]
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the run lies when the user names no place."""
        return Path("runs") / f"{self.name}-{self.key[:8]}"


def identity(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, with the content of what it names: weights, networks of its teachers, unlabelled images,
    plugins."""
    fields = recipe.spelled() | {"weights": content(recipe.weights)}
    teachers = [name for trick in recipe.tricks for name in trick.others()]
    found = {name: content(name) for name in teachers if os.path.isfile(Path(name) / "model.json")}
    folders = {trick.place() for trick in recipe.tricks} - {""}
    found |= {folder: read_unlabelled(folder).fingerprint for folder in folders}
    own = {name: plugin.digest for name, plugin in shelved.of(recipe.tricks, recipe.model).items()}
    return fields | ({"teachers": found} if found else {}) | ({"plugins": own} if own else {})


def content(weights: str) -> str:
    """A hash of the weights in a file or a run's folder; other words for the start of training as they are."""
    path = Path(weights)
    path = path / "model.safetensors" if os.path.isdir(path) else path
    return _digest(path, stamp(path.stat())) if os.path.isfile(path) else weights


@lru_cache
def _digest(path: Path, _: Stamp) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def called(data: str | Path) -> str:
    """What folders of results call a data set.

    >>> called("photos/birds.tar.gz"), called("birds/{train,val}-{0..9}.tar"), called("/")
    ('birds', 'birds', 'data')
    """
    text = str(data)
    if not is_named(text) and is_pattern(text) and not Place.of(text).kind:
        return title(text)
    return Path(text).absolute().name.split(".")[0] or "data"


def check(
    data: str | Path, *, on_bad: Bad = "skip", depth: int = 0, corrections: str | Path = "", tell: Tell = silent
) -> Audit:
    """What is wrong with a data set: an ``Audit`` of its images, with findings and suggestions.

    ``depth``: how many folders make a class, where folders name the classes; 0 for all. ``corrections``: of labels, a file.
    Raises UsageError where there is no data set, TrickbagError at the list of unreadable files if ``on_bad`` is "error".
    """
    images = read(data, tell, depth, corrections)
    return audit(images, on_bad=on_bad, progress=lambda done, total: tell(Doing("checking images", done, total)))


def ingest(
    source: str | Path,
    recipe: Recipe,
    seed: int,
    on_bad: Bad,
    on_leak: Bad,
    tell: Tell,
    depth: int = 0,
    corrections: str | Path = "",
) -> tuple[Data, Audit]:
    """Read, check and divide a data set. Raises UsageError where its errors forbid training.

    Where a split is not given, images keep the one that they had in the runs that the recipe builds on.
    """
    check_writable()
    found = check(source, on_bad=on_bad, depth=depth, corrections=corrections, tell=tell)
    if on_leak == "skip":
        found = found.without_leaks()
    if found.errors:
        first = found.errors[0]
        more = f" ({len(found.errors)} errors in all; list them: trickbag check {source})" if len(found.errors) > 1 else ""
        raise UsageError(f"{first.message} {first.suggestion}{more}")
    before = list(dict.fromkeys(seen.runs(recipe)))
    divided, notes = division(found.images, recipe, seed, before)
    found = replace(found, findings=(*found.findings, *notes, *seen.about_seen(divided, before)))
    for finding in found.findings:
        if finding.severity == "warning" or finding in notes:
            tell(Note(f"{finding.message} {finding.suggestion}".strip()))
    for split in ("train", "val", *(["test"] if recipe.test_share else [])):
        if not (divided.splits == split).any():
            raise UsageError(f"{source}: no image is left for {split}. {_cure(split, before)}")
    _check_shared(divided, source)
    return Data(divided, found.images.fingerprint, found.sizes["channels"]), found


def _check_shared(images: Images, source: str | Path) -> None:
    """Raise UsageError where a split has no class that is trained on, as one without labels or with other names has none."""
    learned = images.split("train").counts() > 0
    for split in ("val", "test"):
        judged = images.split(split).counts() > 0
        if judged.any() and not (judged & learned).any():
            own, others = (some([show(images.classes[k]) for k in np.flatnonzero(these)], 3) for these in (judged, learned))
            raise UsageError(
                f"{source}: the {split} images are of other classes ({own}) than the training images ({others}). Name classes "
                f"alike, or take {split} out of the data set; trickbag predict RUN names the classes of images without labels."
            )


def division(images: Images, recipe: Recipe, seed: int, before: Sequence[Path]) -> tuple[Images, list[Finding]]:
    """The images in splits, and what is to be said of where these come from; ``before`` are runs whose splits hold."""
    met = seen.together(before).splits(images)
    plain = divide(images, seed, recipe.val_share, recipe.test_share)
    divided = divide(images, seed, recipe.val_share, recipe.test_share, met) if met.astype(bool).any() else plain
    given = [split for split in ("train", "val", "test") if (images.splits == split).any()]
    notes = [
        held_out(split, divided, share) for split, share in _shares(recipe).items() if given and split not in given and share
    ]
    if (plain.splits != divided.splits).any():
        trained = f"{seen.named(before)} trained on {int((met == 'train').sum()):,} of these {len(images):,} images"
        notes.append(f"{trained}: the splits are kept as they were then, so that none of those is judged.")
    return divided, [Finding(kind="division", severity="note", message=text) for text in notes]


def _shares(recipe: Recipe) -> dict[str, float]:
    return {"val": recipe.val_share, "test": recipe.test_share}


def held_out(split: str, divided: Images, share: float) -> str:
    """What is to be said of a split that the user did not give beside others, and that is taken out of the training images."""
    taken = int((divided.splits == split).sum())
    rest = taken + int((divided.splits == "train").sum())
    text = (
        f"No {split} split is given: {taken:,} of the {rest:,} training images are held out for it ({split}_share = {share:g})."
    )
    if split == "val":
        return text
    return f"{text} To train on all of them, and have no score but the validation's, write --set test_share=0."


def _cure(split: str, before: Sequence[Path]) -> str:
    if not before or split == "train":
        return f"Add images, or raise --set {split}_share."
    return (
        f"All others were trained on by {seen.named(before)}. Add images, or divide the data once, in folders train, "
        "val and test, and train all runs on that."
    )


def tell_where(folder: Path, source: str | Path, tell: Tell) -> None:
    """Say where results go, if that is within the data set's folder."""
    if folder.resolve().is_relative_to(Path(source).expanduser().resolve()):
        tell(Note(f"{folder} lies within the data set {str(source)!r}: trickbag ignores its own output there."))


def unlabelled(folder: str, data: Data, tell: Tell) -> Data:
    """The images of a folder without labels; copies of labelled images are left out. Raises UsageError where none is left."""

    def progress(done: int, total: int) -> None:
        tell(Doing("checking unlabelled images", done, total))

    found, known = read_unlabelled(folder, data.channels, progress), set(data.images.hashes)
    images = found.take([row for row, content in enumerate(found.hashes) if content not in known])
    if not len(images):
        raise UsageError(f"all images in {folder!r} are copies of labelled ones. Give a folder with others.")
    if len(images) < len(found):
        tell(Note(f"{len(found) - len(images)} of {len(found)} unlabelled images are copies of labelled ones and are dropped"))
    return Data(images, images.fingerprint, data.channels)


def request(
    data: str | Path,
    recipe: str | Path | Recipe = "auto",
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    budget: float | str = 0,
    with_: Tricks = (),
    without: Tricks = (),
    set_: Mapping[str, Any] | Iterable[str] = (),
    seed: int = 0,
    on_bad: Bad = "skip",
    on_leak: Bad = "skip",
    depth: int = 0,
    corrections: str | Path = "",
    began: float | None = None,
    tell: Tell = silent,
) -> Request:
    """What ``trickbag.train`` is asked for, with the data read and checked. Raises UsageError.

    The budget counts from ``began``, by the monotonic clock; None: from now.
    """
    began = time.monotonic() if began is None else began
    asked, chosen = started(*edited(recipe, model, weights, with_, without, set_), recipe == "auto", tell)
    check_named(asked.tricks)
    check_idle(asked, chosen)
    table, found = ingest(data, asked, seed, on_bad, on_leak, tell, depth, corrections)
    place = str(data) if is_named(str(data)) else str(Path(data).expanduser().absolute())
    source: dict[str, str | int] = {"data": place, "on_bad": on_bad, "on_leak": on_leak, "depth": depth}
    source |= {"corrections": str(Path(corrections).expanduser().absolute())} if str(corrections) else {}
    before = seen.together(seen.runs(asked))
    of_all = table, found, asked, recipe == "auto", chosen, seconds(budget), seed, called(data), began, source, before
    made = Request(*of_all, shelved.active())
    check_used(made.plugins, made.own)
    return made


def check_used(given: Iterable[shelved.Plugin], used: Mapping[str, shelved.Plugin]) -> None:
    """Raise UsageError where a plugin is given and nothing of it is asked for."""
    for plugin in given:
        if plugin.name not in used:
            network = f"Name its network {' or '.join(plugin.networks)}, or leave" if plugin.networks else "Leave"
            cure = f"Add --with {plugin.name}, or leave" if plugin.trick else network
            raise UsageError(f"--plugin {plugin.origin}: nothing of it is asked for. {cure} it out.")


def check_idle(recipe: Recipe, chosen: Collection[str]) -> None:
    """Raise UsageError where a trick would change nothing; what a recipe brings along may lack the steps that it acts in."""
    for trick in recipe.tricks:
        asked = recipe if trick.name() in chosen else recipe.edit(epochs=recipe.epochs or 1)
        if why := idle(trick, asked):
            raise UsageError(why)


def check_named(tricks: Iterable[Trick]) -> None:
    """Raise UsageError where tricks name runs, recipes or folders that are not there."""
    for trick in tricks:
        for name in trick.others():
            if not itself(name) and not os.path.isfile(Path(name) / "model.json"):
                try:
                    Recipe.load(name)
                except UsageError as error:
                    raise UsageError(f"{trick}: {name!r} is not the folder of a finished run, and {error}") from None
        if (folder := trick.place()) and not os.path.isdir(expanded(folder)):
            raise UsageError(f"{trick}: {folder!r} is not a folder. Give a folder with images.")


def started(recipe: Recipe, chosen: frozenset[str], auto: bool, tell: Tell) -> tuple[Recipe, frozenset[str]]:
    """The recipe with the network that its file of weights holds, where ``auto`` may choose one; what is found is told.

    Raises UsageError where there is no such network or file, or it is not known whose weights it holds.
    """
    networks.check(recipe.model)
    start = recipe.weights
    if start in ("none", "hub"):
        return recipe, chosen
    if auto and "model" not in chosen:
        recipe, chosen = recipe.edit(model=files.network(start)), chosen | {"model"}
        tell(Note(f"{start} holds the weights of {recipe.model}"))
    if prefix := files.prefix(start, recipe.model):
        tell(Note(f"{start}: names of tensors are read without {prefix!r} at their beginning"))
    return recipe, chosen


def edited(
    recipe: str | Path | Recipe,
    model: str | None = None,
    weights: str | Path | None = None,
    with_: Tricks = (),
    without: Tricks = (),
    set_: Mapping[str, Any] | Iterable[str] = (),
) -> tuple[Recipe, frozenset[str]]:
    """A recipe with the user's edits, and the names of the fields and tricks that they name."""
    base = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    fields = {k: str(v) for k, v in (("model", model), ("weights", weights)) if v is not None} | assignments(set_)
    with_, without = spellings(with_), names(without)
    put = [parse(text).name() for text in with_]
    return base.edit(with_, without, **fields), frozenset([*fields, *without, *put])
