"""RandAugment: a few random operations per image, all of one strength.

Formula: n times: an operation drawn uniformly from 14 (identity, shears, translations, rotation, brightness, colour, contrast,
  sharpness, posterise, solarise, autocontrast, equalise) at magnitude m of 0 .. 30, its sign, if it has one, drawn evenly.
  Operations and magnitudes are those of ``torchvision.transforms.v2.RandAugment``, nearest pixel and black corners included;
  only the draws are keyed. Images without three channels are treated channel by channel, where colour is left alone.
Paper: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", NeurIPS 2020,
  arXiv:1909.13719.
Helps: long training from scratch, large networks.
Hurts: short training, small networks, classes told apart by colour or direction.
Costs: loader time, about n operations per image.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms import v2

from trickbag.ground.operations import operated
from trickbag.trick import Stage, Transform, Trick

BINS = 31
_TORCHVISION = v2.RandAugment(num_magnitude_bins=BINS)
OPERATIONS: tuple[str, ...] = tuple(_TORCHVISION._AUGMENTATION_SPACE)


def operate(image: Tensor, operation: str, m: int, sign: int) -> Tensor:
    """A uint8 image [C, H, W] after one of OPERATIONS at magnitude ``m`` in 0 .. 30; ``sign``, 1 or -1, where it has one.

    >>> operate(torch.tensor([[[10, 200]]], dtype=torch.uint8), "Solarize", 15, 1)
    tensor([[[10,  55]]], dtype=torch.uint8)
    """
    return operated(_TORCHVISION, _TORCHVISION._AUGMENTATION_SPACE, BINS, image, operation, m, sign)


class RandAugment(Trick):
    """``n`` random operations of magnitude ``m`` on each image."""

    stage = Stage.PIXEL
    slot = "policy"
    neutral = {"n": 0}
    n: Annotated[int, Field(ge=0, le=14)] = 2
    """Operations per image, 0 to 14."""
    m: Annotated[int, Field(ge=0, lt=BINS)] = 9
    """Magnitude of all operations, 0 to 30."""

    def augment(self) -> list[Transform]:
        """The operations of one image are drawn independently, so one may come twice."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            chosen = torch.randint(len(OPERATIONS), (self.n,), generator=rng).tolist()
            signs = torch.randint(2, (self.n,), generator=rng).tolist()
            for operation, sign in zip(chosen, signs, strict=True):
                image = operate(image, OPERATIONS[operation], self.m, 2 * sign - 1)
            return image

        return [apply]
