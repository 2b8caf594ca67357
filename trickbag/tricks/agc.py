"""AGC, adaptive gradient clipping: a unit's gradient that is long beside the unit's weights is shortened.

Formula: g_i *= min(1, ratio * max(||w_i||, 0.001) / ||g_i||), i a unit: a row of a weight's first dimension, or a whole bias or
  scale. Not in the classifier, as in the paper. This is timm.utils.adaptive_clip_grad.
Paper: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", ICML 2021, arXiv:2102.06171, eq. 3.
Helps: networks without norms, large batches and learning rates.
Hurts: a ratio far below the usual one makes every step the same length; networks with batch norms gain little.
Costs: one pass over weights and gradients per step.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn

from trickbag.trick import Compute, Stage, Trick


def clip_units(parameters: Iterable[nn.Parameter], ratio: float) -> None:
    """Shorten the gradient of each unit in place to at most ``ratio`` of its weights; those without one are passed over.

    >>> import torch
    >>> p = nn.Parameter(torch.ones(2, 1))
    >>> p.grad = torch.tensor([[3.0], [0.1]])
    >>> clip_units([p], 0.5)
    >>> p.grad.flatten()
    tensor([0.5000, 0.1000])
    """
    adaptive_clip_grad(parameters, ratio)  # type: ignore[no-untyped-call]


class Agc(Trick):
    """Bound the length of each unit's gradient by that of its weights."""

    stage = Stage.CLIP
    neutral = {"ratio": None}
    ratio: Annotated[float, Field(gt=0)] | None = 0.01
    """The largest length that a gradient may have over that of its weights; None: any."""

    def gradient(self, compute: Compute, model: Any, t: float) -> Compute:
        """Clip what is computed below the classifier."""
        ratio = self.ratio
        if ratio is None:
            return compute

        def clipped() -> Tensor:
            loss = compute()
            heads = model.head_names
            clip_units((p for name, p in model.named_parameters() if name not in heads), ratio)
            return loss

        return clipped
