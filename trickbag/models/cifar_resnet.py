"""Residual networks for images of 32 pixels: three stages of 16, 32 and 64 channels, 6n + 2 layers.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2, arXiv:1512.03385. Shortcuts are those of
option A: the identity, subsampled and padded with zero channels, without parameters. Importing this module makes the
networks known to timm, so that they are created, listed and loaded as any other timm model.
"""

from collections.abc import Sequence
from typing import Any, cast

from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn.functional import pad, relu

WIDTHS = (16, 32, 64)


class Shortcut(nn.Module):
    """Every ``stride``-th place, between ``padding`` channels of zeros; [B, C, H, W] -> [B, C + 2 padding, h, w]."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """The map without learned layers."""
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters; [B, inside, H, W] -> [B, outside, H / stride, W / stride].

    ``aa``, ``se`` and ``drop_path`` do nothing: they are the places for layers that timm's blocks have under these names.
    """

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.aa, self.se, self.drop_path = nn.Identity(), nn.Identity(), nn.Identity()
        self.shortcut = Shortcut(stride, (outside - inside) // 2)

    def zero_init_last(self) -> None:
        """Make the block the identity at the start."""
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, outside, H / stride, W / stride]."""
        branch = self.aa(relu(self.bn1(self.conv1(x))))
        shortcut: Tensor = self.shortcut(x)
        return relu(self.drop_path(self.se(self.bn2(self.conv2(branch)))) + shortcut)


class CifarResNet(nn.Module):
    """A network of 6 * blocks + 2 layers, with the methods that timm's classification models have.

    ``in_chans`` channels of the image; ``num_classes`` 0 leaves the classifier out; ``drop_rate`` of the features, 0..1.
    """

    def __init__(
        self, blocks: int, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, WIDTHS[-1]
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inside = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, 1):
            strides = [1 if stage == 1 else 2] + [1] * (blocks - 1)
            layers = [BasicBlock(inside if i == 0 else width, width, stride) for i, stride in enumerate(strides)]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
            inside = width
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Depths of layers in timm's form: the stem, then stages (coarse) or blocks."""
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a fresh classifier; with 0 classes, the identity."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(
                pool_type="fast" if global_pool == "avg" else global_pool, flatten=bool(global_pool)
            )
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 64, H / 4, W / 4]."""
        return self.forward_intermediates(x)[-1]

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int] | None = None, output_fmt: str = "NCHW", intermediates_only: bool = True
    ) -> list[Tensor]:
        """[B, C, H, W] -> the maps of strides 1, 2 and 4, or those at ``indices``; as timm's networks do."""
        x, maps = relu(self.bn1(self.conv1(x))), []
        for stage in range(len(WIDTHS)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            maps.append(x)
        return maps if indices is None else [maps[index] for index in indices]

    def prune_intermediate_layers(self, indices: Sequence[int], prune_norm: bool = False) -> list[int]:
        """Leave out pooling and classifier; as timm's networks do."""
        self.reset_classifier(0, "")
        return list(indices)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """[B, 64, h, w] -> [B, K], or the features [B, 64] that the classifier sees."""
        x = self.drop(self.global_pool(x))
        return x if pre_logits else cast(Tensor, self.fc(x))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]."""
        return self.forward_head(self.forward_features(x))


DEPTHS = (8, 20, 32, 56)
default_cfgs = generate_default_cfgs(
    {
        f"cifar_resnet{depth}": {
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "pool_size": (8, 8),
            "crop_pct": 1.0,
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2470, 0.2435, 0.2616),
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for depth in DEPTHS
    }
)


def _build(depth: int, pretrained: bool, **options: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, f"cifar_resnet{depth}", pretrained, blocks=(depth - 2) // 6, **options)


@register_model
def cifar_resnet8(pretrained: bool = False, **options: Any) -> CifarResNet:
    """8 layers, 0.08 million parameters: for trials."""
    return _build(8, pretrained, **options)


@register_model
def cifar_resnet20(pretrained: bool = False, **options: Any) -> CifarResNet:
    """20 layers, 0.27 million parameters."""
    return _build(20, pretrained, **options)


@register_model
def cifar_resnet32(pretrained: bool = False, **options: Any) -> CifarResNet:
    """32 layers, 0.46 million parameters."""
    return _build(32, pretrained, **options)


@register_model
def cifar_resnet56(pretrained: bool = False, **options: Any) -> CifarResNet:
    """56 layers, 0.85 million parameters."""
    return _build(56, pretrained, **options)
