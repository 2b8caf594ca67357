"""What of an image is shown, and where its boxes and regions then lie: all go through the same steps of torchvision."""

from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from trickbag.engine.cutting import flipped
from trickbag.statistics.variance import Floats, Ints
from trickbag.transfers.body import CANVAS

T = TypeVar("T", bound=Tensor)
LEAST = 2.0
"""Pixels of a side: of a box that is cut to less, nothing is left to be found."""


class Frame(NamedTuple):
    """What of an image is shown, and how large."""

    window: tuple[float, float, float, float]
    """Top, left, height and width, in shares of the image."""
    mirrored: int
    """As ``Trick.mirror`` says."""
    height: int
    width: int


WHOLE = (0.0, 0.0, 1.0, 1.0)


def canvas(sizes: Ints, size: int) -> tuple[int, int]:
    """Height and width [multiples of CANVAS] that hold every image [N, 2] whose longer side becomes ``size`` pixels.

    >>> canvas(np.array([[480, 640], [640, 480]]), 320), canvas(np.array([[360, 480]]), 320)
    ((320, 320), (256, 320))
    """
    most = np.array([fit(height, width, size) for height, width in np.unique(sizes, axis=0).tolist()]).max(0)
    height, width = (-(-side // CANVAS) * CANVAS for side in most.tolist())
    return height, width


def fit(height: int, width: int, size: int) -> tuple[int, int]:
    """The height and width of an image whose longer side becomes ``size`` pixels.

    >>> fit(480, 640, 320)
    (240, 320)
    """
    scale = size / max(height, width)
    return max(1, round(scale * height)), max(1, round(scale * width))


def shown(thing: T, frame: Frame) -> T:
    """An image, its boxes (``tv_tensors.BoundingBoxes``) or its regions (``tv_tensors.Mask``) as a frame shows it."""
    height, width = F.get_size(thing)
    top, left = (min(round(share * side), side - 1) for share, side in zip(frame.window[:2], (height, width), strict=True))
    rows, columns = (
        max(1, min(round(share * side), side - at))
        for share, side, at in zip(frame.window[2:], (height, width), (top, left), strict=True)
    )
    cut = F.resized_crop(thing, top, left, rows, columns, [frame.height, frame.width], antialias=True)
    return flipped(cast(T, cut), frame.mirrored)


def boxes_shown(xyxy: Floats, labels: Ints, size: tuple[int, int], frame: Frame) -> Tensor:
    """Boxes [n, 4] and labels [n] of an image of a size -> those that a frame shows [m, 5], float32, the label last.

    >>> frame = Frame((0.0, 0.5, 1.0, 0.5), 0, 40, 40)
    >>> boxes_shown(np.array([[5.0, 2, 15, 6], [0, 0, 4, 4]]), np.array([1, 0]), (20, 20), frame).tolist()
    [[0.0, 4.0, 20.0, 12.0, 1.0]]
    """
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(xyxy.reshape(-1, 4)), format="XYXY", canvas_size=size)
    moved = F.clamp_bounding_boxes(shown(boxes, frame))
    kept, held = F.sanitize_bounding_boxes(moved, min_size=LEAST)
    return torch.cat([kept.as_subclass(Tensor), torch.from_numpy(labels)[held, None].double()], 1).float()


def padded(image: T, size: tuple[int, int], fill: float | list[float]) -> T:
    """An image or a mask with ``fill`` to its right and below, up to a height and a width."""
    height, width = F.get_size(image)
    return cast(T, F.pad(image, [0, 0, size[1] - width, size[0] - height], fill=fill))
