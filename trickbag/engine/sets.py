"""Sets of classes that tricks make of images, and how often they hold the right one."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from scipy.stats import t as student
from torch import Tensor

from trickbag.engine.scores import interval
from trickbag.ground.text import counted
from trickbag.trick import Trick, having


def sets_of(tricks: Sequence[Trick], logits: Tensor) -> Tensor | None:
    """Final logits [N, K] -> of which classes each image may be [N, K], bool, on the CPU; None where no trick makes sets."""
    return next((trick.sets(logits).cpu() for trick in having(tricks, "sets")), None)


@dataclass(frozen=True)
class Coverage:
    """How often sets of classes hold the right one, and how many classes they hold; None where there is no image.

    Intervals are of 95 %: Wilson's for a share, Student's for a mean size, which takes two images.
    """

    n: int
    held: float | None
    """Share of images whose set holds their class, 0..1."""
    held_interval: tuple[float, float]
    size: float | None
    """Classes in a set, in the mean."""
    size_interval: tuple[float, float] | None

    @classmethod
    def of(cls, sets: Tensor, labels: Tensor) -> Self:
        """Sets [N, K], bool, and labels [N] int64 in 0..K-1.

        >>> import torch
        >>> found = Coverage.of(torch.tensor([[True, False], [True, True]]), torch.tensor([1, 1]))
        >>> found.held, found.size
        (0.5, 1.5)
        """
        n, held, sizes = len(labels), sets.gather(1, labels[:, None])[:, 0], sets.sum(1).double()
        ends = None
        if n > 1:
            margin = float(student.ppf(0.975, n - 1) * sizes.std() / math.sqrt(n))
            ends = max(0.0, float(sizes.mean()) - margin), min(float(sets.shape[1]), float(sizes.mean()) + margin)
        share, size = (float(held.double().mean()), float(sizes.mean())) if n else (None, None)
        return cls(n, share, interval(int(held.sum()), n), size, ends)


@dataclass(frozen=True)
class Sets:
    """How often the sets of a trick hold the right class."""

    by: str
    """The spelling of the trick."""
    whole: Coverage
    classes: list[Coverage]
    """Of each class's images."""

    @classmethod
    def of(cls, by: str, sets: Tensor, labels: Tensor) -> Self:
        """Sets [N, K], bool, and labels [N] int64 in 0..K-1."""
        own = [labels == k for k in range(sets.shape[1])]
        return cls(by, Coverage.of(sets, labels), [Coverage.of(sets[rows], labels[rows]) for rows in own])

    def named(self, classes: Sequence[str]) -> dict[str, Any]:
        """All fields as plain values, with the names [K] of the classes beside their own."""
        return asdict(self) | {"classes": {name: asdict(own) for name, own in zip(classes, self.classes, strict=True)}}


def measured(tricks: Sequence[Trick], logits: Tensor, labels: Tensor) -> Sets | None:
    """Of images with final logits [N, K] and labels [N] int64 in 0..K-1; None where no trick makes sets."""
    for trick in having(tricks, "sets"):
        return Sets.of(str(trick), trick.sets(logits).cpu(), labels.cpu())
    return None


def told(found: Coverage) -> str:
    """How often and how large, in words.

    >>> told(Coverage(40, 0.9, (0.769, 0.96), 1.25, (1.1, 1.4)))
    'hold the right class for 90.0 % (76.9 - 96.0, 40 images), with 1.25 classes each (1.10 - 1.40)'
    """
    if found.held is None or found.size is None:
        return "of no image"
    held, size = (f"{100 * end:.1f}" for end in found.held_interval), found.size_interval or ()
    ends = f" ({' - '.join(f'{end:.2f}' for end in size)})" if size else ""
    return (
        f"hold the right class for {100 * found.held:.1f} % ({' - '.join(held)}, {counted(found.n, 'image')}), "
        f"with {found.size:.2f} classes each{ends}"
    )
