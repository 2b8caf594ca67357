"""Cosine decay: the learning rate falls along half a cosine, slowly at both ends.

Formula: final + (1 - final) * (1 + cos(pi t)) / 2.
Paper: Loshchilov and Hutter, "SGDR", ICLR 2017, arXiv:1608.03983, eq. 5, without restarts; He et al., CVPR 2019, section 5.1.
Helps: nearly everywhere; there are no moments to choose.
Hurts: runs that are stopped early: most of the gain comes at the end.
Costs: nothing.
"""

import math
from typing import Annotated

from pydantic import Field

from trickbag.trick import Stage, Trick


def cosine_factor(t: float, final: float) -> float:
    """The factor at share ``t``: 1 at 0, ``final`` at 1.

    >>> [round(cosine_factor(t, 0.0), 4) for t in (0, 0.25, 0.5, 1)]
    [1.0, 0.8536, 0.5, 0.0]
    """
    return final + (1 - final) * (1 + math.cos(math.pi * t)) / 2


class Cosine(Trick):
    """Let the learning rate fall along half a cosine."""

    stage, slot = Stage.GRADIENT, "decay"
    neutral = {"final": 1.0}
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor at the end of training."""

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return cosine_factor(t, self.final)
