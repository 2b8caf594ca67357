"""Multi-scale: an image has the same features at other sizes.

Formula: weight * mean over sizes and images of 1 - cos(f(x), f(x_s)), f the features and x_s the image resized to a share s
  of the recipe's size, bilinear with antialiasing; both sides learn. A cosine, since features could agree by being small.
  (The paper's scales are layers of a feature pyramid, whose predictions are to agree; here they are sizes of the image, which
  every network has that reads several.)
Paper: after Luo et al., "Cross-X Learning for Fine-Grained Visual Categorization", ICCV 2019, arXiv:1909.04412.
Helps: objects of varying size, fine-grained classes, images judged at other sizes.
Hurts: details that small images lose; networks with batch norms, whose running statistics mix all sizes.
Costs: a pass per size: with the defaults 0.8 of a step more, and memory.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from trickbag.ground.errors import UsageError
from trickbag.trick import Batch, Fit, Outputs, Stage, Trick


def resized(x: Tensor, side: int) -> Tensor:
    """Images [B, C, H, W] at another size, [B, C, side, side].

    >>> resized(torch.arange(4.0).view(1, 1, 2, 2), 1)
    tensor([[[[1.5000]]]])
    """
    return interpolate(x, (side, side), mode="bilinear", antialias=True)


def disagreement(features: Tensor, others: Tensor) -> Tensor:
    """Features [B, D] and [B, D] of the same images -> the mean of 1 - cosine, a scalar in [0, 2].

    >>> disagreement(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [2.0, 0.0]]))
    tensor(0.5000)
    """
    return 1 - cosine_similarity(features, others).mean()


Share = Annotated[float, Field(gt=0, le=4)]


class MultiScale(Trick):
    """Pull the features of an image at other sizes towards each other."""

    stage = Stage.LABEL
    neutral = {"weight": 0.0}
    sizes: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.75)
    """The other sizes, shares of the recipe's size, in (0, 4]."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the disagreement; 0: none."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Settle the sizes in pixels. Raises UsageError where the network cannot read them."""
        self.sides_ = [max(1, round(share * fit.facts.size)) for share in self.sizes]
        if not self.weight:
            return
        if model.fixed_size:
            raise UsageError(
                f"{self} needs images of several sizes; this network reads {model.fixed_size} pixels only. Remove it."
            )
        place = next(model.parameters()).device
        for side in self.sides_:
            try:
                with torch.no_grad():
                    model.eval()(torch.zeros(1, fit.facts.channels, side, side, device=place))
            except RuntimeError as error:
                raise UsageError(
                    f"{self} shows the network images of {side} pixels, which are too small for it ({error}). Raise sizes."
                ) from None

    def penalty(self, batch: Batch, outputs: Outputs, model: Any, t: float) -> Tensor:
        """The weighted disagreement, the mean over the sizes."""
        if not self.weight:
            return outputs.logits.new_zeros(())
        others = [model(resized(batch.x, side)).features.float() for side in self.sides_]
        return self.weight * torch.stack([disagreement(outputs.features, other) for other in others]).mean()
