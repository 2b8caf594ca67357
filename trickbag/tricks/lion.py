"""Lion: each weight moves by the learning rate, in the direction of the sign of a momentum.

Formula: w -= lr * (sign(beta1 m + (1 - beta1) g) + weight_decay * w), then m = beta2 m + (1 - beta2) g. This is
  timm.optim.Lion.
Paper: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, arXiv:2302.06675, algorithm 2.
Helps: transformers and large batches; a learning rate 3 to 10 times smaller than adamw's (0.00003 to 0.0003) with a weight
  decay as many times larger.
Hurts: small batches, whose noise decides the signs; the learning rates of adamw and SGD, which are too large for it.
Costs: nothing: its memory is that of SGD with momentum, half of adamw's.
"""

from typing import Annotated, cast

from pydantic import Field
from timm.optim.lion import Lion as TimmLion
from torch.optim import Optimizer

from trickbag.trick import Groups, Stage, Trick


class Lion(Trick):
    """Replace the optimiser by Lion.

    >>> from torch import nn
    >>> type(Lion().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'Lion'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the momentum, beside the gradient, in what gives the sign."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the old momentum that each step keeps."""

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.Lion over these groups."""
        return cast(Optimizer, TimmLion(groups, lr=lr, betas=(self.beta1, self.beta2)))
