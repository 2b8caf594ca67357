"""Flip: mirror the image left to right, half of the time; upside down too, where asked for.

Formula: x[c, i, j] <- x[c, i, W - 1 - j] with probability p, then x[c, i, j] <- x[c, H - 1 - i, j] with probability vertical.
Paper: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1.
Helps: photographs of nearly everything; with vertical=0.5, photographs without an up: cells, satellites, textures.
Hurts: writing, digits, road signs, left and right shoes: wherever the mirror image is another class; vertical: whatever
  has an up.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trickbag.trick import LEFT_RIGHT, UPSIDE_DOWN, Draw, Stage, Trick


class Flip(Trick):
    """Mirror images left to right, and upside down; any number of channels, boxes and regions with them.

    >>> import torch
    >>> Flip(p=0.5, vertical=0.5).mirror(lambda count: torch.tensor([[0.7, 0.7], [0.2, 0.7], [0.7, 0.2], [0.2, 0.2]]))
    tensor([0, 1, 2, 3])
    """

    stage = Stage.PIXEL
    neutral = {"p": 0.0, "vertical": 0.0}
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of the mirror image, in [0, 1]."""
    vertical: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the image is upside down, in [0, 1]."""

    def mirror(self, draw: Draw) -> Tensor:
        """A draw per image for either way; the first is the same whatever ``vertical`` says."""
        left_right, upside_down = draw(2).unbind(1)
        return LEFT_RIGHT * (left_right < self.p) + UPSIDE_DOWN * (upside_down < self.vertical)
