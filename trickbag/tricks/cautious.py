"""Cautious: a weight moves only where the optimiser's step agrees with the current gradient.

Formula: w += phi * d / max(mean(phi), 0.001), d the step of the optimiser, phi = 1 where d * g < 0 and else 0, the mean over a
  layer's weights, so that steps keep their length. It goes with every optimiser, SGD too. Weight decay is part of d here; the
  paper leaves that of AdamW out. With nadamw and lion this is what timm's option caution does.
Paper: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024, arXiv:2411.16085, algorithm 2.
Helps: long training with momentum (adamw, lion, muon, SGD), which it speeds up a little at the same learning rate.
Hurts: hardly; small batches, whose gradients often disagree with the momentum by noise. Beside schedule_free, which keeps
  weights of its own that do not hear of it.
Costs: one more copy of the weights during a step, a few passes over them.
"""

from typing import Any

import torch
from torch import Tensor

from trickbag.trick import Compute, Fit, Stage, Trick


def agreeing(step: Tensor, grad: Tensor) -> Tensor:
    """The step of a layer where it goes downhill along its gradient, lengthened for where it does not; both of any one shape.

    >>> agreeing(torch.tensor([-1.0, 1.0, 1.0, -1.0]), torch.tensor([2.0, 2.0, -2.0, 0.0]))
    tensor([-2., 0., 2., -0.])
    """
    mask = (step * grad < 0).to(step.dtype)
    return step * mask / mask.mean().clamp_min(1e-3)


class Cautious(Trick):
    """Undo the optimiser's step where it goes against the gradient."""

    stage = Stage.CLIP  # before what else moves or averages weights

    def setup(self, model: Any, fit: Fit) -> None:
        """Make room for the weights before a step."""
        self.before_: list[Tensor] = []

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Keep the weights that the step begins with."""

        def keeping() -> Tensor:
            loss = compute()
            self.before_ = [p.detach().clone() for p in model.parameters() if p.grad is not None]
            return loss

        return keeping

    def update(self, model: Any, t: float) -> None:
        """Take the step again, where it agrees."""
        moved = (p for p in model.parameters() if p.grad is not None)
        with torch.no_grad():
            for parameter, before in zip(moved, self.before_, strict=True):
                parameter.copy_(before + agreeing(parameter - before, parameter.grad))
        self.before_ = []
