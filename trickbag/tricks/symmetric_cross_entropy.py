"""Symmetric cross-entropy: the cross-entropy, and the reverse one in which the network's answer judges the label.

Formula: alpha * CE(y, p) + beta * RCE(p, y), p the softmax of the logits. RCE = -sum_k p_k log y_k with log 0 taken as -4 (the
  paper's A), of a label k therefore 4 (1 - p_k), and of a row of targets sum_k y_k 4 (1 - p_k): linear in the row, so that a
  mixed row's loss is the mix of its classes' losses. It is alpha times poly1 with eps = 4 beta / alpha: what is new is how far
  from the cross-entropy it goes.
Paper: Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019, arXiv:1908.06112, eq. 7; alpha
  and beta by default as on CIFAR-10, while on CIFAR-100 it takes 6 and 0.1.
Helps: label noise; the bounded reverse part lets a contradicted label pull little, and the plain part keeps hard classes going.
Hurts: clean labels; many classes with a small alpha.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Outputs, Stage, Trick

LOG_0 = -4.0


def symmetric_loss(logits: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """Logits and targets [B, K] -> the loss [B]; alpha and beta at least 0, at 1 and 0 the cross-entropy.

    >>> import torch
    >>> symmetric_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 1.0, 0.5)
    tensor([1.6931])
    """
    reverse = -LOG_0 * (1 - (y * logits.softmax(1)).sum(1))
    return alpha * cross_entropy(logits, y, reduction="none") + beta * reverse


class SymmetricCrossEntropy(Trick):
    """Add the reverse cross-entropy to the loss."""

    stage = Stage.LABEL
    neutral = {"alpha": 1.0, "beta": 0.0}
    alpha: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Weight of the cross-entropy, above 0."""
    beta: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Weight of the reverse cross-entropy; 0: there is none."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The symmetric cross-entropy [B]."""
        return symmetric_loss(outputs.logits, y, self.alpha, self.beta)
