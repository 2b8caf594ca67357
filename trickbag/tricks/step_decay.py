"""Step decay: the learning rate drops at given moments.

Formula: factor ^ (how many of the moments ``at`` lie at or before t).
Paper: He et al., "Deep Residual Learning", CVPR 2016, arXiv:1512.03385, section 3.4.
Helps: comparison with older results; runs whose good moments are known.
Hurts: short runs, and data whose good moments are not known.
Costs: nothing.
"""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from trickbag.trick import Stage, Trick


def step_factor(t: float, at: tuple[float, ...], factor: float) -> float:
    """The factor at share ``t``; a drop holds from its moment on.

    >>> [step_factor(t, (0.25, 0.5), 0.5) for t in (0.2, 0.25, 0.9)]
    [1.0, 0.5, 0.25]
    """
    return factor ** sum(t >= moment for moment in at)


def _rising(at: tuple[float, ...]) -> tuple[float, ...]:
    if any(a >= b for a, b in pairwise(at)):
        raise ValueError("the moments must rise")
    return at


class StepDecay(Trick):
    """Multiply the learning rate by ``factor`` at each of the moments."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"factor": 1.0}
    at: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1), AfterValidator(_rising)] = (
        0.25,
        0.5,
        0.75,
    )
    """Rising shares of training, each between 0 and 1."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What the learning rate is multiplied by at each moment."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return float(step_factor(t, self.at, self.factor))
