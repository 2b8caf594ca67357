"""Freeze: only the classifier learns until a given moment.

Formula: no gradient for all but the classifier while t < until; their norms use and keep their running statistics.
Paper: Yosinski et al., "How transferable are features", NIPS 2014, arXiv:1411.1792; Kumar et al., ICLR 2022, arXiv:2202.10054.
Helps: little data and pretrained weights (until=1); a calm start before the whole network learns (until=0.1).
Hurts: training from scratch, and data far from what the weights were trained on.
Costs: less than nothing: a frozen step has no backward pass below the classifier.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from trickbag.trick import Compute, Stage, Trick


@contextmanager
def frozen(model: nn.Module, head: nn.Module) -> Iterator[None]:
    """Inside, the parameters outside ``head`` want no gradient and its norms are in evaluation mode.

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    >>> with frozen(model, model[1]):
    ...     print(model[0].training, [p.requires_grad for p in model.parameters()])
    False [False, False, True, True]
    >>> model[0].training, model[0].weight.requires_grad
    (True, True)
    """
    kept = {id(part) for part in (*head.modules(), *head.parameters())}
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    norms = [m for m in model.modules() if m.training and hasattr(m, "running_mean") and id(m) not in kept]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for norm in norms:
            norm.training = True


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
            with frozen(model, model.classifier):
                return compute()

        return head_alone
