"""Flip: mirror the image left to right, half of the time.

Formula: x[c, i, j] <- x[c, i, W - 1 - j] with probability p.
Paper: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1.
Helps: photographs of nearly everything.
Hurts: writing, digits, road signs, left and right shoes: wherever the mirror image is another class.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trickbag.trick import Draw, Stage, Trick


class Flip(Trick):
    """Mirror images left to right; any number of channels.

    >>> import torch
    >>> Flip(p=0.5).mirror(lambda count: torch.tensor([[0.2], [0.7]]))
    tensor([ True, False])
    """

    stage = Stage.PIXEL
    neutral = {"p": 0.0}
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of the mirror image, in [0, 1]."""

    def mirror(self, draw: Draw) -> Tensor:
        """One draw per image."""
        return draw(1)[:, 0] < self.p
