"""What is asked of a run: data that was read and checked, a recipe with the user's edits, a seed, a budget."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from trickbag.data.audit import Audit, audit
from trickbag.data.images import divide
from trickbag.data.named import is_named
from trickbag.data.reading import Place, read
from trickbag.data.shards import is_pattern, title
from trickbag.data.unlabelled import read_unlabelled
from trickbag.engine.pixels import Data
from trickbag.ground.cache import Stamp, check_writable, expanded, stamp
from trickbag.ground.errors import UsageError
from trickbag.ground.events import Doing, Note, Tell, silent
from trickbag.ground.spec import parse
from trickbag.ground.streams import MOST_SEED
from trickbag.ground.text import clipped
from trickbag.models import weights as files
from trickbag.recipe import Recipe
from trickbag.trick import Trick

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
    """Where the data come from and what is done with bad ones: data, on_bad and on_leak of :func:`request`."""

    @property
    def key(self) -> str:
        """A hash of the request, the content of the data and of the weights it starts from."""
        asked = [identity(self.recipe), self.auto, sorted(self.chosen), self.budget, self.seed, self.data.fingerprint]
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the run lies when the user names no place."""
        return Path("runs") / f"{self.name}-{self.key[:8]}"


def identity(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, with the content of what it names: weights, networks of its teachers, unlabelled images."""
    fields = recipe.spelled() | {"weights": content(recipe.weights)}
    teachers = [name for trick in recipe.tricks for name in trick.others()]
    found = {name: content(name) for name in teachers if (Path(name) / "model.json").is_file()}
    folders = [str(getattr(trick, trick.folder)) for trick in recipe.tricks if trick.folder]
    found |= {folder: read_unlabelled(folder).fingerprint for folder in folders}
    return fields | ({"teachers": found} if found else {})


def content(weights: str) -> str:
    """A hash of the weights in a file or a run's folder; other words for the start of training as they are."""
    path = Path(weights)
    path = path / "model.safetensors" if path.is_dir() else path
    return _digest(path, stamp(path.stat())) if path.is_file() else weights


@lru_cache
def _digest(path: Path, _: Stamp) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def called(data: str | Path) -> str:
    """What folders of results call a data set.

    >>> called("photos/birds.tar.gz"), called("birds/{train,val}-{0..9}.tar")
    ('birds', 'birds')
    """
    text = str(data)
    if not is_named(text) and is_pattern(text) and not Place.of(text).kind:
        return title(text)
    return Path(text).name.split(".")[0] or "data"


def check(data: str | Path, *, on_bad: Bad = "skip", depth: int = 0, tell: Tell = silent) -> Audit:
    """What is wrong with a data set: an :class:`Audit` of its images, with findings and suggestions.

    ``depth``: how many folders make a class, where folders name the classes; 0 for all.
    Raises UsageError where there is no data set, TrickbagError at the list of unreadable files if ``on_bad`` is "error".
    """
    images = read(data, tell, depth)
    return audit(images, on_bad=on_bad, progress=lambda done, total: tell(Doing("checking images", done, total)))


def ingest(
    source: str | Path, recipe: Recipe, seed: int, on_bad: Bad, on_leak: Bad, tell: Tell, depth: int = 0
) -> tuple[Data, Audit]:
    """Read, check and divide a data set. Raises UsageError where its errors forbid training."""
    check_writable()
    found = check(source, on_bad=on_bad, depth=depth, tell=tell)
    if on_leak == "skip":
        found = found.without_leaks()
    if found.errors:
        first = found.errors[0]
        more = f" ({len(found.errors)} errors in all; list them: trickbag check {source})" if len(found.errors) > 1 else ""
        raise UsageError(f"{first.message} {first.suggestion}{more}")
    for finding in found.findings:
        if finding.severity == "warning":
            tell(Note(f"{finding.message} {finding.suggestion}".strip()))
    divided = divide(found.images, seed, recipe.val_share, recipe.test_share)
    for split in ("train", "val", "test"):
        if not (divided.splits == split).any():
            raise UsageError(f"{source}: no image is left for {split}. Add images, or raise --set {split}_share.")
    return Data(divided, found.images.fingerprint, found.sizes["channels"]), found


def tell_where(folder: Path, source: str | Path, tell: Tell) -> None:
    """Say where results go, if that is within the data set's folder."""
    if folder.resolve().is_relative_to(Path(source).expanduser().resolve()):
        tell(Note(f"{folder} lies within the data set {source}: what trickbag writes there is never taken for images."))


def unlabelled(folder: str, data: Data, tell: Tell) -> Data:
    """The images of a folder without labels; copies of labelled images are left out. Raises UsageError where none is left."""

    def progress(done: int, total: int) -> None:
        tell(Doing("checking unlabelled images", done, total))

    found, known = read_unlabelled(folder, data.channels, progress), set(data.images.hashes)
    images = found.take([row for row, content in enumerate(found.hashes) if content not in known])
    if not len(images):
        raise UsageError(f"all images in {folder!r} are copies of labelled ones. Give a folder with others.")
    if len(images) < len(found):
        tell(Note(f"{len(found) - len(images)} of {len(found)} unlabelled images are copies of labelled ones and left out"))
    return Data(images, images.fingerprint, data.channels)


def request(
    data: str | Path,
    recipe: str | Path | Recipe = "auto",
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    budget: float = 0,
    with_: Iterable[str] = (),
    without: Iterable[str] = (),
    set_: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_bad: Bad = "skip",
    on_leak: Bad = "skip",
    depth: int = 0,
    began: float | None = None,
    tell: Tell = silent,
) -> Request:
    """What :func:`trickbag.train` is asked for, with the data read and checked. Raises UsageError.

    The budget counts from ``began``, by the monotonic clock; None: from now.
    """
    began = time.monotonic() if began is None else began
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"seed {clipped(repr(seed))}: give a whole number from 0 to {MOST_SEED:,}.")
    asked, chosen = started(*edited(recipe, model, weights, with_, without, set_), recipe == "auto", tell)
    check_named(asked.tricks)
    table, found = ingest(data, asked, seed, on_bad, on_leak, tell, depth)
    place = str(data) if is_named(str(data)) else str(Path(data).expanduser().absolute())
    source: dict[str, str | int] = {"data": place, "on_bad": on_bad, "on_leak": on_leak, "depth": depth}
    return Request(table, found, asked, recipe == "auto", chosen, budget, seed, called(data), began, source)


