"""ResizeMix: paste the whole of another image, made smaller, and mix the labels by area.

Formula: tau ~ U(scale), one per batch: image j is resized to tau H x tau W (bilinear, antialiased), pasted at a place drawn
  uniformly, the same for the batch, and hides what was there; y <- l y_i + (1 - l) y_j, 1 - l the share of pixels that are
  pasted; j a random permutation of the batch.
Paper: Qin et al., "ResizeMix: Mixing Data with Preserved Object Information and True Labels", 2020, arXiv:2012.11101,
  section 3.3; tau from 0.1 to 0.8.
Helps: long schedules, large networks; small or off-centre objects, which a box of CutMix misses while its label says otherwise.
Hurts: short schedules; classes told apart by size, or by details that are lost in a small image.
Costs: next to nothing.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from trickbag.ground.limits import rising
from trickbag.ground.streams import uniform
from trickbag.trick import Batch, Stage, Trick


def paste(x: Tensor, y: Tensor, partners: Tensor, top: int, left: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] and targets [B, K] with the images at ``partners`` [B], resized to ``size``, pasted at a place.

    >>> x, y = torch.eye(2).view(2, 1, 1, 2), torch.eye(2)
    >>> paste(x, y, torch.tensor([1, 0]), 0, 1, (1, 1))
    (tensor([[[[1.0000, 0.5000]]],
    <BLANKLINE>
    <BLANKLINE>
            [[[0.0000, 0.5000]]]]), tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]]))
    """
    height, width = size
    made = x.clone()
    made[:, :, top : top + height, left : left + width] = interpolate(x, size, mode="bilinear", antialias=True)[partners]
    return made, torch.lerp(y[partners], y, 1 - height * width / (x.shape[-2] * x.shape[-1]))


Share = Annotated[float, Field(ge=0, le=1)]


class ResizeMix(Trick):
    """Paste every image of a batch, made smaller, into another of the batch, and mix the targets by its area."""

    stage = Stage.MIX
    slot = "mix"
    neutral = {"scale": (0.0, 0.0)}
    scale: Annotated[tuple[Share, Share], AfterValidator(rising)] = (0.1, 0.8)
    """Smallest and largest side of what is pasted, a share of the image's, in [0, 1]; at 0 nothing is."""

    def batch(self, batch: Batch, t: float, rng: Generator) -> Batch:
        """Paste, and mix the targets by the area."""
        sides, tau = batch.x.shape[-2:], uniform(rng, *self.scale)
        height, width = (round(tau * side) for side in sides)
        if not height or not width:
            return batch
        top, left = (int(torch.randint(1 + room, (), generator=rng)) for room in (sides[0] - height, sides[1] - width))
        partners = torch.randperm(len(batch.x), generator=rng).to(batch.x.device, non_blocking=True)
        images, targets = paste(batch.x, batch.y, partners, top, left, (height, width))
        return batch._replace(x=images, y=targets)
