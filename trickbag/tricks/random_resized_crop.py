"""Random resized crop: a random part of the image, of random area and shape, becomes the training image.

Formula: area a ~ U(scale) of the image, shape w / h = exp U(log ratio), place uniform; up to ten draws until the box fits, else
  the largest centred box whose shape lies in ratio. Bilinear with antialiasing. As ``torchvision``'s RandomResizedCrop.
Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842; in He et al., CVPR 2019, section 2.1.
Helps: nearly always when training from scratch; objects of varying size.
Hurts: small scales where a detail decides the class, short fine-tuning (raise the lower scale), objects that fill the frame.
Costs: nothing, it stands in for the plain resize; the object looks larger in training than when judged.
"""

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from trickbag.ground.limits import Range, rising
from trickbag.trick import Draw, Stage, Trick

ATTEMPTS = 10


def crop_boxes(sizes: Tensor, scale: Range, ratio: Range, draws: Tensor) -> Tensor:
    """Heights and widths of images [B, 2] -> a random box inside each: top, left, height and width in pixels [B, 4], int64.

    ``scale`` bounds its share of the image's area, ``ratio`` its width / height; ``draws`` [B, ATTEMPTS, 4] lie in [0, 1).

    >>> crop_boxes(torch.tensor([[20, 30]]), (1.0, 1.0), (1.0, 1.0), torch.zeros(1, ATTEMPTS, 4))
    tensor([[ 0,  5, 20, 20]])
    """
    height, width = sizes.double()[:, :, None].unbind(1)
    area, shape, y, x = draws.unbind(2)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * shape)
    h, w = (area / shape).sqrt().round(), (area * shape).sqrt().round()
    fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
    drawn = torch.stack([(y * (height - h + 1)).floor(), (x * (width - w + 1)).floor(), h, w], 2)
    first = fits.int().argmax(1)[:, None, None].expand(-1, 1, 4)
    shape = (width / height).clamp(*ratio)
    h, w = (width / shape).round().clamp_min(1).minimum(height), (height * shape).round().clamp_min(1).minimum(width)
    centred = torch.cat([((height - h) / 2).floor(), ((width - w) / 2).floor(), h, w], 1)
    return torch.where(fits.any(1, keepdim=True), drawn.gather(1, first)[:, 0], centred).long()


Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class RandomResizedCrop(Trick):
    """Cut a random box and resize it to the training size; any number of channels."""

    stage = Stage.SHAPE
    slot = "crop"
    scale: Annotated[tuple[Share, Share], AfterValidator(rising)] = (0.08, 1.0)
    """Smallest and largest share of the image's area, in (0, 1]."""
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(rising)] = (3 / 4, 4 / 3)
    """Smallest and largest width / height, above 0."""

    def window(self, sizes: Tensor, draw: Draw) -> Tensor:
        """One box per image."""
        return crop_boxes(sizes, self.scale, self.ratio, draw(4 * ATTEMPTS).view(-1, ATTEMPTS, 4))
