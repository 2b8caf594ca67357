"""What is compared: right and wrong answers of runs, image by image, or one score for each run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trickbag.statistics.variance import Ints

Logits = NDArray[np.float32]


class Run(NamedTuple):
    """One trained network on N images; a run that failed has none."""

    method: str
    seed: str
    images: Ints
    """[N] places in ``Results.names``, rising."""
    correct: NDArray[np.bool_]
    """[N]"""
    logits: Logits | None
    """[N, K]; None where nothing is known but what is right."""

    @property
    def failed(self) -> bool:
        """Whether it has no result."""
        return not len(self.images)


@dataclass(frozen=True)
class Results:
    """Runs and the images that they were judged on, I in all."""

    runs: tuple[Run, ...]
    names: Sequence[str]
    """[I] of the images: paths where there are files."""
    groups: Ints
    """[I] the number of each image's group; the image itself where it has none."""
    labels: Ints | None
    """[I] places in ``classes``; None where they are not known."""
    classes: tuple[str, ...]
    source: str
    """What was read, in words."""
    folder: Path | None
    """Where the images may lie."""
    notes: tuple[str, ...] = ()
    """What a reader must know of them."""


class Score(NamedTuple):
    """One number for one run, more being better; None where the run failed."""

    method: str
    seed: str
    value: float | None


@dataclass(frozen=True)
class Scores:
    """Scores of runs, without images."""

    runs: tuple[Score, ...]
    source: str
    notes: tuple[str, ...] = ()


def in_order(seeds: Sequence[str]) -> list[str]:
    """Seeds without repetition, numbers in their order and before other names.

    >>> in_order(["10", "9", "b", "9", "a"])
    ['9', '10', 'a', 'b']
    """
    return sorted(set(seeds), key=lambda seed: (0, int(seed), "") if re.fullmatch(r"-?\d{1,18}", seed) else (1, 0, seed))
