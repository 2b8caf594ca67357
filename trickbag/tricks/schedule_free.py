"""Schedule-free: an average of the weights takes the place of a falling learning rate, whenever training ends.

Formula: the gradient g is taken at y = (1 - beta) z + beta x; then z -= lr * u and x = (1 - c) x + c z, c = lr^2 / (the sum of
  lr^2 so far). u is g + weight_decay * y with base="sgd", and g / (sqrt(v') + eps) + weight_decay * y with base="adamw", v' the
  debiased running mean of g^2. x is judged, its norm statistics estimated anew. Of a schedule only warmup goes with it.
Paper: Defazio et al., "The Road Less Scheduled", NeurIPS 2024, arXiv:2405.15682, eqs. 3 to 5 and algorithm 1.
Helps: training of unknown length, whose weights are good at every epoch; learning rates of 10 to 50 times those of SGD with
  momentum, and 1 to 10 times those of adamw.
Hurts: with the learning rates of a recipe that ends near zero, which are too small for it; beside tricks that move the weights
  after a step (lookahead, cautious), of which z does not hear.
Costs: the memory of SGD with momentum, with base="adamw" that of adamw; one more copy of the weights when judged, and the
  estimate of its norms.
"""

import copy
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn
from torch.optim import Optimizer

from trickbag.trick import Groups, Stage, Trick

EPS = 1e-8
"""Added to the root of the second moment."""


class ScheduleFreeOptimizer(Optimizer):
    """The steps of the formula; the parameters are y, and z is state. ``beta2`` None: of SGD."""

    def __init__(self, groups: Groups, lr: float, beta: float, beta2: float | None) -> None:
        super().__init__(groups, {"lr": lr, "beta": beta, "beta2": beta2, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for y in (p for p in group["params"] if p.grad is not None):
                own = self.state[y]
                if not own:
                    own |= {"z": y.clone(), "steps": 0, "sum": 0.0}
                own["steps"] += 1
                own["sum"] += group["lr"] ** 2
                c = group["lr"] ** 2 / own["sum"] if own["sum"] else 0.0
                u = direction(y.grad, own, group["beta2"]).add(y, alpha=group["weight_decay"])
                y.lerp_(own["z"], c).sub_(u, alpha=group["lr"] * (1 - group["beta"] * (1 - c)))
                own["z"].sub_(u, alpha=group["lr"])


def direction(grad: Tensor, own: dict[str, Any], beta2: float | None) -> Tensor:
    """A gradient, divided by the root of its debiased second moment, which ``own`` keeps, where there is a ``beta2``.

    >>> direction(torch.tensor([3.0, -5.0]), {"steps": 1}, 0.9)
    tensor([ 1., -1.])
    """
    if beta2 is None:
        return grad
    moment = own.setdefault("moment", torch.zeros_like(grad)).mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    scale: Tensor = (moment / (1 - beta2 ** own["steps"])).sqrt_().add_(EPS)
    return grad / scale


def averaged(y: Tensor, z: Tensor, beta: float) -> Tensor:
    """The x of y = (1 - beta) z + beta x; ``beta`` in (0, 1].

    >>> averaged(torch.tensor([3.0]), torch.tensor([5.0]), 0.5)
    tensor([1.])
    """
    return y.lerp(z, 1 - 1 / beta)


class ScheduleFree(Trick):
    """Replace the optimiser and the schedule by an average of the weights."""

    stage, slot = Stage.GRADIENT, "decay"
    base: Literal["sgd", "adamw"] = "sgd"
    """Whose steps are averaged: SGD's, or AdamW's."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Share of the average in the weights at which the gradient is taken."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """With base="adamw": share of the old second moment that each step keeps."""
    _optimizer: Any = PrivateAttr(None)

    def optimizer(self, groups: Groups, lr: float) -> Optimizer:
        """The optimiser of the formula over these groups."""
        beta2 = self.beta2 if self.base == "adamw" else None
        made = self._optimizer = ScheduleFreeOptimizer(groups, lr, self.beta, beta2)
        return made

    def eval_model(self, model: Any) -> Any:
        """The average x; the live model before the first step."""
        state = self._optimizer.state
        if not state:
            return model
        judged: nn.Module = copy.deepcopy(model).requires_grad_(False).eval()
        for x, y in zip(judged.parameters(), model.parameters(), strict=True):
            if y in state:
                x.copy_(averaged(y.detach(), state[y]["z"], self.beta))
        return judged
