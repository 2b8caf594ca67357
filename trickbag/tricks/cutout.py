"""Cutout: a square somewhere on the image is covered.

Formula: a square of round(side * min(H, W)) pixels around a pixel drawn uniformly, so that a part of it may lie outside the
  image; what it covers becomes the image's own mean colour. (The paper covers normalised images with 0, the mean colour of the
  data, lest the statistics of a batch move; here, before normalisation, the image's own mean serves any data.)
Paper: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017, arXiv:1708.04552.
Helps: small images, objects that are partly hidden, long training.
Hurts: small objects, details that decide the class, short training.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Stage, Transform, Trick


def cover(image: Tensor, y: int, x: int, pixels: int) -> Tensor:
    """A copy of a uint8 image [C, H, W] whose mean colour covers the square of ``pixels`` around (y, x).

    >>> cover(torch.tensor([[[0, 0, 0], [0, 0, 90], [0, 0, 0]]], dtype=torch.uint8), 0, 1, 2)
    tensor([[[10, 10,  0],
             [ 0,  0, 90],
             [ 0,  0,  0]]], dtype=torch.uint8)
    """
    made = image.clone()
    top, left = y - pixels // 2, x - pixels // 2
    mean = image.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
    made[:, max(top, 0) : max(top + pixels, 0), max(left, 0) : max(left + pixels, 0)] = mean
    return made


class Cutout(Trick):
    """Cover a square of each image; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"side": 0.0}
    side: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Side of the square, a share of the image's shorter side, in [0, 1]."""

    def augment(self) -> list[Transform]:
        """One square per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            pixels = round(self.side * min(image.shape[-2:]))
            if not pixels:
                return image
            y, x = (int(torch.randint(length, (), generator=rng)) for length in image.shape[-2:])
            return cover(image, y, x, pixels)

        return [apply]
