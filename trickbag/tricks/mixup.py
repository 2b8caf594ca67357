"""Mixup: train on convex mixes of pairs of images and of their labels.

Formula: x <- l x_i + (1 - l) x_j, y <- l y_i + (1 - l) y_j, one l ~ Beta(alpha, alpha) per batch,
  j a random permutation of the batch.
Paper: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412.
Helps: long schedules, noisy labels, small data from scratch.
Hurts: short schedules; together with strong smoothing the network says too little.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.ground.streams import beta
from trickbag.trick import Batch, Stage, Trick


def mix(values: Tensor, partners: Tensor, share: float) -> Tensor:
    """Rows [B, …] -> share * rows + (1 - share) * rows[partners]; ``partners`` [B] int64.

    >>> mix(torch.tensor([[0.0], [4.0]]), torch.tensor([1, 0]), 0.75)
    tensor([[1.],
            [3.]])
    """
    return torch.lerp(values[partners], values, share)


class MixUp(Trick):
    """Mix every image of a batch, and its target, with those of another of the batch."""

    stage = Stage.MIX
    slot = "mix"
    neutral = {"alpha": 0.0}
    alpha: Annotated[float, Field(ge=0)] = 0.2
    """Parameter of Beta(alpha, alpha), at least 0: 0 mixes nothing, 1 draws all shares alike."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Mix images and targets by the same share."""
        if self.alpha == 0:
            return batch
        share = beta(rng, self.alpha, self.alpha)
        partners = torch.randperm(len(batch.x), generator=rng).to(batch.x.device, non_blocking=True)
        return batch._replace(x=mix(batch.x, partners, share), y=mix(batch.y, partners, share))
