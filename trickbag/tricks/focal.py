"""Focal loss: images that are classified well already count less.

Formula: sum_k y_k (1 - p_k)^gamma (-log p_k), p the softmax of the logits: linear in the target row, so that a mixed row's loss
  is the mix of its classes' losses. For two classes it is the paper's sigmoid form; instead of its alpha, take class_weights.
Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, eq. 4.
Helps: many easy images and few hard ones; probabilities that are too sure.
Hurts: label noise, since mislabelled images are hard; balanced data, where it mostly slows training.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trickbag.trick import Outputs, Stage, Trick


def focal_loss(logits: Tensor, y: Tensor, gamma: float) -> Tensor:
    """Logits and targets [B, K] -> the loss [B]; gamma at least 0, at 0 the cross-entropy.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 2.0)
    tensor([0.1733])
    """
    logp = logits.log_softmax(1)
    # Powers below 1 have no slope at 0, where a probability rounds to 1.
    miss = (-logp.expm1()).clamp_min(torch.finfo(logp.dtype).tiny)
    return -(miss**gamma * logp * y).sum(1)


class Focal(Trick):
    """Scale the loss of each image by how far its class is from certain."""

    stage = Stage.LABEL
    neutral = {"gamma": 0.0}
    gamma: Annotated[float, Field(ge=0, le=20)] = 2.0
    """0: the cross-entropy; the larger, the less do easy images count."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The focal loss [B]."""
        return focal_loss(outputs.logits, y, self.gamma)
