"""Linear decay: the learning rate falls on a straight line.

Formula: final + (1 - final) * (1 - t).
Paper: Li et al., "Budgeted Training", ICLR 2020, arXiv:1905.04753, section 4.
Helps: fixed budgets, short ones above all.
Hurts: runs that are stopped early.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def linear_factor(t: float, final: float) -> float:
    """The factor at share ``t``: 1 at 0, ``final`` at 1.

    >>> [linear_factor(t, 0.0) for t in (0, 0.25, 1)]
    [1.0, 0.75, 0.0]
    """
    return final + (1 - final) * (1 - t)


class Linear(Trick):
    """Let the learning rate fall on a straight line."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"final": 1.0}
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor at the end of training."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return linear_factor(t, self.final)
