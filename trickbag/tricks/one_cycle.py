"""One cycle: the learning rate rises to its peak, then falls far below where it began.

Formula: half a cosine from start to 1 while t < peak, then half a cosine from 1 to final. This is the learning rate of
  torch.optim.lr_scheduler.OneCycleLR at its defaults, the recipe's rate being its max_lr; momentum stays as it is, while
  the paper lowers it as the rate rises. The rise is the cycle's own: beside it warmup has nothing to do.
Paper: Smith and Topin, "Super-Convergence", 2017, arXiv:1708.07120, section 3 (straight lines; the cosines are fast.ai's).
Helps: short runs at a peak several times as large as a constant rate could be.
Hurts: peaks beyond what the network stands; runs that are stopped early.
Costs: nothing.
"""

import math
from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def one_cycle_factor(t: float, peak: float, start: float, final: float) -> float:
    """The factor at share ``t``: ``start`` at 0, 1 at ``peak`` in (0, 1), ``final`` at 1.

    >>> [round(one_cycle_factor(t, 0.5, 0.2, 0.0), 4) for t in (0, 0.25, 0.5, 0.75, 1)]
    [0.2, 0.6, 1.0, 0.5, 0.0]
    """
    end, share = (start, 1 - t / peak) if t < peak else (final, (t - peak) / (1 - peak))
    return end + (1 - end) * (1 + math.cos(math.pi * share)) / 2


class OneCycle(Trick):
    """Let the learning rate rise and fall once."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"start": 1.0, "final": 1.0}
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of training at which the recipe's learning rate is reached."""
    start: Annotated[float, Field(gt=0, le=1)] = 0.04
    """The factor at the start."""
    final: Annotated[float, Field(ge=0, le=1)] = 4e-6
    """The factor at the end of training."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return one_cycle_factor(t, self.peak, self.start, self.final)
