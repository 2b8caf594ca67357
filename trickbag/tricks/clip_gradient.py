"""Gradient clipping: a gradient that is too long is shortened.

Formula: g *= min(1, norm / ||g||), ||g|| the Euclidean norm over all parameters together.
Paper: Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013, arXiv:1211.5063, section 3.2.
Helps: transformers, large learning rates, rare wild batches.
Hurts: a norm far below the usual gradients makes every step the same length.
Costs: one pass over the gradients per step.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from trickbag.trick import Compute, Stage, Trick


def clip(parameters: Iterable[nn.Parameter], norm: float) -> None:
    """Shorten the gradients in place where their common norm is above ``norm``; those without a gradient are passed over.

    >>> import torch
    >>> p = nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> clip([p], 1.0)
    >>> p.grad
    tensor([0.6000, 0.8000])
    """
    clip_grad_norm_(parameters, norm)


class ClipGradient(Trick):
    """Bound the norm of the gradient."""

    stage = Stage.CLIP
    neutral = {"norm": None}
    norm: Annotated[float, Field(gt=0)] | None = 1.0
    """The largest norm that a gradient may have; None: any."""

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Clip what is computed."""
        norm = self.norm
        if norm is None:
            return compute

        def clipped() -> Tensor:
            loss = compute()
            clip(model.parameters(), norm)
            return loss

        return clipped
