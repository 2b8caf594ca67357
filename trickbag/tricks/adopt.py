"""ADOPT: Adam whose scale comes from the steps before, and is applied before the momentum.

Formula: v = g^2 in the first step, which moves nothing. From then on, in the t-th further step,
  m = beta1 m + (1 - beta1) clip(g / max(sqrt(v), eps), -t^(1/4), t^(1/4)), w -= lr * (m + weight_decay * w), and only then
  v = beta2 v + (1 - beta2) g^2. This is timm.optim.Adopt with decoupled decay and the paper's clipping.
Paper: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate", NeurIPS 2024,
  arXiv:2411.02853, algorithm 2.
Helps: training that is unstable with adamw, at adamw's learning rate (0.0003 to 0.003) and weight decay; beta2 needs no search.
Hurts: very short training, since v, of 10,000 steps, keeps the scale of the first gradients.
Costs: twice the optimiser memory of SGD with momentum.
"""

from typing import Annotated, cast

from pydantic import Field
from timm.optim.adopt import Adopt as TimmAdopt
from torch.optim import Optimizer

from trickbag.trick import Groups, Stage, Trick


class Adopt(Trick):
    """Replace the optimiser by ADOPT.

    >>> from torch import nn
    >>> type(Adopt().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'Adopt'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the old first moment that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Share of the old second moment that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """The least that a gradient is divided by."""

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.Adopt over these groups."""
        betas = self.beta1, self.beta2
        return cast(Optimizer, TimmAdopt(groups, lr=lr, betas=betas, eps=self.eps, clip_exp=0.25, decoupled=True))
