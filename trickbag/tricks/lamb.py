"""LAMB: AdamW in which each layer's step is as long as its weights.

Formula: r = m' / (sqrt(v') + eps) + weight_decay * w with Adam's debiased moments m' and v', w -= lr * ||w|| / ||r|| * r, layer
  by layer. Weights without decay (see no_bias_decay) and norms of zero take r as it is. This is timm.optim.Lamb without its
  clipping of the gradient, which is clip_gradient's.
Paper: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020, arXiv:1904.00962,
  algorithm 2.
Helps: batches of thousands of images; one learning rate (0.001 to 0.01) for many networks.
Hurts: small batches gain nothing over adamw.
Costs: twice the optimiser memory of SGD with momentum, the norms of weights and steps.
"""

from typing import Annotated, cast

from pydantic import Field
from timm.optim.lamb import Lamb as TimmLamb
from torch.optim import Optimizer

from trickbag.ground.errors import UsageError
from trickbag.trick import Groups, Stage, Trick


class Lamb(Trick):
    """Replace the optimiser by LAMB.

    >>> from torch import nn
    >>> type(Lamb().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.1}], lr=0.1)).__name__
    'Lamb'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the old first moment that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the old second moment that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the root of the second moment."""

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.Lamb over these groups. Raises UsageError where no weight is decayed, since none would be scaled."""
        if not any(group["weight_decay"] for group in groups):
            raise UsageError(
                "lamb scales the steps of decayed weights, and none is decayed. Set weight_decay above 0, and remove tricks "
                "that take the decay away."
            )
        made = TimmLamb(groups, lr=lr, betas=(self.beta1, self.beta2), eps=self.eps, max_grad_norm=None)
        return cast(Optimizer, made)
