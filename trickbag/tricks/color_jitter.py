"""Colour jitter: brightness, saturation and hue scaled by random factors.

Formula: factors b, s, h ~ U[1 - width, 1 + width]; x <- b x, then x <- s x + (1 - s) grey(x), then the hue moves by
  (h - 1) / 6 turns. A hue is an angle with an arbitrary zero: scaled literally, red just below a full turn would become
  blue while red just above zero stays red. So the hue is shifted, for all colours by as much as the literal factor moves
  yellow, which lies at 1/6 turn: 0.4 is up to 24 degrees. torchvision's ``hue`` counts whole turns: hue=0.4 here is
  ``ColorJitter(hue=0.4 / 6)`` there.
Paper: He et al., CVPR 2019, arXiv:1812.01187, section 2.1 (factors from [0.6, 1.4]); Howard, arXiv:1312.5402.
Helps: changing light and cameras, training from scratch for long.
Hurts: classes told apart by colour (food, birds, ripeness), short fine-tuning.
Costs: loader time, most of it for the hue; set hue=0 where the loader is the limit.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from trickbag.trick import Stage, Transform, Trick


def jitter(image: Tensor, brightness: float, saturation: float, hue: float) -> Tensor:
    """A uint8 image [C, H, W] with brightness, saturation and hue multiplied by factors, as in the formula; 1 changes nothing.

    Brightness acts on any number of channels; saturation and hue are left alone unless there are three.

    >>> jitter(torch.tensor([100, 50, 50], dtype=torch.uint8).view(3, 1, 1), 2.0, 1.0, 1.0).flatten().tolist()
    [200, 100, 100]
    """
    if brightness != 1:
        image = functional.adjust_brightness(image.unsqueeze(1), brightness).squeeze(1)
    if saturation != 1 and len(image) == 3:
        image = functional.adjust_saturation(image, saturation)
    if hue != 1 and len(image) == 3:
        image = functional.adjust_hue(image, (hue - 1) / 6)
    return image


Width = Annotated[float, Field(ge=0, le=1)]


class ColorJitter(Trick):
    """Scale brightness, saturation and hue; images without three channels get brightness alone."""

    stage = Stage.PIXEL
    neutral = {"hue": 0.0, "saturation": 0.0, "brightness": 0.0}
    hue: Width = 0.4
    """Half the width of the hue factor's range around 1, in [0, 1]; 1 is up to 60 degrees."""
    saturation: Width = 0.4
    """Half the width of the saturation factor's range around 1, in [0, 1]."""
    brightness: Width = 0.4
    """Half the width of the brightness factor's range around 1, in [0, 1]."""

    def augment(self) -> list[Transform]:
        """Three factors per image."""
        widths = torch.tensor([self.brightness, self.saturation, self.hue], dtype=torch.float64)

        def apply(image: Tensor, _size: int, rng: Generator) -> Tensor:
            return jitter(image, *(1 + widths * (2 * torch.rand(3, generator=rng, dtype=torch.float64) - 1)).tolist())

        return [apply]
