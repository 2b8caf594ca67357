"""Blur pooling: maps are smoothed before they are halved, so that a shifted image gives nearly the same answer.

Formula: a convolution of stride 2 within a block becomes one of stride 1, its norm, its activation, then every second place of
  the map smoothed by the binomial [1 2 1] x [1 2 1] / 16; a max-pooling of stride 2 likewise. Smoothing is timm's BlurPool2d,
  placed as timm's networks do that are built with aa_layer: first convolutions and shortcuts keep their strides.
Paper: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486, section 3.
Helps: stability of the answer under small shifts, and with it accuracy.
Hurts: speed; pretrained weights, which learned from other maps and are refused: timm has resnetblur50 with weights.
Costs: convolutions that had a stride of 2 see four times as many places: 25 % of a ResNet-50's multiply-adds, 29 % of an 18's.
"""

from typing import Any

import timm
import torch
from timm.layers.blur_pool import BlurPool2d
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Fit, Stage, Trick


def strided(block: nn.Module) -> nn.Conv2d | None:
    """The convolution of stride 2 in a block with a place ``aa`` for smoothing; None where either is missing.

    >>> strided(nn.Conv2d(1, 1, 3, stride=2)) is None
    True
    """
    found = [part for part in block.children() if isinstance(part, nn.Conv2d) and part.stride == (2, 2)]
    return found[0] if found and isinstance(getattr(block, "aa", None), nn.Identity) else None


class BlurPool(Trick):
    """Smooth maps where they are halved."""

    stage = Stage.SHAPE  # before what draws the weights anew
    rebuilds = True

    def model(self, model: Any) -> Any:
        """Smooth in each block that halves a map. Raises UsageError for pretrained weights and for networks without such."""
        if getattr(model, "pretrained", False):
            name = model.name.partition(".")[0]
            twin = name.replace("resnet", "resnetblur", 1)
            found = twin != name and timm.is_model_pretrained(twin)
            other = f"A pretrained network that blurs is {twin}." if found else "Leave it out."
            raise UsageError(f"{self} would invalidate the pretrained weights of {name}. {other}")
        blocks = [(block, conv) for block in model.modules() if (conv := strided(block))]
        if not blocks:
            raise UsageError(f"{self}: no block of the network has a stride that timm can smooth. Remove it, or use a ResNet.")
        for block, conv in blocks:
            conv.stride = (1, 1)
            block.aa = BlurPool2d()
        pool = getattr(model.net, "maxpool", None)
        if isinstance(pool, nn.MaxPool2d):
            pool.stride = 1
            model.net.maxpool = nn.Sequential(pool, BlurPool2d())
        return model

    def setup(self, model: Any, fit: Fit) -> None:
        """Raise UsageError where a map has a single place, which has no neighbours to smooth with."""
        size = fit.facts.size
        image = torch.zeros(1, fit.facts.channels, size, size, device=next(model.parameters()).device)
        try:
            with torch.no_grad():
                model.eval()(image)
        except RuntimeError as error:
            raise UsageError(
                f"{self}: images of {size} pixels are too small for this network ({error}). Use larger images."
            ) from None
