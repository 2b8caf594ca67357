"""SAM, sharpness-aware minimisation: the gradient is taken at the worst point nearby.

Formula: the gradient of L at w + rho * g / ||g||, where g is that at w and ||g|| its Euclidean norm over all parameters. The
  second pass sees the same batch and dropout masks; the norms' running statistics are those of the first pass alone.
Paper: Foret et al., "Sharpness-Aware Minimization", ICLR 2021, arXiv:2010.01412, eq. 2 and algorithm 1.
Helps: small data, label noise, long training, transformers from scratch.
Hurts: a fixed time budget: half as many steps fit into it.
Costs: twice the time per step, one more copy of the weights.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils import get_total_norm

from trickbag.trick import Compute, Stage, Trick


def ascent(grads: Sequence[Tensor], rho: float) -> list[Tensor]:
    """The step of length ``rho`` along the gradients, taken as one vector; zero where they are all zero.

    >>> ascent([torch.tensor([3.0]), torch.tensor([4.0])], 0.5)
    [tensor([0.3000]), tensor([0.4000])]
    """
    norm = get_total_norm(grads)
    return [grad * (rho / norm.clamp_min(torch.finfo(norm.dtype).tiny)) for grad in grads]


class Sam(Trick):
    """Take each gradient ``rho`` uphill of the weights."""

    stage = Stage.GRADIENT
    neutral = {"rho": 0.0}
    rho: Annotated[float, Field(ge=0)] = 0.05
    """How far uphill, in units of the weights."""

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Compute twice: at the weights, then uphill of them; the loss is that at the weights."""
        if self.rho == 0:
            return compute

        @torch.no_grad()
        def move(steps: Sequence[tuple[Tensor, Tensor]]) -> None:
            for parameter, step in steps:
                parameter.add_(step)

        @torch.no_grad()
        def restore(saved: Sequence[tuple[Tensor, Tensor]]) -> None:
            for tensor, value in saved:
                tensor.copy_(value)

        def uphill() -> Tensor:
            loss = compute()
            moved = [p for p in model.parameters() if p.grad is not None]
            # Copies, because subtracting the step again would leave rounding errors in the weights.
            saved = [(x, x.detach().clone()) for x in (*moved, *model.buffers())]
            move(list(zip(moved, ascent([p.grad for p in moved], self.rho), strict=True)))
            with torch.enable_grad():
                compute()
            restore(saved)
            return loss

        return uphill
