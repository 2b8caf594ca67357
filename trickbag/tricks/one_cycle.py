"""One cycle: the learning rate rises to its peak, then falls far below where it began.

Formula: half a cosine from start at the first step to 1 at step peak * steps, then half a cosine to final at the last step.
  This is the learning rate of torch.optim.lr_scheduler.OneCycleLR at its defaults, step by step, the recipe's rate being its
  max_lr; momentum stays as it is, while the paper lowers it as the rate rises. The rise is the cycle's own: beside it warmup
  has nothing to do.
Paper: Smith and Topin, "Super-Convergence", 2017, arXiv:1708.07120, section 3 (straight lines; the cosines are fast.ai's).
Helps: short runs at a peak several times as large as a constant rate could be.
Hurts: peaks beyond what the network stands; runs that are stopped early.
Costs: nothing.
"""

import math
from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Fit, Stage, Trick


def one_cycle_factor(step: float, steps: int, peak: float, start: float, final: float) -> float:
    """The factor at a step of ``steps``, counted from 0: ``start`` at the first, 1 at the one that ends the share ``peak`` in
    (0, 1), ``final`` at the last.

    >>> [round(one_cycle_factor(step, 10, 0.3, 0.2, 0.0), 4) for step in (0, 1, 2, 9)]
    [0.2, 0.6, 1.0, 0.0]
    """
    top, last = max(peak * steps - 1, 0.0), steps - 1
    if step < top:
        return _between(start, 1 - step / top)
    return _between(final, min(1.0, (step - top) / max(last - top, 1e-9)))


def _between(end: float, share: float) -> float:
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

    def setup(self, model: Any, fit: Fit) -> None:
        """Remember the number of steps."""
        self.steps_ = fit.facts.steps

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return one_cycle_factor(t * self.steps_, self.steps_, self.peak, self.start, self.final)
