"""Cyclic learning rate: it swings between a low and the recipe's value on straight lines.

Formula: from share start on there are cycles of equal length; a cycle rises from low to 1 over its share rise, then falls back
  to low. Before, the factor is 1. With start = 0 and rise = 0.5 this is the triangular policy of Smith, as in
  torch.optim.lr_scheduler.CyclicLR. ``cyclic(start=s, cycles=c, rise=0.0, low=a2/a1)`` beside ``swa(start=s, cycles=c)`` is
  Izmailov et al.: each cycle falls from a1, its last step is taken at a2, and the average takes in the weights at its end. So
  with rise = 0 a step has the factor of its end, otherwise that of its beginning.
Paper: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, arXiv:1506.01186, section 3; Izmailov et al.,
  "Averaging Weights Leads to Wider Optima", UAI 2018, arXiv:1803.05407, section 3.
Helps: rates whose best value is not known; weight averages, which want different weights to average.
Hurts: runs that are judged by their last weights and could have ended at a smaller rate.
Costs: nothing.
"""

import math
from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Fit, Stage, Trick


def cyclic_factor(t: float, cycles: int, low: float, start: float, rise: float) -> float:
    """The factor at share ``t``; ``start`` in [0, 1), ``rise`` in [0, 1). Where a cycle ends and another begins it is ``low``.

    >>> [cyclic_factor(t, cycles=2, low=0.5, start=0.0, rise=0.5) for t in (0, 0.125, 0.25, 0.5, 0.75)]
    [0.5, 0.75, 1.0, 0.5, 1.0]
    >>> [cyclic_factor(t, cycles=2, low=0.5, start=0.0, rise=0.0) for t in (0.125, 0.25, 0.5, 0.75, 1)]
    [0.875, 0.75, 0.5, 0.75, 0.5]
    """
    done = cycles * (t - start) / (1 - start)
    # Shares are quotients of steps: a cycle counts as ended within rounding.
    place = min(1.0, done - math.ceil(done - 1e-9) + 1)
    height = place / rise if place < rise else (1 - place) / (1 - rise)
    return low + (1 - low) * height


class Cyclic(Trick):
    """Let the learning rate swing between ``low`` and 1."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"low": 1.0}
    begins = "start"
    cycles: Annotated[int, Field(ge=1, le=100_000)] = 4
    """How many cycles there are."""
    low: Annotated[float, Field(ge=0, le=1)] = 0.25
    """The lowest factor, where each cycle ends."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of training at which the first cycle begins."""
    rise: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a cycle over which the factor rises; 0: each cycle begins at 1 and falls."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Remember how much of training a step is."""
        self.step_ = 0.0 if self.rise else 1 / max(1, fit.facts.steps)

    def lr(self, t: float) -> float:
        """The factor of the step that begins at share ``t``."""
        return 1.0 if t < self.start else cyclic_factor(t + self.step_, self.cycles, self.low, self.start, self.rise)
