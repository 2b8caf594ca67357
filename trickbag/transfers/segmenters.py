"""Segmenters: fully convolutional heads that say the class of every pixel.

Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, arXiv:1411.4038.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models.segmentation.fcn import FCNHead

from trickbag.transfers.body import Body, Downstream

IGNORED = 255
"""The value of pixels whose class does not count."""
WIDTH, LEAST = 128, 32
"""Channels of a U-Net's first step, halved with each further one, down to the least."""


class Segmenter(Downstream):
    """A head that turns the maps of a body into scores [B, K, h, w]."""

    def __init__(self, body: Body, head: nn.Module) -> None:
        super().__init__()
        self.body, self.classifier = body, head

    def forward(self, x: Tensor) -> Tensor:
        """The same as ``predict``."""
        return self.predict(x)

    def predict(self, x: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> logits [B, K, H, W] of each pixel."""
        scores = self.classifier(self.body(x)).float()
        return interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, C, H, W] and classes [B, H, W], 255 where none counts -> the mean cross-entropy of the pixels that count."""
        total = cross_entropy(self.predict(x), y, ignore_index=IGNORED, reduction="sum")
        return total / (y != IGNORED).sum().clamp_min(1)


class FCN8(nn.Module):
    """FCN-8s: scores of the coarsest three maps, each added to the enlarged sum of the coarser ones.

    The coarsest is looked at by two layers (torchvision's FCNHead), the others by one, whose scores are 0 at first.
    """

    def __init__(self, body: Body, classes: int) -> None:
        super().__init__()
        self.top = FCNHead(body.channels[-1], classes)
        self.skips = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in reversed(body.channels[-3:-1]))
        for parameter in self.skips.parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first -> scores [B, K, h, w] at the third coarsest."""
        scores: Tensor = self.top(maps[-1])
        for skip, found in zip(self.skips, reversed(maps[-3:-1]), strict=True):
            scores = skip(found) + interpolate(scores, size=found.shape[-2:], mode="bilinear", align_corners=False)
        return scores


class UNet(nn.Module):
    """U-Net's decoder: from the coarsest map up, each map enlarged, joined with the next finer one and convolved twice.

    Ronneberger et al., "U-Net", MICCAI 2015, arXiv:1505.04597; with bilinear enlarging and batch norms.
    """

    def __init__(self, body: Body, classes: int) -> None:
        super().__init__()
        finer = list(reversed(body.channels[:-1]))
        widths = [body.channels[-1], *(max(WIDTH >> i, LEAST) for i in range(len(finer)))]
        self.steps = nn.ModuleList(
            nn.Sequential(*_conv(below + skip, width), *_conv(width, width))
            for (below, width), skip in zip(pairwise(widths), finer, strict=True)
        )
        self.top = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first -> scores [B, K, h, w] at the finest."""
        x = maps[-1]
        for step, found in zip(self.steps, reversed(maps[:-1]), strict=True):
            x = step(torch.cat([interpolate(x, size=found.shape[-2:], mode="bilinear", align_corners=False), found], 1))
        scores: Tensor = self.top(x)
        return scores


def _conv(inside: int, outside: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()


def fcn(body: Body, classes: int) -> Segmenter:
    """The paper's."""
    return Segmenter(body, FCN8(body, classes))


def unet(body: Body, classes: int) -> Segmenter:
    """A decoder that goes back to the finest map."""
    return Segmenter(body, UNet(body, classes))
