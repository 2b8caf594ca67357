"""The operations of torchvision's policies, one at a time, on images of any number of channels."""

from typing import Any

from torch import Tensor


def operated(policy: Any, space: dict[str, Any], bins: int, image: Tensor, operation: str, m: int, sign: int) -> Tensor:
    """A uint8 image [C, H, W] after an operation of ``space``, a table of a torchvision ``policy``, at the magnitude ``m`` of
    ``bins``; ``sign``, 1 or -1, where it has one.

    >>> import torch
    >>> from torchvision.transforms import v2
    >>> policy = v2.RandAugment()
    >>> operated(policy, policy._AUGMENTATION_SPACE, 31, torch.tensor([[[10, 200]]], dtype=torch.uint8), "Solarize", 15, 1)
    tensor([[[10,  55]]], dtype=torch.uint8)
    """
    magnitudes, signed = space[operation]
    steps = magnitudes(bins, image.shape[-2], image.shape[-1])
    magnitude = 0.0 if steps is None else float(steps[m]) * (sign if signed else 1)
    by_channel = len(image) != 3
    given = image.unsqueeze(1) if by_channel else image
    made: Tensor = policy._apply_image_or_video_transform(
        given, operation, magnitude, interpolation=policy.interpolation, fill=policy._fill
    )
    return made.squeeze(1) if by_channel else made
