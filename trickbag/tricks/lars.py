"""LARS: SGD with momentum in which each layer's step is as long as its weights say.

Formula: v = momentum v + trust ||w|| / (||g|| + weight_decay ||w||) * (g + weight_decay w), w -= lr * v, layer by layer.
  Weights without decay (see no_bias_decay) take the bare gradient, and so do norms of zero. This is timm.optim.Lars; the paper
  puts lr into v.
Paper: You et al., "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888, algorithm 1.
Helps: batches of thousands of images, with warmup, poly and a learning rate of 1 to 30.
Hurts: the learning rates of SGD, which are far too small for it; small batches gain nothing.
Costs: the norms of weights and gradients per step.
"""

from typing import Annotated, cast

from pydantic import Field
from timm.optim.lars import Lars as TimmLars
from torch.optim import Optimizer

from trickbag.ground.errors import UsageError
from trickbag.trick import Groups, Stage, Trick


class Lars(Trick):
    """Replace the optimiser by LARS.

    >>> from torch import nn
    >>> type(Lars().optimizer([{"params": nn.Linear(2, 2).parameters(), "weight_decay": 0.1}], lr=1.0)).__name__
    'Lars'
    """

    stage = Stage.GRADIENT
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the old step that each step keeps."""
    trust: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Length of a layer's step over that of its weights, at a learning rate of 1."""

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """timm.optim.Lars over these groups. Raises UsageError where no weight is decayed, since none would be scaled."""
        if not any(group["weight_decay"] for group in groups):
            raise UsageError(
                "lars scales the steps of decayed weights, and none is decayed. Set weight_decay above 0, and remove tricks "
                "that take the decay away."
            )
        return cast(Optimizer, TimmLars(groups, lr=lr, momentum=self.momentum, trust_coeff=self.trust))
