"""Ordinal targets: of classes that have an order, near ones are less wrong than far ones.

Formula: q_k ~ exp(-(r_k - r_label)^2 / spread), r_k the place of class k in the order, 0 to K - 1, applied to whole target
  rows, so that it commutes with mixing. The loss and the K logits stay as they are.
Paper: Díaz and Marathe, "Soft Labels for Ordinal Regression", CVPR 2019, eq. 1 and 2, with the squared distance.
Helps: grades, ages, stages and counts: mistakes get smaller, also where top-1 stays; label noise between neighbours.
Hurts: classes without an order, or whose order is not that of their names (give levels); calibration and top-1 when the
  spread is large.
Costs: nothing.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor

from trickbag.ground.errors import UsageError
from trickbag.trick import Batch, Fit, Stage, Trick


def soft_ranks(places: Tensor, spread: float) -> Tensor:
    """Places of the classes in their order [K] -> the matrix [K, K] whose row k is the target of class k; spread above 0.

    >>> soft_ranks(torch.tensor([0, 1, 2]), 2.0)
    tensor([[0.5741, 0.3482, 0.0777],
            [0.2741, 0.4519, 0.2741],
            [0.0777, 0.3482, 0.5741]], dtype=torch.float64)
    """
    r = places.double()
    return (-(r[:, None] - r).square() / spread).softmax(1)


def places_of(classes: Sequence[str], order: Sequence[str]) -> list[int]:
    """The place of each class in an order; an empty one is that of the names, by value where all of them are numbers.

    >>> places_of(["1", "10", "2"], []), places_of(["high", "low"], ["low", "high"])
    ([0, 2, 1], [1, 0])
    """
    try:
        numbers = all(isfinite(float(name)) for name in classes)  # "nan" is neither above nor below another
    except ValueError:
        numbers = False
    natural = sorted(classes, key=float if numbers else str)
    return [list(order or natural).index(name) for name in classes]


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) < len(names):
        raise ValueError("a class stands there twice; name each once")
    return names


class Ordinal(Trick):
    """Spread each target over its neighbours in the order of the classes."""

    stage, slot = Stage.LABEL, "smoothing"
    positional = "levels"
    neutral = {"spread": 0.0}
    levels: Annotated[tuple[str, ...], AfterValidator(_once)] = ()
    """All classes from the first to the last; empty: by name, or by value where all names are numbers."""
    spread: Annotated[float, Field(ge=0, le=1e6)] = 0.5
    """How far targets reach, in squared places: a neighbour weighs exp(-1 / spread) of the label; 0: not at all."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Make the targets. Raises UsageError where the order is not one of all classes."""
        classes = fit.facts.classes
        if self.levels and {*self.levels} != {*classes}:
            wrong = min({*self.levels} ^ {*classes})
            what = "is missing" if wrong in classes else "is no class of these images"
            raise UsageError(f"ordinal: {wrong!r} {what}. Name all {len(classes)} classes, from the first to the last.")
        if self.spread:
            matrix = soft_ranks(torch.tensor(places_of(classes, self.levels)), self.spread)
            self.matrix_ = matrix.float().to(next(model.parameters()).device)

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Spread the targets."""
        return batch._replace(y=batch.y @ self.matrix_) if self.spread else batch
