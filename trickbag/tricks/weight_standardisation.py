"""Weight standardisation: the weights of each filter act with a mean of 0 and a variance of 1.

Formula: w_i -> (w_i - mean(w_i)) / sqrt(var(w_i) + 1e-6) in the forward pass, i an output channel, in each convolution with a
  norm right after it, which takes out the scale. As timm's StdConv2d; weights keep their names and shapes.
Paper: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019, arXiv:1903.10520.
Helps: training from scratch with small batches and group norms, with batch norms a little; large batches and learning rates.
Hurts: pretrained weights, which learned without it and are refused: timm's resnetv2_50x1_bit and its kin have weights with it.
  Networks in which norms follow fewer than half of the convolutions, as ConvNeXt, are refused too.
Costs: one pass over the weights per forward pass.
"""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.modules.batchnorm import _NormBase

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
PLAIN = (nn.Conv2d, Conv2dSame)
EPS = 1e-6
"""Added to the variance."""


def standardised(weight: Tensor) -> Tensor:
    """The weights [O, ...] of filters, each with a mean of 0 and a variance of 1.

    >>> standardised(torch.tensor([[2.0, 4.0], [5.0, 5.0]])).round()
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    # Not by batch norm in training mode, as in timm: exported as ONNX, it loses its own statistics.
    variance, mean = torch.var_mean(weight, tuple(range(1, weight.ndim)), correction=0, keepdim=True)
    return (weight - mean) / (variance + EPS).sqrt()


class Standardised(nn.Conv2d):
    """A convolution with standardised weights, of the same parameters as ``conv``."""

    def __init__(self, conv: Any) -> None:
        shape = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
        super().__init__(*shape, bias=conv.bias is not None)
        self.weight, self.bias, self.same = conv.weight, conv.bias, isinstance(conv, Conv2dSame)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, h, w]."""
        if self.same:
            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return conv2d(x, standardised(self.weight), self.bias, self.stride, self.padding, self.dilation, self.groups)


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
            model.set_submodule(names[conv], Standardised(conv))
        return model
