"""Gaussian blur: some images are out of focus.

Formula: with probability p: x <- g * x, g a Gaussian of sigma ~ U(sigma) pixels, cut off at 3 sigma; images are mirrored at
  their edges. As ``torchvision``'s gaussian_blur; p and sigma as in SimCLR.
Paper: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, arXiv:2002.05709,
  appendix A.
Helps: images that are out of focus, shaken or enlarged when judged; long training of large networks.
Hurts: classes told apart by texture or fine detail; small images, of which 2 pixels are a large part.
Costs: loader time: the larger sigma, the more.
"""

import math
from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from trickbag.ground.limits import rising
from trickbag.ground.streams import uniform
from trickbag.trick import Stage, Transform, Trick


def blurred(image: Tensor, sigma: float) -> Tensor:
    """A uint8 image [C, H, W] after a Gaussian of ``sigma`` pixels, above 0.

    >>> import torch
    >>> blurred(torch.tensor([[[0, 0, 0, 0, 255, 0, 0, 0, 0]] * 9], dtype=torch.uint8), 1.0)[0, 4]
    tensor([  0,   1,  14,  62, 102,  62,  14,   1,   0], dtype=torch.uint8)
    """
    # An image can be mirrored at its edges as far as it reaches.
    reach = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
    made: Tensor = functional.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
    return made


Pixels = Annotated[float, Field(gt=0, le=10)]


class GaussianBlur(Trick):
    """Blur images by random strengths; any number of channels."""

    stage = Stage.PIXEL
    neutral = {"p": 0.0}
    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that an image is blurred, in [0, 1]."""
    sigma: Annotated[tuple[Pixels, Pixels], AfterValidator(rising)] = (0.1, 2.0)
    """Smallest and largest standard deviation of the Gaussian in pixels, above 0, at most 10."""

    def augment(self) -> list[Transform]:
        """At most one Gaussian per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            return image if uniform(rng) >= self.p else blurred(image, uniform(rng, *self.sigma))

        return [apply]
