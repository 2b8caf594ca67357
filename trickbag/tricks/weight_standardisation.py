"""Weight standardisation: the weights of each filter act with a mean of 0 and a variance of 1.

Formula: w_i -> (w_i - mean(w_i)) / sqrt(var(w_i) + 1e-6) in the forward pass, i an output channel, in each convolution with a
  norm right after it, which takes out the scale. This is timm's StdConv2d; weights keep their names and shapes.
Paper: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019, arXiv:1903.10520.
Helps: training from scratch with small batches and group norms, with batch norms a little; large batches and learning rates.
Hurts: pretrained weights, which learned without it and are refused: timm's resnetv2_50x1_bit and its kin have weights with it.
  Networks in which norms follow fewer than half of the convolutions, as ConvNeXt, are refused too.
Costs: one pass over the weights per forward pass.
"""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
PLAIN = (nn.Conv2d, Conv2dSame)


def standardised(conv: Any) -> nn.Conv2d:
    """The same convolution, with the same parameters, of weights that it standardises.

    >>> conv = nn.Conv2d(1, 1, (1, 2), bias=False)
    >>> nn.init.constant_(conv.weight[..., 1], 9.0).requires_grad
    True
    >>> standardised(conv)(torch.tensor([[[[-1.0, 1.0]]]])).round().abs().item()
    2.0
    """
    kind: Any = StdConv2dSame if isinstance(conv, Conv2dSame) else StdConv2d
    padding = "same" if kind is StdConv2dSame else conv.padding
    shape = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, conv.dilation, conv.groups
    made: nn.Conv2d = kind(*shape, bias=conv.bias is not None)
    made.weight, made.bias = conv.weight, conv.bias
    return made


@torch.no_grad()
def before_norms(model: nn.Module, x: Tensor) -> list[nn.Module]:
    """The convolutions of a network whose output is the input of a norm, by one pass of images [B, C, H, W]."""
    said: dict[int, tuple[nn.Module, Tensor]] = {}
    found: list[nn.Module] = []

    def after(conv: nn.Module, _: Any, out: Tensor) -> None:
        said[id(out)] = conv, out  # the output is kept, or another tensor could get its id

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.extend(conv for conv, out in [said.get(id(args[0]), (None, None))] if conv is not None and out is args[0])

    hooks = [m.register_forward_hook(after) for m in model.modules() if type(m) in PLAIN]
    hooks += [m.register_forward_pre_hook(before) for m in model.modules() if isinstance(m, NORMS)]
    training = model.training
    try:
        model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found


class WeightStandardisation(Trick):
    """Standardise the weights of convolutions."""

    stage = Stage.SHAPE  # before what draws the weights anew
    rebuilds = True

    def model(self, model: Any) -> Any:
        """Replace the convolutions. Raises UsageError for pretrained weights and for networks with too few before norms."""
        if getattr(model, "pretrained", False):
            raise UsageError(
                "weight_standardisation would invalidate pretrained weights. Remove it, or choose a network of timm's that was "
                "trained with it, for example resnetv2_50x1_bit."
            )
        names = {m: name for name, m in model.named_modules() if type(m) in PLAIN and m.weight[0].numel() > 1}
        found = [conv for conv in before_norms(model, torch.zeros(1, *model.shape)) if conv in names]
        if 2 * len(found) < len(names) or not found:
            raise UsageError(
                "weight_standardisation wants a norm right after most convolutions, and this network has too few. Remove it, "
                "or use a ResNet."
            )
        for conv in found:
            model.set_submodule(names[conv], standardised(conv))
        return model
