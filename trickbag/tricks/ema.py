"""EMA: judge an exponential moving average of the weights.

Formula: the mean of all weights so far, that of a moment counting 2^(-age / half_life), age as a share of training. Debiased:
  the initial weights have no part in it, so that 60 steps are averaged as well as 60,000. Norm statistics are estimated anew.
Paper: Polyak and Juditsky, 1992; Tarvainen and Valpola, NIPS 2017, arXiv:1703.01780; debiasing as in Kingma and Ba, ICLR 2015.
Helps: constant or high learning rates, small batches, noisy labels; makes early stops good.
Hurts: hardly with a schedule that ends near zero, where it brings little.
Costs: one more copy of the weights, one pass over them per step.
"""

import copy
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from trickbag.trick import Fit, Stage, Trick


@torch.no_grad()
def average(mean: nn.Module, model: nn.Module, mass: float, keep: float) -> float:
    """Move the weights of ``mean`` towards those of ``model`` and return the new mass.

    ``mass`` in [0, 1) is the share of the average that the steps so far fill, ``keep`` in [0, 1) what a step leaves of it.

    >>> mean, model = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> average(mean, model, mass=0.0, keep=0.9) == 1 - 0.9, torch.equal(mean.weight, model.weight)
    (True, True)
    """
    grown = keep * mass + (1 - keep)
    for old, new in zip(mean.parameters(), model.parameters(), strict=True):
        old.lerp_(new, (1 - keep) / grown)
    return grown


class Ema(Trick):
    """Average the weights with a half-life and have the average judged."""

    stage = Stage.WEIGHT
    neutral = {"half_life": 0.0}
    half_life: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of training after which a moment counts half; 0: the live weights are judged."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Make room for the average."""
        self.mass_, self.seen_ = 0.0, 0.0
        if self.half_life:
            self.average_ = copy.deepcopy(model).requires_grad_(False).eval()

    def after_step(self, model: Any, t: float) -> None:
        """Let the average follow."""
        if self.half_life:
            keep = 0.5 ** ((t - self.seen_) / self.half_life)
            self.mass_, self.seen_ = average(self.average_, model, self.mass_, keep), t

    def eval_model(self, model: Any) -> Any:
        """The average; the live model before the first step."""
        if not self.mass_:
            return model
        for old, new in zip(self.average_.buffers(), model.buffers(), strict=True):
            old.copy_(new)
        return self.average_
