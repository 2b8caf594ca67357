"""Exponential decay: the learning rate falls by the same share in equal times.

Formula: final^t, as torch.optim.lr_scheduler.ExponentialLR with gamma = final^(1 / steps).
Paper: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, arXiv:1512.00567, section 8; Li et al., "A Second
  look at Exponential and Cosine Step Sizes", ICML 2021, arXiv:2002.05273.
Helps: comparison with older results; long runs with rmsprop.
Hurts: short runs: it leaves the large rates early and spends long at small ones.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def exponential_factor(t: float, final: float) -> float:
    """The factor at share ``t``: 1 at 0, ``final`` in (0, 1] at 1.

    >>> [exponential_factor(t, 0.25) for t in (0, 0.5, 1)]
    [1.0, 0.5, 0.25]
    """
    return float(final**t)


class Exponential(Trick):
    """Let the learning rate fall by the same share in equal times."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"final": 1.0}
    final: Annotated[float, Field(gt=0, le=1)] = 0.01
    """The factor at the end of training."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return exponential_factor(t, self.final)
