"""CutMix: paste a rectangle of another image and mix the labels by area.

Formula: l ~ Beta(alpha, alpha) and one box per batch: sides sqrt(1 - l) of the image's, centre uniform, cut off at the border;
  x <- x_i outside the box, x_j inside; l <- 1 - area / (H W), the share that is truly left; y <- l y_i + (1 - l) y_j.
Paper: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
  arXiv:1905.04899, eq. 1 and 5.
Helps: long schedules, large networks, localisation.
Hurts: short schedules, small objects that the box hides or that it does not show.
Costs: nothing.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.ground.streams import beta
from trickbag.trick import Batch, Stage, Trick

Box = tuple[int, int, int, int]


def box_around(y: int, x: int, height: int, width: int, share: float) -> Box:
    """Top, bottom, left, right of the box around (y, x) that leaves ``share`` of an image free, cut off at the border.

    >>> box_around(2, 0, 4, 4, 0.75), box_around(2, 0, 4, 4, 1.0)
    ((1, 3, 0, 1), (2, 2, 0, 0))
    """
    h, w = int(height * math.sqrt(1 - share)), int(width * math.sqrt(1 - share))
    top, left = y - h // 2, x - w // 2
    return max(top, 0), min(top + h, height), max(left, 0), min(left + w, width)


def paste(x: Tensor, y: Tensor, partners: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] and targets [B, K] with the box taken from the images at ``partners`` [B].

    >>> x, y = torch.eye(2).view(2, 1, 1, 2), torch.eye(2)
    >>> paste(x, y, torch.tensor([1, 0]), (0, 1, 0, 1))[1]
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    top, bottom, left, right = box
    made = x.clone()
    made[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right][partners]
    share = 1 - (bottom - top) * (right - left) / (x.shape[-2] * x.shape[-1])
    return made, torch.lerp(y[partners], y, share)


class CutMix(Trick):
    """Paste the same box of every image of a batch into another of the batch, and mix the targets by its area."""

    stage = Stage.MIX
    slot = "mix"
    neutral = {"alpha": 0.0}
    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Parameter of Beta(alpha, alpha), at least 0: 0 pastes nothing, 1 draws all areas alike."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Paste, and mix the targets by the true area."""
        if self.alpha == 0:
            return batch
        height, width = batch.x.shape[-2:]
        share = beta(rng, self.alpha, self.alpha)
        y, x = (int(torch.randint(side, (), generator=rng)) for side in (height, width))
        partners = torch.randperm(len(batch.x), generator=rng).to(batch.x.device, non_blocking=True)
        images, targets = paste(batch.x, batch.y, partners, box_around(y, x, height, width, share))
        return batch._replace(x=images, y=targets)
