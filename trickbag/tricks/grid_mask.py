"""GridMask: a regular grid of squares on the image is covered.

Formula: with probability p: units of u x u pixels tile the image, u ~ U(d) of its shorter side, offsets drawn uniformly from
  a unit; of each unit a square of side u - round(r u) is covered, so that a share r (2 - r) of the pixels stays. Squares become
  the image's own mean colour. (The paper covers normalised images with 0, the mean colour of the data. Its code turns the
  grid by a random angle and lets the probability grow from 0 to 0.8 over the first 80 % of training, 0.48 on the whole;
  here the grid is upright, as in the paper's formula, and p constant.)
Paper: Chen et al., "GridMask Data Augmentation", 2020, arXiv:2001.04086, section 3; r and d as for ImageNet.
Helps: long training from scratch, objects that are partly hidden; no square can hide a whole object.
Hurts: short training, details that decide the class.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor

from trickbag.ground.limits import rising
from trickbag.ground.streams import uniform
from trickbag.trick import Stage, Transform, Trick


def mask(image: Tensor, unit: int, kept: int, y: int, x: int) -> Tensor:
    """A copy of a uint8 image [C, H, W] whose mean colour covers a grid of squares.

    Units of ``unit`` pixels begin at (y, x); the first ``kept`` pixels of each, along both sides, are not covered.

    >>> mask(torch.tensor([[[0, 0, 0], [0, 90, 0], [0, 0, 0]]], dtype=torch.uint8), 2, 1, 0, 1)
    tensor([[[ 0,  0,  0],
             [10, 90, 10],
             [ 0,  0,  0]]], dtype=torch.uint8)
    """
    rows, columns = (
        (torch.arange(length) - start) % unit >= kept for length, start in zip(image.shape[-2:], (y, x), strict=True)
    )
    mean = image.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
    return torch.where(rows[:, None] & columns, mean, image)


Share = Annotated[float, Field(gt=0, le=1)]


class GridMask(Trick):
    """Cover a grid of squares on an image; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"p": 0.0}
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that an image is touched, in [0, 1]."""
    r: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of a unit's side that is not covered, in (0, 1]."""
    d: Annotated[tuple[Share, Share], AfterValidator(rising)] = (96 / 224, 1.0)
    """Smallest and largest side of a unit, shares of the image's shorter side, in (0, 1]."""

    def augment(self) -> list[Transform]:
        """At most one grid per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            if uniform(rng) >= self.p:
                return image
            unit = max(1, round(uniform(rng, *self.d) * min(image.shape[-2:])))
            y, x = torch.randint(unit, (2,), generator=rng).tolist()
            return mask(image, unit, round(self.r * unit), y, x)

        return [apply]
