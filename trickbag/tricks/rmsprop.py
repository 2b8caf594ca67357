"""RMSProp: steps scaled by a running mean of the squared gradient; weight decay is added to the gradient.

Formula: v = alpha v + (1 - alpha) g^2, u = momentum u + g / (sqrt(v) + eps), w -= lr * u, g the gradient plus
  weight_decay * w. This is torch.optim.RMSprop.
Paper: Tieleman and Hinton, "Lecture 6.5: RMSProp", COURSERA: Neural Networks for Machine Learning, 2012.
Helps: mobile networks (MobileNet, EfficientNet: alpha and momentum 0.9, eps 0.001), badly scaled layers.
Hurts: training at the rates of SGD, which are far too large for it; v starts at 0 and is not debiased, so that the first steps
  are long (see warmup).
Costs: one more copy of the weights, two with momentum.
"""

from typing import Annotated

from pydantic import Field
from torch import optim

from trickbag.trick import Groups, Stage, Trick


class RmsProp(Trick):
    """Replace the optimiser by RMSProp.

    >>> from torch import nn
    >>> type(RmsProp().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'RMSprop'
    """

    stage = Stage.GRADIENT
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the old mean square that each step keeps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the old step that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean square."""

    def optimizer(self, groups: Groups, lr: float) -> optim.Optimizer:
        """torch.optim.RMSprop over these groups."""
        return optim.RMSprop(groups, lr=lr, alpha=self.alpha, momentum=self.momentum, eps=self.eps, foreach=True)
