"""NAdamW: AdamW that looks ahead along its momentum, as Nesterov does.

Formula: m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, w -= lr * n / (sqrt(v') + eps) with
  n = (beta1 m + (1 - beta1) g) / (1 - beta1^t) and v' debiased, and w -= lr * weight_decay * w beside it. This is
  timm.optim.NAdamW; torch.optim.NAdam lets beta1 grow over the steps instead.
Paper: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016; this form: Choi et al., "On Empirical Comparisons
  of Optimizers for Deep Learning", 2019, arXiv:1910.05446, table 1.
Helps: what adamw helps, with a little faster progress at the same learning rate (0.0003 to 0.003) and weight decay.
Hurts: at the learning rates of SGD, which are far too large for it.
Costs: twice the optimiser memory of SGD with momentum.
"""

from typing import Annotated, cast

from pydantic import Field
from timm.optim.nadamw import NAdamW as TimmNAdamW
from torch.optim import Optimizer

from trickbag.trick import Groups, Stage, Trick


class NAdamW(Trick):
    """Replace the optimiser by NAdamW.

    >>> from torch import nn
    >>> type(NAdamW().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'NAdamW'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the old first moment that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the old second moment that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.NAdamW over these groups."""
        return cast(Optimizer, TimmNAdamW(groups, lr=lr, betas=(self.beta1, self.beta2), eps=self.eps))
