"""AutoAugment: one of 25 learned pairs of operations per image.

Formula: a pair drawn uniformly from the policy's 25; each of its two operations acts with the probability and the magnitude
  that the policy gives it, its sign, if it has one, drawn evenly. Policies, operations and magnitudes are those of
  ``torchvision.transforms.v2.AutoAugment``, nearest pixel and black corners included; only the draws are keyed.
  Images without three channels are treated channel by channel, where colour is left alone.
Paper: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019, arXiv:1805.09501.
Helps: long training from scratch on data like that of the policy: photographs, small photographs, digits.
Hurts: short training, small networks, other data: RandAugment and TrivialAugment are as good and were not fitted to a data set.
Costs: loader time, about one operation per image.
"""

from typing import Literal

import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from trickbag.trick import Stage, Transform, Trick

BINS = 10
POLICIES = {policy.value: v2.AutoAugment(policy) for policy in v2.AutoAugmentPolicy}


def operate(image: Tensor, operation: str, m: int | None, sign: int) -> Tensor:
    """A uint8 image [C, H, W] after an operation at magnitude ``m`` in 0 .. 9 or None; ``sign``, 1 or -1, where it has one.

    >>> operate(torch.tensor([[[10, 200]]], dtype=torch.uint8), "Invert", None, 1)
    tensor([[[245,  55]]], dtype=torch.uint8)
    """
    theirs = POLICIES["imagenet"]
    magnitudes, signed = theirs._AUGMENTATION_SPACE[operation]
    bins = magnitudes(BINS, image.shape[-2], image.shape[-1])
    magnitude = 0.0 if bins is None else float(bins[m]) * (sign if signed else 1)
    by_channel = len(image) != 3
    given = image.unsqueeze(1) if by_channel else image
    made: Tensor = theirs._apply_image_or_video_transform(
        given, operation, magnitude, interpolation=theirs.interpolation, fill=theirs._fill
    )
    return made.squeeze(1) if by_channel else made


class AutoAugment(Trick):
    """A random pair of a learned policy on each image."""

    stage = Stage.PIXEL
    slot = "policy"
    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """The data set for which the pairs were learned."""

    def augment(self) -> list[Transform]:
        """One pair, two chances and two signs per image."""
        pairs = POLICIES[self.policy]._policies

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            pair = pairs[int(torch.randint(len(pairs), (), generator=rng))]
            chances = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
            signs = torch.randint(2, (2,), generator=rng).tolist()
            for (operation, p, m), chance, sign in zip(pair, chances, signs, strict=True):
                if chance < p:
                    image = operate(image, operation, m, 2 * sign - 1)
            return image

        return [apply]
