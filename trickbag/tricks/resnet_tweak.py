"""ResNet tweaks: the variants B, C and D of a residual network, and the original A.

Formula: A, He et al. 2016: where a bottleneck halves the map, its first 1x1 convolution has the stride of 2. B: its 3x3 has
  it; timm builds ResNets so, and b changes nothing. C: B, and the 7x7 of the stem becomes three 3x3 of 32, 32 and 64 channels,
  the first with the stride. D: C, and a shortcut that halves the map takes the mean of 2 x 2 places before a 1x1 of stride 1.
  ResNet-50 then has 3.8, 4.1, 4.3 and 4.3 billion multiply-adds at 224 pixels. New layers have timm's names and initialisation.
Paper: He et al., CVPR 2019, arXiv:1812.01187, section 4 and figure 2; A: He et al., CVPR 2016, arXiv:1512.03385, table 1.
Helps: accuracy at nearly the same price; B, C and D are 0.5, 0.7 and 1.0 points above A in the paper's table 5.
Hurts: pretrained weights, which it would destroy and which are refused: timm has resnet50c and resnet50d with weights.
Costs: of a ResNet-50's multiply-adds, 6 % from A to B, 6 % from B to C, and none from C to D.
"""

from typing import Any, Literal

import timm
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from trickbag.ground.errors import UsageError
from trickbag.trick import Stage, Trick


def deep_stem(conv: nn.Conv2d, norm: type[nn.Module], act: type[nn.Module]) -> nn.Sequential:
    """Three 3x3 convolutions with the channels and the stride of one, and the norms and activations between them.

    >>> stem = deep_stem(nn.Conv2d(3, 64, 7, stride=2), nn.BatchNorm2d, nn.ReLU)
    >>> [layer.out_channels for layer in stem if isinstance(layer, nn.Conv2d)]
    [32, 32, 64]
    """
    layers: list[nn.Module] = []
    inside, half = conv.in_channels, conv.out_channels // 2
    for outside, stride in ((half, conv.stride[0]), (half, 1), (conv.out_channels, 1)):
        layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), norm(outside), act()]
        nn.init.kaiming_normal_(layers[-3].get_parameter("weight"), mode="fan_out", nonlinearity="relu")
        inside = outside
    return nn.Sequential(*layers[:-2])


class ResnetTweak(Trick):
    """Rebuild a ResNet as one of its variants."""

    stage = Stage.SHAPE  # before what draws the weights anew
    rebuilds = True
    neutral = {"variant": "b"}
    variant: Literal["a", "b", "c", "d"] = "d"
    """a: the original; b: as timm builds it; c: with three 3x3 in the stem; d: c with mean pooling in the shortcuts."""

    def model(self, model: Any) -> Any:
        """Change the layers. Raises UsageError for pretrained weights and for networks without the layers in question."""
        if self.variant == "b":
            return model
        net = model.net
        if not isinstance(net, ResNet):
            raise UsageError(
                f"{self} is for ResNets of timm, and {model.name} is not one. Remove it, or use one, for example resnet50."
            )
        if getattr(model, "pretrained", False):
            name = model.name.partition(".")[0]
            twin = f"{name}{self.variant}"
            other = f"The pretrained network with this tweak is {twin}." if timm.is_model_pretrained(twin) else "Leave it out."
            raise UsageError(f"{self} would discard pretrained weights of {name}. {other}")
        if self.variant == "a":
            self._strides(net)
        else:
            self._stem(net)
        if self.variant == "d":
            self._shortcuts(net)
        return model

    def _strides(self, net: ResNet) -> None:
        found = [m for m in net.modules() if isinstance(m, Bottleneck) and m.conv2.stride == (2, 2)]
        if not found:
            raise UsageError(f"{self}: no bottleneck of the network has a 3x3 convolution with a stride. Remove it.")
        for block in found:
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)

    def _stem(self, net: ResNet) -> None:
        if not isinstance(net.conv1, nn.Conv2d) or net.conv1.kernel_size != (7, 7):
            raise UsageError(f"{self}: the network has no 7x7 convolution in its stem to replace. Remove it.")
        net.conv1 = deep_stem(net.conv1, type(net.bn1), type(net.act1))

    def _shortcuts(self, net: ResNet) -> None:
        for block in net.modules():
            shortcut = getattr(block, "downsample", None)
            if shortcut is not None:
                conv, norm = shortcut
                halves = conv.stride == (2, 2)
                conv.stride = (1, 1)
                pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if halves else nn.Identity()
                block.downsample = nn.Sequential(pool, conv, norm)
