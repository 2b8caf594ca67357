"""TrivialAugment: one random operation of random strength per image; nothing to tune.

Formula: an operation drawn uniformly from 14, its magnitude from 31 steps, its sign, if it has one, drawn evenly ("wide" space:
  rotation to 135 degrees, translation to 32 pixels, factors to 1 +- 0.99). Operations and magnitudes are those of
  ``torchvision.transforms.v2.TrivialAugmentWide``, nearest pixel and black corners included; only the draws are keyed.
  Images without three channels are treated channel by channel, where colour is left alone.
Paper: Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021, arXiv:2103.10158.
Helps: long training from scratch; the default where nobody wants to tune RandAugment.
Hurts: short training, small networks, classes told apart by colour or direction, tiny images (moved by up to 32 pixels).
Costs: loader time, about one operation per image.
"""

import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from trickbag.ground.operations import operated
from trickbag.trick import Stage, Transform, Trick

BINS = 31
_TORCHVISION = v2.TrivialAugmentWide(num_magnitude_bins=BINS)
OPERATIONS: tuple[str, ...] = tuple(_TORCHVISION._AUGMENTATION_SPACE)


def operate(image: Tensor, operation: str, m: int, sign: int) -> Tensor:
    """A uint8 image [C, H, W] after one of OPERATIONS at magnitude ``m`` in 0 .. 30; ``sign``, 1 or -1, where it has one.

    >>> operate(torch.tensor([[[10, 200]]], dtype=torch.uint8), "Posterize", 30, 1)
    tensor([[[  0, 192]]], dtype=torch.uint8)
    """
    return operated(_TORCHVISION, _TORCHVISION._AUGMENTATION_SPACE, BINS, image, operation, m, sign)


class TrivialAugment(Trick):
    """One random operation of random magnitude on each image."""

    stage = Stage.PIXEL
    slot = "policy"

    def augment(self) -> list[Transform]:
        """One operation, one magnitude and one sign per image."""

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            operation, m, sign = (int(torch.randint(high, (), generator=rng)) for high in (len(OPERATIONS), BINS, 2))
            return operate(image, OPERATIONS[operation], m, 2 * sign - 1)

        return [apply]
