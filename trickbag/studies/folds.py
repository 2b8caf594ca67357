"""Which images judge a run of a study, and which it may look at: those that judge have chosen nothing in it.

A run of a study sees a table of three splits, as any training does, but they are the study's: "test" are the images that judge,
"val" are set apart from its training images for what must be chosen or fitted on others than it learns from (the strength of a
fitted classifier, a temperature), and images that are none of its business are in "apart".
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from trickbag.data.folds import partitioned
from trickbag.data.images import Images
from trickbag.data.splits import Ints, fill
from trickbag.ground.streams import key

FOLDS, PROVING = 5, 2
"""Folds of the images that are not the test's, and how many of them wait for the proof of the nominated recipe."""
JUDGES = "test"
"""The split of the images that judge, in the table that a run sees."""
Role = Literal["study", "proof"]


@dataclass(frozen=True)
class Judging:
    """Who judges the runs of a study, the same for all arms.

    Rotating, the n-th seed judges the n-th fold of a partition that is stratified by class and keeps groups, with them exact
    copies, together; after its last fold a new partition of the same images begins. Else every seed judges the same split.
    """

    on: Literal["val", "test"]
    """The split that judges; rotating, folds of all that is not test."""
    folds: int
    """Of a partition; 0 where every seed judges the same images."""
    proving: int
    """Folds of the first partition that the proof alone reads."""
    seed: int
    val_share: float

    @property
    def turns(self) -> int:
        """How many seeds a partition lasts for."""
        return self.folds - self.proving

    def name(self, turn: int, role: Role = "study") -> str:
        """Of what a run of a turn is judged on; part of the run's key."""
        if role == "proof":
            return f"proof {turn % self.proving}" if self.proving else "proof"
        return f"fold {turn} of {self.folds}, {self.proving} kept" if self.folds else self.on

    def pool(self, images: Images) -> Ints:
        """The rows that seeds judge, in turn or all at a time."""
        if not self.folds:
            return np.flatnonzero(images.splits == self.on)
        return np.sort(np.concatenate(_first(images, self.folds, self.seed)[: self.turns]))

    def judges(self, images: Images, turn: int, role: Role = "study") -> Ints:
        """The rows that judge the run of a turn, counted from 0."""
        if role == "proof":
            kept = _first(images, self.folds, self.seed)[self.turns :] if self.proving else [np.empty(0, np.int64)]
            return np.sort(np.concatenate([kept[turn % len(kept)], np.flatnonzero(images.splits == "test")]))
        if not self.folds:
            return self.pool(images)
        return _turns(images, self, turn // self.turns)[turn % self.turns]

    def proof_images(self, images: Images) -> int:
        """How many images the proof reads, over all its seeds."""
        return len(np.unique(np.concatenate([self.judges(images, turn, "proof") for turn in range(max(self.proving, 1))])))

    def table(self, images: Images, turn: int, role: Role = "study") -> Images:
        """What the run of a turn sees. Where the test judges, that is what any training sees."""
        if self.on == "test":
            return images
        judges = self.judges(images, turn, role)
        learned = images.splits != "test" if self.folds else images.splits == "train"
        learned[judges] = False
        alone = ~np.isin(images.labels[judges], images.labels[learned])  # of a class that else nobody learns
        learned[judges[alone]], judges = True, judges[~alone]
        splits = np.where(learned, "train", "apart").astype(images.splits.dtype)
        splits[judges] = "test"
        own = images.take(learned)
        choosing = key(self.seed, "choosing", turn if self.folds else 0)
        splits[learned] = fill(own.paths, own.labels, splits[learned], own.groups, choosing, {"val": self.val_share})
        return replace(images, splits=splits)


def who(judging: Judging) -> str:
    """Who judges, in words."""
    if judging.folds:
        kept = f", {judging.proving} of them kept for the proof" if judging.proving else ""
        return f"a fold in turn of {judging.folds} of the training and validation images{kept}"
    return {"val": "the validation images", "test": "the test images"}[judging.on]


@lru_cache(maxsize=2)
def _first(images: Images, folds: int, seed: int) -> list[Ints]:
    return partitioned(images, np.flatnonzero(images.splits != "test"), folds, seed)


@lru_cache(maxsize=4)
def _turns(images: Images, judging: Judging, partition: int) -> list[Ints]:
    if not partition:
        return _first(images, judging.folds, judging.seed)[: judging.turns]
    return partitioned(images, judging.pool(images), judging.turns, key(judging.seed, "partition", partition))
