"""AdamW: Adam with the weight decay taken out of the gradient.

Formula: as Adam on the bare gradient, and w -= lr * weight_decay * w beside it. This is torch.optim.AdamW.
Paper: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101, algorithm 2.
Helps: transformers and modern convolutional networks; wants a larger weight decay (0.01 to 0.1) than SGD.
Hurts: with the small weight decay of an SGD recipe it hardly decays at all.
Costs: twice the optimiser memory of SGD with momentum.
"""

from typing import Annotated

from pydantic import Field
from torch import optim

from trickbag.trick import Groups, Stage, Trick


class AdamW(Trick):
    """Replace the optimiser by AdamW.

    >>> from torch import nn
    >>> type(AdamW().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'AdamW'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the old first moment that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the old second moment that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    def optimizer(self, groups: Groups, lr: float) -> optim.Optimizer:
        """torch.optim.AdamW over these groups."""
        return optim.AdamW(groups, lr=lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)
