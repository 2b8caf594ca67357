"""Adam: steps scaled by running moments of the gradient; weight decay is added to the gradient.

Formula: m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, w -= lr * m' / (sqrt(v') + eps), m' and v' debiased and
  g the gradient plus weight_decay * w. This is torch.optim.Adam.
Paper: Kingma and Ba, "Adam", ICLR 2015, arXiv:1412.6980, algorithm 1.
Helps: fine-tuning at small learning rates, badly scaled layers, little search for the learning rate.
Hurts: training convolutional networks from scratch, where SGD often generalises better; decay then acts unevenly (see adamw).
Costs: twice the optimiser memory of SGD with momentum.
"""

from typing import Annotated

from pydantic import Field
from torch import optim

from trickbag.trick import Groups, Stage, Trick


class Adam(Trick):
    """Replace the optimiser by Adam.

    >>> from torch import nn
    >>> type(Adam().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'Adam'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the old first moment that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the old second moment that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    def optimizer(self, groups: Groups, lr: float) -> optim.Optimizer:
        """torch.optim.Adam over these groups."""
        return optim.Adam(groups, lr=lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)
