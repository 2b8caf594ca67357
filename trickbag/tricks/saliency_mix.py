"""SaliencyMix: paste the most salient rectangle of another image and mix the labels by area.

Formula: l ~ Beta(alpha, alpha), one per batch: sides sqrt(1 - l) of the image's. Of each image j the box around its most
  salient place, cut off at the border, is pasted into image i at the same place; l_i <- 1 - area / (H W), the share that is
  truly left; y <- l_i y_i + (1 - l_i) y_j; j a random permutation of the batch. Salience is by how much a place differs from
  what surrounds it: the sum of |m - s_r| over r = 2, 4, 8 and 16, m the mean of the channels, averaged down to at most 32 x 32
  places, s_r its mean over the square of r places to either side. (The detector of the paper's code, Montabone and Soto's, is
  of this kind too, pixel by pixel; that code asks it of one image and takes its box for the whole batch. SnapMix, which asks
  the network where its class is, needs a second pass, and its targets do not sum to 1.)
Paper: Uddin et al., "SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better Regularization", ICLR 2021,
  arXiv:2006.01791; Montabone and Soto, "Human Detection Using a Mobile Platform and Novel Features Derived from a Visual
  Saliency Mechanism", Image and Vision Computing 2010.
Helps: long schedules, large networks; small or off-centre objects before a calm background.
Hurts: short schedules; backgrounds that catch the eye more than the object, images that are all texture.
Costs: next to nothing.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from trickbag.ground.streams import beta
from trickbag.trick import Batch, Stage, Trick

SIDE = 32
"""Places along a side, at most, at which salience is looked for."""
REACHES = (2, 4, 8, 16)


def salience(x: Tensor) -> Tensor:
    """Images [B, C, H, W] -> how salient each place is [B, h, w], at least 0; h and w at most SIDE.

    >>> salience(torch.tensor([[[[0.0, 0.0, 0.0, 4.0]]]]))
    tensor([[[ 3.0000,  4.0000,  4.0000, 11.6667]]])
    """
    height, width = x.shape[-2:]
    mean = adaptive_avg_pool2d(x.float().mean(1), (min(height, SIDE), min(width, SIDE)))
    surrounds = (avg_pool2d(mean, 2 * reach + 1, 1, reach, count_include_pad=False) for reach in REACHES)
    return torch.stack([(mean - surround).abs() for surround in surrounds]).sum(0)


def peaks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] -> row [B] and column [B] of the middle of the most salient place of each.

    >>> x = torch.zeros(1, 1, 64, 64)
    >>> x[..., 10:12, 50:52] = 1
    >>> peaks(x)
    (tensor([11]), tensor([51]))
    """
    found = salience(x)
    height, width = found.shape[1:]
    place = found.flatten(1).argmax(1)
    row, column = place.div(width, rounding_mode="floor"), place % width
    return (2 * row + 1) * x.shape[-2] // (2 * height), (2 * column + 1) * x.shape[-1] // (2 * width)


def paste(x: Tensor, y: Tensor, partners: Tensor, centres: tuple[Tensor, Tensor], share: float) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] and targets [B, K] with a box of the images at ``partners`` [B] around a row [B] and a column [B].

    A box leaves ``share`` of the image free, and more where it is cut off at the border.

    >>> x, y = torch.eye(2).view(2, 1, 1, 2), torch.eye(2)
    >>> paste(x, y, torch.tensor([1, 0]), (torch.tensor([0, 0]), torch.tensor([1, 0])), 0.0)[1]
    tensor([[0.0000, 1.0000],
            [0.5000, 0.5000]])
    """
    inside = []
    for centre, side in zip(centres, x.shape[-2:], strict=True):
        length = int(side * math.sqrt(1 - share))
        place = torch.arange(side, device=x.device) - (centre[:, None] - length // 2)
        inside.append((place >= 0) & (place < length))
    box = inside[0][:, :, None] & inside[1][:, None, :]
    left = 1 - box.float().mean((1, 2))[:, None].to(y.dtype)
    return torch.where(box[:, None], x[partners], x), torch.lerp(y[partners], y, left)


class SaliencyMix(Trick):
    """Paste the most salient box of every image of a batch into another of the batch, and mix the targets by its area."""

    stage = Stage.MIX
    slot = "mix"
    neutral = {"alpha": 0.0}
    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Parameter of Beta(alpha, alpha), at least 0: 0 pastes nothing, 1 draws all areas alike."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Paste, and mix the targets by the true area."""
        if self.alpha == 0:
            return batch
        share = beta(rng, self.alpha, self.alpha)
        partners = torch.randperm(len(batch.x), generator=rng).to(batch.x.device, non_blocking=True)
        row, column = peaks(batch.x)
        images, targets = paste(batch.x, batch.y, partners, (row[partners], column[partners]), share)
        return batch._replace(x=images, y=targets)
