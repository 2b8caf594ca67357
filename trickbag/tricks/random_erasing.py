"""Random erasing: a random rectangle of the image becomes noise.

Formula: with probability p: area a ~ U(area) of the image, shape h / w = exp U(log ratio), place uniform, up to ten draws
  until the rectangle is smaller than the image both ways, else none. Its pixels ~ U{0 .. 255}, each channel its own (RE-R, the
  paper's best). The rectangle is drawn as by ``torchvision``'s RandomErasing; the noise is put in before normalisation.
Paper: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, arXiv:1708.04896.
Helps: objects that are partly hidden, long training.
Hurts: small objects, details that decide the class, short training.
Costs: nothing.
"""

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor

from trickbag.ground.limits import Range, rising
from trickbag.ground.streams import uniform
from trickbag.trick import Stage, Transform, Trick

ATTEMPTS = 10


def rectangle(height: int, width: int, area: Range, ratio: Range, rng: Generator) -> tuple[int, int, int, int]:
    """The top, left, height and width in pixels of a random rectangle in an image; (0, 0, 0, 0) where ten draws did not fit.

    ``area`` bounds its share of the image's area, ``ratio`` its height / width.

    >>> rectangle(1, 1, (0.5, 0.5), (1.0, 1.0), Generator())
    (0, 0, 0, 0)
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, shape, y, x in torch.rand(ATTEMPTS, 4, generator=rng, dtype=torch.float64).tolist():
        pixels = height * width * (area[0] + (area[1] - area[0]) * share)
        shape = math.exp(low + (high - low) * shape)
        h, w = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if h < height and w < width:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    return 0, 0, 0, 0


def erase(image: Tensor, top: int, left: int, height: int, width: int, rng: Generator) -> Tensor:
    """A copy of a uint8 image [C, H, W] in which the rectangle is uniform noise.

    >>> image = torch.zeros(1, 3, 3, dtype=torch.uint8)
    >>> (erase(image, 0, 1, 2, 2, Generator()) > 0).sum().item()
    4
    """
    made = image.clone()
    noise = torch.randint(256, (len(image), height, width), generator=rng, dtype=torch.uint8)
    made[:, top : top + height, left : left + width] = noise
    return made


Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class RandomErasing(Trick):
    """Turn a random rectangle of an image into noise; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"p": 0.0}
    p: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that an image is touched, in [0, 1]."""
    area: Annotated[tuple[Share, Share], AfterValidator(rising)] = (0.02, 0.33)
    """Smallest and largest share of the image's area, in (0, 1]."""
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(rising)] = (0.3, 3.3)
    """Smallest and largest height / width, above 0."""

    def augment(self) -> list[Transform]:
        """At most one rectangle per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            if uniform(rng) >= self.p:
                return image
            return erase(image, *rectangle(image.shape[-2], image.shape[-1], self.area, self.ratio, rng), rng)

        return [apply]
