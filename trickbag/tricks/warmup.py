"""Warm-up: the learning rate rises from near zero over the first steps.

Formula: (i + 1) / W at step i < W, then 1; W = round(share * steps). The product with any other schedule is taken.
Paper: Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677, section 2.2; He et al., CVPR 2019, section 3.1.
Helps: large batches, large learning rates, adaptive optimisers, fresh heads on pretrained networks.
Hurts: very short runs, which lose the time.
Costs: nothing.
"""

from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Fit, Stage, Trick


def rising(t: float, share: float, steps: int) -> float:
    """The factor in (0, 1] at ``t``, the share done of ``steps``; ``share`` of them rise.

    >>> [rising(i / 8, 0.5, 8) for i in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    width = round(share * steps)
    return min(1.0, (t * steps + 1) / width) if width else 1.0


class Warmup(Trick):
    """Raise the learning rate linearly over the first share of training."""

    stage = Stage.GRADIENT
    neutral = {"share": 0.0}
    share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of training over which the learning rate rises."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Remember the number of steps."""
        self.steps_ = fit.facts.steps

    def lr(self, t: float) -> float:
        """The factor at share ``t``."""
        return rising(t, self.share, self.steps_)
