"""Rotate: turn the image by a random angle.

Formula: with probability p: turned about its centre by an angle ~ U[-degrees, degrees]; same size, black corners. As
  ``torchvision``'s RandomRotation(interpolation=BILINEAR, fill=None).
Paper: Simard et al., "Best Practices for Convolutional Neural Networks", ICDAR 2003, section 2.
Helps: views from above (degrees=180), hand-held cameras, small data.
Hurts: writing, scenes with a horizon; black corners that no judged image has.
Costs: loader time, little.
"""

from typing import Annotated

from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from trickbag.ground.streams import uniform
from trickbag.trick import Stage, Transform, Trick


def turn(image: Tensor, degrees: float) -> Tensor:
    """A uint8 image [C, H, W] turned counter-clockwise by ``degrees``; 0 changes nothing.

    >>> import torch
    >>> turn(torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8), 90)
    tensor([[[2, 4],
             [1, 3]]], dtype=torch.uint8)
    """
    if degrees == 0:
        return image
    made: Tensor = functional.rotate(image, degrees, interpolation=InterpolationMode.BILINEAR)
    return made


class Rotate(Trick):
    """Turn images by random angles; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"degrees": 0.0}
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """The largest angle either way, in [0, 180]."""
    p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability that an image is turned, in [0, 1]."""

    def augment(self) -> list[Transform]:
        """At most one angle per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            return turn(image, uniform(rng, -self.degrees, self.degrees)) if uniform(rng) < self.p else image

        return [apply]
