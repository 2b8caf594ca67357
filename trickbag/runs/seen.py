"""Which images a run has seen: what tells whether an image that is to be judged was trained on, by this run or one before.

A run keeps it in ``images.npz``: for each split a sorted array of the first 8 bytes of the images' content hashes, which names
and places of files do not change. ``train`` also has what the runs had that it began with, learned from or judges with.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trickbag.data.findings import Finding, some
from trickbag.data.images import Images
from trickbag.data.splits import Words
from trickbag.ground.errors import TrickbagError
from trickbag.ground.text import show
from trickbag.recipe import Recipe
from trickbag.trick import Trick, itself

IMAGES = "images.npz"
Hashes = NDArray[np.uint64]


class Seen(NamedTuple):
    """Hashes of images' contents, sorted, each once."""

    train: Hashes
    """Trained on."""
    val: Hashes
    """By these the epoch was chosen."""
    test: Hashes

    @classmethod
    def load(cls, run: Path) -> "Seen":
        """What the run in a folder has seen; nothing where it kept no account. Raises TrickbagError where that is damaged."""
        file = run / IMAGES
        if not file.is_file():
            return NOTHING
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(*(arrays[split].astype(np.uint64) for split in cls._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise TrickbagError(f"{file} is damaged: {error}. Restore it from a copy, or train the run again.") from None

    @classmethod
    def of(cls, trained: Images, images: Images) -> "Seen":
        """What a run saw that trained on the first and was judged on the validation and test images of the second."""
        judged = (images.split(split).hashes for split in ("val", "test"))
        return cls(*(np.unique(hashes(contents)) for contents in (trained.hashes, *judged)))

    def also(self, other: "Seen") -> "Seen":
        """What either has seen."""
        return Seen(*(np.union1d(mine, theirs) for mine, theirs in zip(self, other, strict=True)))

    def splits(self, images: Images) -> Words:
        """In which split each image [N] was seen, "" for one that was not; train before val, val before test."""
        contents, found = hashes(images.hashes), np.full(len(images), "", dtype="<U5")
        for split in reversed(self._fields):
            found[np.isin(contents, getattr(self, split))] = split
        return found

    def packed(self) -> bytes:
        """The content of ``images.npz``."""
        file = io.BytesIO()
        np.savez(file, **self._asdict())
        return file.getvalue()


def hashes(contents: Iterable[str]) -> Hashes:
    """The first 8 bytes of hashes in hex digits.

    >>> hashes(["000000000000000a" + 16 * "f"])
    array([10], dtype=uint64)
    """
    return np.array([int(content[:16], 16) for content in contents], np.uint64)


NOTHING = Seen(*(hashes([]) for _ in Seen._fields))


def runs(recipe: Recipe, through: tuple[str, ...] = ()) -> Iterator[Path]:
    """The finished runs that a recipe builds on: its weights and the networks that its tricks ask for, also by recipes.

    ``through`` are the recipes that led here: one that names itself is looked into once.
    """
    if folder := holder(recipe.weights):
        yield folder
    yield from asked(recipe.tricks, through)


def asked(tricks: Iterable[Trick], through: tuple[str, ...] = ()) -> Iterator[Path]:
    """The finished runs whose networks tricks ask for, and those that the recipes build on which they name."""
    for name in (name for trick in tricks for name in trick.others() if name not in through and not itself(name)):
        if folder := holder(name):
            yield folder
        else:
            yield from runs(Recipe.load(name), (*through, name))


def taught_here(recipe: Recipe) -> bool:
    """Whether networks that its tricks ask for are trained first, on all training images that the recipe is given."""
    return any(not holder(name) for trick in recipe.tricks for name in trick.others())


def holder(name: str) -> Path | None:
    """The run's folder that a name leads to: that folder, or the file with its weights; None for other words."""
    place = Path(name)
    folder = place.parent if place.name == "model.safetensors" else place
    return folder if os.path.isfile(folder / "model.json") else None


def together(folders: Iterable[Path]) -> Seen:
    """What any of these runs has seen."""
    found = NOTHING
    for folder in dict.fromkeys(folders):
        found = found.also(Seen.load(folder))
    return found


def named(folders: Iterable[Path]) -> str:
    """Runs for a sentence."""
    return some([show(str(folder)) for folder in folders])


def about_seen(images: Images, folders: Iterable[Path], judged: Iterable[str] = ("val", "test")) -> Iterator[Finding]:
    """The images of splits in which nothing is learned that the runs of these folders were trained on, a finding a split."""
    folders = list(dict.fromkeys(folders))
    known = together(folders).splits(images) == "train"
    for split in judged:
        own = images.splits == split
        if met := np.flatnonzero(own & known).tolist():
            name = {"val": "validation"}.get(split, split)
            trained = f"{named(folders)} trained on {len(met):,} of the {own.sum():,} {name} images"
            yield Finding(
                kind="seen",
                severity="warning",
                message=f"{trained}: the {name} score is too good.",
                suggestion="Train that run on this division, or judge on images that it has not seen (trickbag evaluate).",
                paths=[show(images.paths[row]) for row in met],
            )
