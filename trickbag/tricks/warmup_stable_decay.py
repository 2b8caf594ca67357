"""Warm-up, stable, decay: the learning rate stays where it is and falls on a straight line at the very end.

Formula: 1 while t < 1 - decay, then final + (1 - final) * (1 - t) / decay. The warm-up of its name is the trick warmup: put it
  beside this one, the product is taken.
Paper: Hu et al., "MiniCPM", 2024, arXiv:2404.06395, section 4; straight line and 20 %: Haegele et al., "Scaling Laws and
  Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024, arXiv:2405.18392.
Helps: where the length of training is decided late, or several lengths share their stable part.
Hurts: hardly; all that is judged before the end is judged at the full rate.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def stable_factor(t: float, decay: float, final: float) -> float:
    """The factor at share ``t``: 1 up to ``decay`` before the end, ``final`` at 1.

    >>> [stable_factor(t, 0.5, 0.0) for t in (0, 0.5, 0.75, 1)]
    [1.0, 1.0, 0.5, 0.0]
    """
    return 1.0 if t < 1 - decay else final + (1 - final) * (1 - t) / decay


class WarmupStableDecay(Trick):
    """Keep the learning rate until shortly before the end."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"decay": 0.0}
    begins = "start"
    decay: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of training, at its end, over which the learning rate falls."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor at the end of training."""

    @property
    def start(self) -> float:
        """Share of training at which the fall begins."""
        return 1 - self.decay

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return stable_factor(t, self.decay, self.final)
