"""SGDR: cosine decay with warm restarts, each cycle longer than the one before.

Formula: final + (1 - final) * (1 + cos(pi p)) / 2, p the share of the running cycle that is done; the cycles fill the training
  and each is mult times as long as the one before. This is torch.optim.lr_scheduler.CosineAnnealingWarmRestarts with
  T_0 = steps / (1 + mult + ... + mult^(cycles - 1)).
Paper: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, arXiv:1608.03983, eq. 5.
Helps: good weights at the end of every cycle, for runs that may be stopped there and for weight averages.
Hurts: the last weights are seldom better than those of one cycle (cosine) of the same length.
Costs: nothing.
"""

import math
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def restart_factor(t: float, cycles: int, mult: float, final: float) -> float:
    """The factor at share ``t``: 1 where a cycle begins, ``final`` where it ends.

    >>> [round(restart_factor(t, 2, 3.0, 0.0), 4) for t in (0, 0.125, 0.25, 0.625, 1)]
    [1.0, 0.5, 1.0, 0.5, 0.0]
    """
    ends = [0.0, *accumulate(mult**cycle for cycle in range(cycles))]
    # Shares are quotients of steps: a cycle counts as begun within rounding.
    cycle = sum(t >= end / ends[-1] - 1e-9 for end in ends[1:-1])
    place = (t * ends[-1] - ends[cycle]) / (ends[cycle + 1] - ends[cycle])
    return final + (1 - final) * (1 + math.cos(math.pi * place)) / 2


class Sgdr(Trick):
    """Let the learning rate fall along half a cosine, several times over."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"final": 1.0}
    cycles: Annotated[int, Field(ge=1, le=100)] = 4
    """How many cycles fill the training; 1 is the trick cosine."""
    mult: Annotated[float, Field(ge=1, le=10)] = 2.0
    """Length of a cycle over that of the one before."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor at the end of each cycle."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return restart_factor(t, self.cycles, self.mult, self.final)
