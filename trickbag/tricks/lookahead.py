"""Lookahead: every few steps the weights are drawn back towards slow ones, which follow them.

Formula: after every k-th step slow <- slow + share * (w - slow), then w <- slow. The slow weights begin as those after the
  first k steps, and the optimiser keeps its momentum, both as in ``timm.optim.Lookahead``.
Paper: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019, arXiv:1907.08610, algorithm 1.
Helps: high learning rates and long training; makes the choice of the rate less delicate.
Hurts: short training: the weights go more slowly.
Costs: one more copy of the weights, one pass over them every k steps.
"""

import copy
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from trickbag.trick import Fit, Stage, Trick


@torch.no_grad()
def look_back(slow: nn.Module, model: nn.Module, share: float) -> None:
    """Move the weights of ``slow`` by ``share`` in (0, 1] of the way to those of ``model``, and set these to them.

    >>> slow, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> look_back(slow, model, 0.5)
    >>> torch.equal(slow.weight, model.weight)
    True
    """
    for old, new in zip(slow.parameters(), model.parameters(), strict=True):
        new.copy_(old.lerp_(new, share))


class Lookahead(Trick):
    """Draw the weights back towards slow ones every few steps."""

    stage = Stage.WEIGHT
    neutral = {"share": 1.0}
    every: Annotated[int, Field(ge=1)] = 5
    """Steps between two looks back, k."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How far the slow weights go towards the others; 1: all the way."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Make room for the slow weights."""
        self.steps_ = 0
        self.slow_ = copy.deepcopy(model).requires_grad_(False)

    def update(self, model: Any, t: float) -> None:
        """Count the step, and look back where it is time to."""
        self.steps_ += 1
        if self.steps_ % self.every == 0:
            look_back(self.slow_, model, 1.0 if self.steps_ == self.every else self.share)
