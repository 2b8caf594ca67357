"""Polynomial decay: the learning rate falls as a power of the time that is left.

Formula: final + (1 - final) * (1 - t)^power, as torch.optim.lr_scheduler.PolynomialLR with final = 0.
Paper: You et al., "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888 (power 2); Chen et al., "DeepLab",
  TPAMI 2018, arXiv:1606.00915 (power 0.9).
Helps: large batches, with lars above all; a power above 1 spends more of the training at small rates.
Hurts: runs that are stopped early; a large power leaves little time at large rates.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def poly_factor(t: float, power: float, final: float) -> float:
    """The factor at share ``t``: 1 at 0, ``final`` at 1; ``power`` at least 0.

    >>> [poly_factor(t, 2.0, 0.0) for t in (0, 0.5, 0.75, 1)]
    [1.0, 0.25, 0.0625, 0.0]
    """
    return float(final + (1 - final) * (1 - t) ** power)


class Poly(Trick):
    """Let the learning rate fall as a power of the time that is left."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"final": 1.0}
    power: Annotated[float, Field(gt=0, le=100)] = 2.0
    """How steeply it falls: 1 is a straight line, more falls early, less falls late."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor at the end of training."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return poly_factor(t, self.power, self.final)
