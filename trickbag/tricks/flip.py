"""Flip: mirror the image left to right, half of the time.

Formula: x[c, i, j] <- x[c, i, W - 1 - j] with probability p.
Paper: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1.
Helps: photographs of nearly everything.
Hurts: writing, digits, road signs, left and right shoes: wherever the mirror image is another class.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from trickbag.streams import uniform
from trickbag.trick import Stage, Transform, Trick


def maybe_flip(image: Tensor, p: float, rng: Generator) -> Tensor:
    """The image [C, H, W], mirrored left to right with probability ``p``.

    >>> import torch
    >>> maybe_flip(torch.arange(3).view(1, 1, 3), 1.0, Generator())
    tensor([[[2, 1, 0]]])
    """
    return functional.horizontal_flip(image) if uniform(rng) < p else image


class Flip(Trick):
    """Mirror images left to right; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"p": 0.0}
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of the mirror image, in [0, 1]."""

    def augment(self) -> list[Transform]:
        """One draw per image."""
        return [lambda image, _size, rng: maybe_flip(image, self.p, rng)]
