"""Poly-1 loss: the cross-entropy with another weight on its leading term.

Formula: CE + eps * (1 - sum_k y_k p_k), p the softmax of the logits: of the series sum_j (1 - p_t)^j / j, which is -log p_t,
  the first term weighs 1 + eps.
Paper: Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR 2022,
  arXiv:2204.12511.
Helps: a little on ImageNet, with an eps that was searched for.
Hurts: nothing much; a large eps also acts as a larger learning rate.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from trickbag.trick import Outputs, Stage, Trick


def poly1_loss(logits: Tensor, y: Tensor, eps: float) -> Tensor:
    """Logits and targets [B, K] -> the loss [B]; eps at least -1, at 0 the cross-entropy.

    >>> import torch
    >>> poly1_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 2.0)
    tensor([1.6931])
    """
    return cross_entropy(logits, y, reduction="none") + eps * (1 - (y * logits.softmax(1)).sum(1))


class Poly1(Trick):
    """Weigh the first term of the cross-entropy's series by 1 + ``eps``."""

    stage = Stage.LABEL
    neutral = {"eps": 0.0}
    eps: Annotated[float, Field(ge=-1, le=100)] = 2.0
    """Added to the first term's weight of 1; at -1 the term is gone."""

    def loss(self, outputs: Outputs, y: Tensor) -> Tensor:
        """The loss [B]."""
        return poly1_loss(outputs.logits, y, self.eps)
