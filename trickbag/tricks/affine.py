"""Affine: shear, shift and scale the image by random amounts.

Formula: angles ~ U[-shear, shear] degrees along each axis, shifts ~ U[-translate, translate] of each side in whole pixels,
  factor ~ U(scale), about the centre; same size, black borders. As ``torchvision``'s RandomAffine(interpolation=BILINEAR,
  fill=None), without turns.
Paper: Simard et al., "Best Practices for Convolutional Neural Networks", ICDAR 2003, section 2.
Helps: objects seen from the side or off centre, digits and writing, small data.
Hurts: together with a random crop, which shifts and scales already; black borders that no judged image has.
Costs: loader time, little.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from trickbag.ground.limits import Range, rising
from trickbag.trick import Stage, Transform, Trick


def warp(image: Tensor, shear: Range, shift: tuple[int, int], factor: float) -> Tensor:
    """A uint8 image [C, H, W] sheared by degrees, shifted by pixels (both: along x, along y) and scaled.

    >>> warp(torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8), (0.0, 0.0), (1, 0), 1.0)
    tensor([[[0, 1],
             [0, 3]]], dtype=torch.uint8)
    """
    if (*shear, *shift, factor) == (0, 0, 0, 0, 1):
        return image
    made: Tensor = functional.affine(
        image, angle=0.0, translate=list(shift), scale=factor, shear=list(shear), interpolation=InterpolationMode.BILINEAR
    )
    return made


Factor = Annotated[float, Field(gt=0, le=10)]


class Affine(Trick):
    """Shear, shift and scale images; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"shear": 0.0, "translate": 0.0, "scale": (1.0, 1.0)}
    shear: Annotated[float, Field(ge=0, lt=90)] = 10.0
    """The largest angle of shear either way along each axis, in degrees, in [0, 90)."""
    translate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The largest shift either way along each axis, a share of that side, in [0, 1]."""
    scale: Annotated[tuple[Factor, Factor], AfterValidator(rising)] = (0.9, 1.1)
    """Smallest and largest factor, above 0."""

    def augment(self) -> list[Transform]:
        """Two angles, two shifts and one factor per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            a, b, x, y, factor = torch.rand(5, generator=rng, dtype=torch.float64).tolist()
            shear = self.shear * (2 * a - 1), self.shear * (2 * b - 1)
            height, width = image.shape[-2:]
            shift = round(self.translate * width * (2 * x - 1)), round(self.translate * height * (2 * y - 1))
            return warp(image, shear, shift, self.scale[0] + (self.scale[1] - self.scale[0]) * factor)

        return [apply]
