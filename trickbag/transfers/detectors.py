"""Detectors: torchvision's Faster R-CNN and FCOS, on a pyramid of the body's maps.

Images come resized, padded and normalised, so that torchvision's own transform is left out; all else is its own.
Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497. Tian et al., "FCOS", ICCV 2019, arXiv:1904.01355.
Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from trickbag.transfers.body import Body, Downstream

FINEST, COARSEST = 8, 64
"""Strides of a pyramid: the body's maps from the first on, and coarser ones made of its last."""
WIDTH, HIDDEN = 128, 256
"""Channels of a pyramid, and of the layers that look into a box."""
SCORE, MOST = 0.01, 100
"""The least score of a box that is found, and how many an image has at most."""


class Target(NamedTuple):
    """The boxes of an image."""

    xyxy: Tensor
    """[n, 4] float32: left, top, right, bottom in pixels of the canvas."""
    labels: Tensor
    """[n] int64, 0 to K - 1."""


class Pyramid(nn.Module):
    """[B, C, H, W] -> a map [B, WIDTH, H / stride, W / stride] of each of ``strides``."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body, self.out_channels = body, WIDTH
        self.first = next((i for i, stride in enumerate(body.strides) if stride >= FINEST), len(body.strides) - 1)
        self.strides = list(body.strides[self.first :])
        while self.strides[-1] < COARSEST:
            self.strides.append(2 * self.strides[-1])
        coarser = Coarser(len(self.strides) - len(body.strides[self.first :]))
        self.fpn = FeaturePyramidNetwork(list(body.channels[self.first :]), WIDTH, coarser)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The maps, finest first, by their places; fp32, as torchvision takes the type of all boxes from them."""
        maps = self.body(x)[self.first :]
        found: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        return OrderedDict((str(i), m.float()) for i, m in enumerate(found.values()))


class Coarser(ExtraFPNBlock):  # type: ignore[misc]
    """``count`` further maps, each of half the size of that before, by strided convolutions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(WIDTH, WIDTH, 3, 2, 1) for _ in range(count)]
        for conv in convs:
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.constant_(conv.bias, 0)  # type: ignore[arg-type]
        self.convs = nn.ModuleList(convs)

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """The pyramid's maps and names, with the further ones."""
        for conv in self.convs:
            results.append(conv(results[-1].relu()))
            names.append(str(len(names)))
        return results, names


class Ready(nn.Module):
    """In the place of torchvision's transform: images [B, C, H, W] of one size go in as they are."""

    def forward(self, x: Tensor, targets: Any) -> tuple[ImageList, Any]:
        """The images with their sizes, and their targets."""
        return ImageList(x, [(x.shape[-2], x.shape[-1])] * len(x)), targets

    def postprocess(self, found: Any, *sizes: Any) -> Any:
        """What was found, as it is."""
        return found


def _in_full(_: nn.Module, __: Any, found: Any) -> Any:
    """What a head says in fp32, whatever the arithmetic inside: half of a pixel is lost otherwise, and with it thin boxes."""
    if isinstance(found, dict):
        return {name: value.float() for name, value in found.items()}
    return tuple([v.float() for v in value] if isinstance(value, list) else value.float() for value in found)


class Detector(Downstream):
    """One of torchvision's detectors; ``first`` is what it calls our class 0, and ``heads`` say where boxes are."""

    def __init__(self, core: nn.Module, first: int, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        for head in heads:
            head.register_forward_hook(_in_full)
        self.core: Any = core
        self.core.transform = Ready()
        self.first = first

    @property
    def body(self) -> Body:  # type: ignore[override]
        """The network below the pyramid."""
        body: Body = self.core.backbone.body
        return body

    @property
    def classifier(self) -> nn.Module:  # type: ignore[override]
        """The pyramid and what looks at it."""
        above = [module for name, module in self.core.named_children() if name != "backbone"]
        return nn.ModuleList([self.core.backbone.fpn, *above])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """[B, C, H, W] -> the maps that boxes are looked for in."""
        maps: OrderedDict[str, Tensor] = self.core.backbone(x)
        return maps

    def loss(self, x: Tensor, y: Sequence[Target]) -> Tensor:
        """[B, C, H, W] normalised and the boxes of each -> the sum of the parts of the loss, each a mean over the batch.

        In training mode. What is drawn comes from torch's global generator.
        """
        parts = self.core(x, [{"boxes": target.xyxy, "labels": target.labels + self.first} for target in y])
        return torch.stack(list(parts.values())).sum()

    def predict(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """[B, C, H, W] normalised -> of each image boxes [n, 4] in pixels, labels [n] from 0, scores [n] in 0..1, best first.

        In evaluation mode.
        """
        return [(found["boxes"], found["labels"] - self.first, found["scores"]) for found in self.core(x)]


def faster_rcnn(body: Body, classes: int) -> Detector:
    """Two stages: a network that proposes boxes, and one that looks into each.

    Anchors are 3 and 4.2 strides wide in three shapes; as images have 256 to 640 pixels here and not 800, a box is looked into
    at a map one finer than in the paper, and 128 boxes of an image are trained on (as by Ren et al.), not 512.
    """
    pyramid = Pyramid(body)
    sizes = tuple((3 * stride, round(3 * stride * 2**0.5)) for stride in pyramid.strides)
    pool = MultiScaleRoIAlign([str(i) for i in range(len(sizes))], 7, 2, canonical_scale=112)
    core = detection.FasterRCNN(
        pyramid,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_pre_nms_top_n_train=500,
        rpn_pre_nms_top_n_test=500,
        rpn_post_nms_top_n_train=500,
        rpn_post_nms_top_n_test=300,
        box_roi_pool=pool,
        box_head=TwoMLPHead(WIDTH * 7**2, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, classes + 1),
        box_score_thresh=SCORE,
        box_detections_per_img=MOST,
        box_batch_size_per_image=128,
    )
    return Detector(core, first=1, heads=[core.rpn.head, core.roi_heads.box_predictor])


def fcos(body: Body, classes: int) -> Detector:
    """One stage without anchors: each place of a map says what it lies in and how far the sides are."""
    pyramid = Pyramid(body)
    anchors = AnchorGenerator(tuple((stride,) for stride in pyramid.strides), ((1.0,),) * len(pyramid.strides))
    core = detection.FCOS(pyramid, classes, anchor_generator=anchors, score_thresh=SCORE, detections_per_img=MOST)
    return Detector(core, first=0, heads=[core.head])
