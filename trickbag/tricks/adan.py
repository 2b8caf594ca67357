"""Adan: Adam with a third moment, of the change of the gradient, that looks ahead as Nesterov does.

Formula: with d = g - the gradient before (0 in the first step), m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) d,
  n = beta3 n + (1 - beta3) (g + beta2 d)^2, w = (w - lr * (m' + beta2 v') / (sqrt(n') + eps)) / (1 + lr * weight_decay), m', v'
  and n' debiased. This is timm.optim.Adan; the paper's betas are 1 minus these.
Paper: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", TPAMI 2024, arXiv:2208.06677,
  algorithm 1.
Helps: long training from scratch and large batches, with learning rates (0.001 to 0.02) up to 10 times adamw's and a weight
  decay of about 0.02.
Hurts: layers that are frozen at first, whose moments, when they begin, count as debiased already.
Costs: four times the optimiser memory of SGD with momentum.
"""

from typing import Annotated, cast

from pydantic import Field
from timm.optim.adan import Adan as TimmAdan
from torch.optim import Optimizer

from trickbag.trick import Groups, Stage, Trick


class Adan(Trick):
    """Replace the optimiser by Adan.

    >>> from torch import nn
    >>> type(Adan().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.0}], lr=0.1)).__name__
    'Adan'
    """

    stage = Stage.GRADIENT
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Share of the old mean gradient that each step keeps."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.92
    """Share of the old mean change of the gradient that each step keeps."""
    beta3: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the old second moment that each step keeps."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.Adan over these groups."""
        betas = self.beta1, self.beta2, self.beta3
        return cast(Optimizer, TimmAdan(groups, lr=lr, betas=betas, eps=self.eps))
