"""Tone: some images without colour, with few levels of brightness, or with their bright parts inverted.

Formula: each with its own probability, in this order. Greyscale: all channels <- 0.299 R + 0.587 G + 0.114 B. Posterise: x <- x
  without its 8 - bits lowest bits. Solarise: x <- 255 - x wherever x is at least the threshold. As in ``torchvision``.
Paper: Chen et al., ICML 2020, arXiv:2002.05709 (greyscale); Cubuk et al., "AutoAugment", CVPR 2019, arXiv:1805.09501 (the other
  two); Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, arXiv:2006.07733 (p = 0.2 for greyscale and solarise).
Helps: colours, light and cameras that say nothing of the class; few images, long training.
Hurts: classes told apart by colour (food, birds, ripeness, stained tissue), short training.
Costs: nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from trickbag.trick import Stage, Transform, Trick

Probability = Annotated[float, Field(ge=0, le=1)]


def toned(image: Tensor, grey: bool, bits: int, threshold: int) -> Tensor:
    """A uint8 image [C, H, W] after the three operations; 8 bits and a threshold of 256 change nothing.

    Images without three channels keep their colours.

    >>> toned(torch.tensor([100, 50, 250], dtype=torch.uint8).view(3, 1, 1), False, 4, 128).flatten().tolist()
    [96, 48, 15]
    """
    if grey and len(image) == 3:
        image = functional.rgb_to_grayscale(image, 3)
    if bits < 8:
        image = functional.posterize(image, bits)
    if threshold < 256:
        image = functional.solarize(image, threshold)
    return image


class Tone(Trick):
    """Take away colours or levels, or invert what is bright; images without three channels keep their colours."""

    stage = Stage.PIXEL
    neutral = {"grayscale": 0.0, "posterize": 0.0, "solarize": 0.0}
    grayscale: Probability = 0.2
    """Probability that an image loses its colours, in [0, 1]."""
    posterize: Probability = 0.2
    """Probability that it is left with few levels, in [0, 1]."""
    solarize: Probability = 0.2
    """Probability that its bright parts are inverted, in [0, 1]."""
    bits: Annotated[int, Field(ge=1, le=8)] = 4
    """Bits of each channel that posterising keeps, 1 to 8."""
    threshold: Annotated[int, Field(ge=0, le=256)] = 128
    """The level from which on solarising inverts, 0 to 256."""

    def augment(self) -> list[Transform]:
        """Three draws per image, whatever the probabilities."""
        chances = torch.tensor([self.grayscale, self.posterize, self.solarize], dtype=torch.float64)

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            grey, few, inverted = (torch.rand(3, generator=rng, dtype=torch.float64) < chances).tolist()
            return toned(image, grey, self.bits if few else 8, self.threshold if inverted else 256)

        return [apply]
