"""Squeeze-and-excitation: each residual branch weighs its channels by what it saw in the whole image.

Formula: x -> x * sigmoid(W2 relu(W1 mean(x) + b1) + b2) at the end of each residual branch, the mean over places; W1 leaves
  C / ratio of C channels, at least 1. The gate is timm's SEModule, which timm's seresnets round to multiples of 8 channels.
Paper: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507, section 3.
Helps: accuracy of ResNets of any depth, for few multiply-adds.
Hurts: speed more than the multiply-adds tell; pretrained weights, whose branches a gate would halve at the start and which are
  refused: timm has seresnet50 with weights. Networks other than ResNets are refused too: many have gates already.
Costs: parameters: 10 % more for a ResNet-50 at ratio 16; multiply-adds: below 1 %.
"""

from typing import Annotated, Any

import timm
from pydantic import Field
from timm.layers.squeeze_excite import SEModule
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick


def ends_with_gate(block: nn.Module) -> bool:
    """Whether a module is a residual block with a free place ``se`` after its last convolution, as timm's ResNets have them.

    >>> ends_with_gate(nn.Linear(2, 2))
    False
    """
    free = hasattr(block, "se") and (block.se is None or isinstance(block.se, nn.Identity))
    return free and isinstance(last_conv(block), nn.Conv2d)


def last_conv(block: nn.Module) -> Any:
    """The last convolution of a block's branch; None where it has none by these names."""
    return getattr(block, "conv3", getattr(block, "conv2", None))


class SqueezeExcite(Trick):
    """Put a gate at the end of each residual branch."""

    stage = Stage.SHAPE  # before what draws the weights anew
    rebuilds = True
    ratio: Annotated[int, Field(ge=1, le=1024)] = 16
    """How many channels share one of the gate's inner channels."""

    def model(self, model: Any) -> Any:
        """Put the gates in. Raises UsageError for pretrained weights and for networks without a place for them."""
        if getattr(model, "pretrained", False):
            name = model.name.partition(".")[0]
            other = (
                f"A pretrained network with gates is se{name}." if timm.is_model_pretrained(f"se{name}") else "Leave it out."
            )
            raise UsageError(f"{self} would invalidate the pretrained weights of {name}. {other}")
        blocks = [block for block in model.modules() if ends_with_gate(block)]
        if not blocks:
            raise UsageError(f"{self}: the network has no residual blocks without gates. Remove it, or use a ResNet.")
        for block in blocks:
            channels = last_conv(block).out_channels
            block.se = SEModule(channels, rd_channels=max(1, channels // self.ratio))
        return model
