"""Lighting: shift each image's colour along the principal directions of the colours of natural images ("PCA noise").

Formula: x <- x + 255 V (a * l), a ~ N(0, std^2) three numbers per image, V and l eigenvectors and roots of the eigenvalues of
  ImageNet's RGB covariance on the scale [0, 1]; rounded to whole levels and clipped to [0, 255].
Paper: Krizhevsky et al., NIPS 2012, section 4.1; std = 0.1 and in the baseline of He et al., CVPR 2019, section 2.1.
Helps: colour of the light that says nothing of the class.
Hurts: hardly ever, the shift is some five levels of 255; images that are not photographs.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from trickbag.trick import Stage, Transform, Trick

ROOTS = torch.tensor([0.2175, 0.0188, 0.0045], dtype=torch.float64)
"""ImageNet's principal standard deviations of RGB in [0, 1], as fb.resnet.torch published them."""
DIRECTIONS = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], dtype=torch.float64
)
"""Rows R, G, B; a column is a principal direction."""


def light(image: Tensor, strengths: Tensor) -> Tensor:
    """A uint8 RGB image [3, H, W] moved by float64 ``strengths`` [3] along ImageNet's principal colours.

    >>> light(torch.full((3, 1, 1), 100, dtype=torch.uint8), torch.tensor([-0.1, 0, 0], dtype=torch.float64)).flatten()
    tensor([103, 103, 103], dtype=torch.uint8)
    """
    shift = (255 * DIRECTIONS @ (strengths * ROOTS)).round().to(torch.int16)
    return (image.to(torch.int16) + shift.view(3, 1, 1)).clamp_(0, 255).to(torch.uint8)


class Lighting(Trick):
    """Shift the colour of RGB images; images without three channels have no such colours and are left alone."""

    stage = Stage.PIXEL
    neutral = {"std": 0.0}
    std: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of the strength along each direction, at least 0."""

    def augment(self) -> list[Transform]:
        """One shift per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            if self.std == 0 or len(image) != 3:
                return image
            return light(image, self.std * torch.randn(3, generator=rng, dtype=torch.float64))

        return [apply]