def check_named(tricks: Iterable[Trick]) -> None:
    """Raise UsageError where tricks name runs, recipes or folders that are not there."""
    for trick in tricks:
        for name in trick.others():
            if name != "self" and not (Path(name) / "model.json").is_file():
                try:
                    Recipe.load(name)
                except UsageError as error:
                    raise UsageError(f"{trick}: {name!r} is no folder of a finished run, and {error}") from None
        if trick.folder and not expanded(folder := str(getattr(trick, trick.folder))).is_dir():
            raise UsageError(f"{trick}: {folder!r} is no folder. Give a folder with images.")


def started(recipe: Recipe, chosen: frozenset[str], auto: bool, tell: Tell) -> tuple[Recipe, frozenset[str]]:
    """The recipe with the network that its file of weights holds, where ``auto`` may choose one; what is found is told.

    Raises UsageError where there is no such file, or it is not known whose weights it holds.
    """
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
    with_: Iterable[str] = (),
    without: Iterable[str] = (),
    set_: Mapping[str, Any] | None = None,
) -> tuple[Recipe, frozenset[str]]:
    """A recipe with the user's edits, and the names of the fields and tricks that they name."""
    base = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    fields = {k: str(v) for k, v in (("model", model), ("weights", weights)) if v is not None} | dict(set_ or {})
    with_, without = list(with_), list(without)
    return base.edit(with_, without, **fields), frozenset([*fields, *without, *(parse(text).name for text in with_)])
