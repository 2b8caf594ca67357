"""Attention pooling: the network learns which places of the last map count.

Formula: f = sum over places i of a_i x_i, a = softmax over places of w . x_i, which is a 1x1 convolution with one output (its
  bias would cancel). w is learned and starts at 0, where f is the mean.
Paper: Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018, arXiv:1802.04712, whose score has a hidden
  layer besides.
Helps: images in which the object is small or off the centre, with and without pretrained weights.
Hurts: nothing at the start; where all places tell the same, it learns for nothing.
Costs: nothing: as many parameters as the last map has channels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trickbag.trick import Stage, Trick


def attended(x: Tensor, w: Tensor) -> Tensor:
    """Maps [B, D, h, w] and weights [D] -> the attended means [B, D].

    >>> attended(torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([0.0]))
    tensor([[2.]])
    """
    places = x.flatten(2)
    shares = (places * w[:, None]).sum(1, keepdim=True).softmax(2)
    return (places * shares).sum(2)


class Attention(nn.Module):
    """The pooling of the formula for maps of some channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D]."""
        return attended(x.float(), self.score).to(x.dtype)


class AttentionPool(Trick):
    """Pool with learned attention."""

    stage = Stage.SHAPE
    slot = "pool"
    rebuilds = True
    alters = "training"

    def model(self, model: Any) -> Any:
        """Replace the pooling. UsageError where the network has none."""
        model.pool = Attention(model.pooled)
        return model
