"""Freeze: only the classifier learns until a given moment.

Formula: no gradient for all but the classifier while t < until; their norms use and keep their running statistics.
Paper: Yosinski et al., "How transferable are features", NIPS 2014, arXiv:1411.1792; Kumar et al., ICLR 2022, arXiv:2202.10054.
Helps: little data and pretrained weights (until=1); a calm start before the whole network learns (until=0.1).
Hurts: training from scratch, and data far from what the weights were trained on.
Costs: less than nothing: a frozen step has no backward pass below the classifier.
"""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from trickbag.ground.norms import frozen
from trickbag.trick import Compute, Stage, Trick


def outside(model: nn.Module, head: nn.Module) -> set[str]:
    """Names of a network's parameters that are not the head's.

    >>> sorted(outside(model := nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)), model[1]))
    ['0.bias', '0.weight']
    """
    kept = {id(parameter) for parameter in head.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) not in kept}


class Freeze(Trick):
    """Leave all but the classifier as it is for the first share of training."""

    stage = Stage.GRADIENT
    neutral = {"until": 0.0}
    until: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of training up to which the network below the classifier is frozen; 1: all of it."""

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """While frozen, compute the classifier's gradient alone."""
        if t >= self.until:
            return compute

        def head_alone() -> Tensor:
            with frozen(model, outside(model, model.classifier)):
                return compute()

        return head_alone
