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
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from trickbag.trick import Stage, Transform, Trick

Range = tuple[float, float]
ATTEMPTS = 10


def crop_box(height: int, width: int, scale: Range, ratio: Range, rng: Generator) -> tuple[int, int, int, int]:
    """The top, left, height and width in pixels of a random box inside an image of ``height`` x ``width`` pixels.

    ``scale`` bounds its share of the image's area, ``ratio`` its width / height.

    >>> crop_box(20, 30, (1.0, 1.0), (1.0, 1.0), Generator())
    (0, 5, 20, 20)
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, shape, y, x in torch.rand(ATTEMPTS, 4, generator=rng, dtype=torch.float64).tolist():
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
        shape = math.exp(low + (high - low) * shape)
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < h <= height and 0 < w <= width:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    shape = min(max(width / height, ratio[0]), ratio[1])
    h, w = min(height, max(1, round(width / shape))), min(width, max(1, round(height * shape)))
    return (height - h) // 2, (width - w) // 2, h, w


def _rising(limits: Range) -> Range:
    if limits[0] > limits[1]:
        raise ValueError(f"the first value, {limits[0]}, must be at most the second, {limits[1]}")
    return limits


Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class RandomResizedCrop(Trick):
    """Cut a random box and resize it to the training size; any number of channels."""

    stage = Stage.SHAPE
    slot = "crop"
    scale: Annotated[tuple[Share, Share], AfterValidator(_rising)] = (0.08, 1.0)
    """Smallest and largest share of the image's area, in (0, 1]."""
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] = (3 / 4, 4 / 3)
    """Smallest and largest width / height, above 0."""

    def augment(self) -> list[Transform]:
        """One crop per image."""

        def crop(image: Tensor, size: int, rng: Generator) -> Tensor:
            box = crop_box(image.shape[-2], image.shape[-1], self.scale, self.ratio, rng)
            made: Tensor = functional.resized_crop(image, *box, size=[size, size], antialias=True)
            return made

        return [crop]
