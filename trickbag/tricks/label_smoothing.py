"""Label smoothing: move a little of each target's weight from its class to the others.

Formula: q_k = 1 - eps on the label, eps / (K - 1) elsewhere, applied to whole target rows, so that it commutes with mixing.
Paper: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016; this form: He et al., CVPR 2019, eq. 4.
Helps: many classes, label noise, long training.
Hurts: distillation from the smoothed network, calibration when strong.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Batch, Stage, Trick


def smooth(y: Tensor, eps: float) -> Tensor:
    """Targets [B, K] with rows summing to 1 -> the same, smoothed; eps in [0, 1), K at least 2.

    >>> import torch
    >>> smooth(torch.eye(3)[:1], 0.2)
    tensor([[0.8000, 0.1000, 0.1000]])
    """
    others = eps / (y.shape[1] - 1)
    return y * (1 - eps - others) + others


class LabelSmoothing(Trick):
    """Move ``eps`` of each target's weight to the other classes."""

    stage, slot = Stage.LABEL, "smoothing"
    neutral = {"eps": 0.0}
    eps: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Weight taken from the label and shared by the other classes."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Smooth the targets."""
        return batch._replace(y=smooth(batch.y, self.eps))
