"""Three-Augment: greyscale, solarise or blur, one of the three for each image, then a jitter of its colours.

Formula: one of three, drawn uniformly: all channels <- 0.299 R + 0.587 G + 0.114 B; x <- 255 - x wherever x is at least 128; a
  Gaussian of sigma ~ U(sigma) pixels. Then, in an order drawn for each image, with factors ~ U[1 - jitter, 1 + jitter]:
  brightness x <- b x, contrast x <- c x + (1 - c) mean grey(x), saturation x <- s x + (1 - s) grey(x). In images without three
  channels, contrast acts on each by itself, and greyscale and saturation leave all as it is. The paper's mirroring and cropping
  are flip and random_resized_crop.
Paper: Touvron et al., "DeiT III: Revenge of the ViT", ECCV 2022, arXiv:2204.07118, section 3.
Helps: vision transformers, long training from scratch; nothing to tune.
Hurts: classes told apart by colour or fine texture, short training; small images, of which 2 pixels are a large part.
Costs: loader time, about three operations per image.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from trickbag.ground.limits import rising
from trickbag.ground.streams import uniform
from trickbag.trick import Stage, Transform, Trick

Operation = Literal["grayscale", "solarize", "blur"]
OPERATIONS: tuple[Operation, ...] = ("grayscale", "solarize", "blur")
THRESHOLD = 128


def operate(image: Tensor, operation: Operation, sigma: float) -> Tensor:
    """A uint8 image [C, H, W] after one of OPERATIONS; ``sigma`` in pixels, above 0, for the last.

    >>> operate(torch.tensor([[[10, 200]]], dtype=torch.uint8), "solarize", 1.0)
    tensor([[[10, 55]]], dtype=torch.uint8)
    """
    made: Tensor = image
    if operation == "grayscale" and len(image) == 3:
        made = functional.rgb_to_grayscale(image, 3)
    elif operation == "solarize":
        made = functional.solarize(image, THRESHOLD)
    elif operation == "blur":
        # An image can be mirrored at its edges as far as it reaches.
        reach = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
        made = functional.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
    return made


def jitter(image: Tensor, order: Sequence[int], factors: Sequence[float]) -> Tensor:
    """A uint8 image [C, H, W] with brightness, contrast and saturation, places 0 to 2, scaled by their ``factors`` in an order.

    >>> jitter(torch.tensor([100, 50, 50], dtype=torch.uint8).view(3, 1, 1), [2, 0, 1], [2.0, 1.0, 0.0]).flatten().tolist()
    [128, 128, 128]
    """
    coloured = len(image) == 3
    made = image if coloured else image.unsqueeze(1)
    for place in order:
        if place == 0:
            made = functional.adjust_brightness(made, factors[0])
        elif place == 1:
            made = functional.adjust_contrast(made, factors[1])
        elif coloured:
            made = functional.adjust_saturation(made, factors[2])
    return made if coloured else made.squeeze(1)


Pixels = Annotated[float, Field(gt=0, le=10)]


class ThreeAugment(Trick):
    """One of three operations on each image, then a jitter of its colours; any number of channels."""

    stage = Stage.PIXEL
    slot = "policy"
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Half the width of the factors' range around 1, in [0, 1]."""
    sigma: Annotated[tuple[Pixels, Pixels], AfterValidator(rising)] = (0.1, 2.0)
    """Smallest and largest standard deviation of the Gaussian in pixels, above 0, at most 10."""

    def augment(self) -> list[Transform]:
        """One operation, one sigma, one order and three factors per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            operation = OPERATIONS[int(torch.randint(len(OPERATIONS), (), generator=rng))]
            image = operate(image, operation, uniform(rng, *self.sigma))
            order = torch.randperm(3, generator=rng).tolist()
            factors = 1 + self.jitter * (2 * torch.rand(3, generator=rng, dtype=torch.float64) - 1)
            return jitter(image, order, factors.tolist())

        return [apply]
