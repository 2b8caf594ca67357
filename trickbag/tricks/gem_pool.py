"""GeM, generalised mean pooling: places where a feature is strong count more.

Formula: f = (mean over places of max(x, 1e-6)^p)^(1/p) of each channel; p = 1 is the mean, p -> inf the maximum. One p for all
  channels. Where it is learned, log p is the parameter, so that p stays positive and weight decay draws it towards the mean.
Paper: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019, arXiv:1711.02512, section 3.2.
Helps: retrieval and fine-grained classes, where a small part of the image tells; training at one size and judging at another.
Hurts: networks whose last maps are negative in places, as ConvNeXt's: what is below 0 is cut off.
Costs: nothing.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from trickbag.trick import Stage, Trick

LEAST = 1e-6
"""What a feature counts at least, so that its power has a gradient."""


def generalised_mean(x: Tensor, p: Tensor | float) -> Tensor:
    """Maps [B, D, h, w] -> [B, D]; p above 0.

    >>> generalised_mean(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), 3.0)
    tensor([[2.0801]])
    """
    powers = p * x.flatten(2).clamp_min(LEAST).log()
    return ((powers.logsumexp(2) - math.log(powers.shape[2])) / p).exp()


class GeneralisedMean(nn.Module):
    """The pooling of the formula; ``log_p`` is learned or not."""

    def __init__(self, p: float, learn: bool) -> None:
        super().__init__()
        self.log_p = nn.Parameter(torch.tensor([math.log(p)]), requires_grad=learn)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D]."""
        return generalised_mean(x.float(), self.log_p.exp()).to(x.dtype)


class GemPool(Trick):
    """Pool with a generalised mean."""

    stage = Stage.SHAPE
    slot = "pool"
    rebuilds = True
    neutral = {"p": 1.0, "learn": False}
    p: Annotated[float, Field(ge=1, le=100)] = 3.0
    """The power at the start; 1: the mean."""
    learn: bool = True
    """Whether p is learned."""

    def model(self, model: Any) -> Any:
        """Replace the pooling. UsageError where the network has none."""
        if self.p != 1 or self.learn:
            model.pool = GeneralisedMean(self.p, self.learn)
        return model
