"""Generalised cross-entropy: between the cross-entropy and the absolute error, so that improbable labels pull less.

Formula: sum_k y_k (1 - p_k^q) / q, p the softmax of the logits: the cross-entropy as q goes to 0, half the absolute error at
  q = 1. Its gradient is that of the cross-entropy times p_k^q. Linear in the target row, so that a mixed row's loss is the mix
  of its classes' losses. The paper's truncated form, which leaves images out, is not here.
Paper: Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels", NeurIPS 2018,
  arXiv:1805.07836, eq. 6.
Helps: label noise, above all in long training that would learn wrong labels by heart.
Hurts: clean labels; rare classes; many classes from scratch, since all p_k are small at first and learning is slow then.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Outputs, Stage, Trick


def generalized_loss(logits: Tensor, y: Tensor, q: float) -> Tensor:
    """Logits and targets [B, K] -> the loss [B]; q in [0, 1], at 0 the cross-entropy.

    >>> import torch
    >>> generalized_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 1.0)
    tensor([0.5000])
    """
    if q == 0:
        return cross_entropy(logits, y, reduction="none")
    return -(y * (q * logits.log_softmax(1)).expm1()).sum(1) / q


class GeneralizedCrossEntropy(Trick):
    """Let images whose label seems improbable count less."""

    stage = Stage.LABEL
    neutral = {"q": 0.0}
    q: Annotated[float, Field(ge=0, le=1)] = 0.7
    """0: the cross-entropy; the larger, the less does a label count that the network finds improbable."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The generalised cross-entropy [B]."""
        return generalized_loss(outputs.logits, y, self.q)
