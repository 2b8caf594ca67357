"""SWA, stochastic weight averaging: judge the plain mean of the weights at moments late in training.

Formula: the mean of the weights at the moments start + (1 - start) * k / cycles, k = 1 ... cycles. A moment's weights are those
  after the first step that reaches it. Norm statistics are estimated anew.
Paper: Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018, arXiv:1803.05407, algorithm 1.
Helps: constant or cyclic learning rates in the last quarter of training.
Hurts: schedules that end near zero, where the moments hardly differ, and averages that begin too early.
Costs: one more copy of the weights.
"""

import copy
import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from trickbag.trick import Fit, Stage, Trick


def moments_passed(t: float, start: float, cycles: int) -> int:
    """How many of the moments lie at or before share ``t``; ``start`` in [0, 1), ``cycles`` at least 1.

    >>> [moments_passed(t, 0.5, 5) for t in (0.5, 0.6, 0.65, 1.0)]
    [0, 1, 1, 5]
    """
    # Shares are quotients of steps: a moment counts as reached within rounding.
    return max(0, math.floor(cycles * (t - start) / (1 - start) + 1e-9))


@torch.no_grad()
def move(mean: nn.Module, model: nn.Module, share: float) -> None:
    """Move the weights of ``mean`` by ``share`` in (0, 1] of the way to those of ``model``.

    >>> mean, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> move(mean, model, 1.0)
    >>> torch.equal(mean.weight, model.weight)
    True
    """
    for old, new in zip(mean.parameters(), model.parameters(), strict=True):
        old.lerp_(new, share)


class Swa(Trick):
    """Average the weights at evenly spaced moments and have the average judged."""

    stage = Stage.WEIGHT
    neutral = {"start": 1.0}
    begins = "start"
    start: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of training after which moments are averaged; 1: the live weights are judged."""
    cycles: Annotated[int, Field(ge=1)] = 10
    """How many moments are averaged; the last is the end of training."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Make room for the average."""
        self.taken_ = 0
        if self.start < 1:
            self.average_ = copy.deepcopy(model).requires_grad_(False).eval()

    def after_step(self, model: Any, t: float) -> None:
        """Take in the weights where a moment has come; moments between two steps count together."""
        passed = moments_passed(t, self.start, self.cycles) if self.start < 1 else 0
        if passed > self.taken_:
            move(self.average_, model, (passed - self.taken_) / passed)
            self.taken_ = passed

    def eval_model(self, model: Any) -> Any:
        """The average; the live model before the first moment."""
        if not self.taken_:
            return model
        for old, new in zip(self.average_.buffers(), model.buffers(), strict=True):
            old.copy_(new)
        return self.average_
