"""Cutting: from kept pixels to the squares that a network sees, an image at a time, or a batch at once in a GPU's memory."""

from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from trickbag.engine.pixels import Cache, Pixels
from trickbag.trick import LEFT_RIGHT, UPSIDE_DOWN, View

T = TypeVar("T", bound=Tensor)
RIBBON = 4
"""An image is judged by its middle, at most so many times as long as wide: a resized ribbon could fill the memory."""
SHARE = 0.1
"""Of a GPU's memory that images may take; the rest is for training, whose parts of a batch were chosen without them."""


def cut(image: Tensor, view: View) -> Tensor:
    """An image [C, H, W] resized to the view's shorter side, then its central square [C, crop, crop].

    >>> cut(torch.zeros(3, 40, 60, dtype=torch.uint8), View(36, 32)).shape
    torch.Size([3, 32, 32])
    """
    height, width = image.shape[-2:]
    if max(height, width) > RIBBON * min(height, width):
        image = F.center_crop(image, [min(height, RIBBON * width), min(width, RIBBON * height)])
    if min(image.shape[-2:]) != view.resize:
        image = F.resize(image, [view.resize], antialias=True)
    return image if image.shape[-2:] == (view.crop, view.crop) else F.center_crop(image, [view.crop, view.crop])


def flipped(thing: T, mirrored: int) -> T:
    """An image, or boxes or regions as torchvision has them, mirrored as ``Trick.mirror`` says.

    >>> flipped(torch.tensor([[[1, 2], [3, 4]]]), LEFT_RIGHT + UPSIDE_DOWN)
    tensor([[[4, 3],
             [2, 1]]])
    """
    thing = cast(T, F.horizontal_flip(thing)) if mirrored & LEFT_RIGHT else thing
    return cast(T, F.vertical_flip(thing)) if mirrored & UPSIDE_DOWN else thing


def framed(image: Tensor, window: Tensor | None, mirrored: int, size: int) -> Tensor:
    """An image [C, H, W], of which a window (top, left, height, width) is resized to [C, size, size], where there is one."""
    if window is not None:
        image = F.resized_crop(image, *window.tolist(), size=[size, size], antialias=True)
    return flipped(image, mirrored)


class Cuts(NamedTuple):
    """How the images of a batch become squares; all [B, 2], vertical and horizontal, whole pixels."""

    corner: Tensor
    """Where the part begins that is used."""
    part: Tensor
    """Its height and width."""
    resized: Tensor
    """What they become."""
    offset: Tensor
    """Where the square begins in that."""


def cuts_of(sizes: Tensor, view: View, mirrored: Tensor | None = None) -> Cuts:
    """What ``cut`` does to images of these heights and widths [B, 2], ``mirrored`` [B] before, where they are."""
    shorter = sizes.amin(1, keepdim=True)
    part = sizes.minimum(RIBBON * shorter)
    resized = (view.resize * part.double() / shorter).long()
    square = torch.full_like(resized, view.crop)
    return Cuts(_middle(sizes, part, mirrored), part, resized, _middle(resized, square, mirrored))


def _middle(outer: Tensor, inner: Tensor, mirrored: Tensor | None) -> Tensor:
    """Where the middle begins; where it lies half a pixel off, the mirror image's lies off to the other side."""
    begin = ((outer - inner) / 2).round().long()
    if mirrored is not None:
        turned = torch.stack([mirrored & UPSIDE_DOWN, mirrored & LEFT_RIGHT], 1) > 0
        begin = torch.where(turned, outer - inner - begin, begin)
    return begin


def cuts_to(windows: Tensor, size: int) -> Cuts:
    """What ``framed`` does with windows [B, 4]."""
    corner, part = windows[:, :2], windows[:, 2:]
    return Cuts(corner, part, torch.full_like(part, size), torch.zeros_like(part))


def taps(part: Tensor, resized: Tensor, offset: Tensor, size: int, most: int) -> Tensor:
    """The weights [B, size, most] with which pixels of a part are summed along an axis: bilinear, with antialiasing.

    Arguments as in ``Cuts``, of one axis [B]; pixels from ``part`` on have none.

    >>> taps(torch.tensor([2]), torch.tensor([4]), torch.tensor([1]), 2, 3)
    tensor([[[0.7500, 0.2500, 0.0000],
             [0.2500, 0.7500, 0.0000]]])
    """
    scale = (part / resized)[:, None]
    centre = (torch.arange(size, device=part.device) + offset[:, None] + 0.5) * scale
    place = torch.arange(most, device=part.device)
    weights = (1 - (place + 0.5 - centre[..., None]).abs() / scale.clamp_min(1)[..., None]).clamp_min(0)
    weights = weights * (place < part[:, None])[:, None]
    return weights / weights.sum(2, keepdim=True)


class Resident:
    """All kept pixels of a data set in a device's memory."""

    def __init__(self, cache: Cache, device: torch.device) -> None:
        self.bytes, self.device = cache.joined().to(device), device
        self.channels, self.sizes = int(cache.shapes[0, 0]), torch.from_numpy(cache.shapes[:, 1:])
        self.starts = torch.from_numpy(cache.offsets[:-1])

    def cut(self, rows: Tensor, cuts: Cuts, mirrored: Tensor | None, size: int) -> Tensor:
        """Images [B, C, size, size] on the device, whole numbers from 0 to 255 as float32; ``rows`` of the table [B].

        As one at a time by ``cut`` or ``framed``, but for rounding, by at most one of 255.
        """
        height, width = cuts.part.amax(0).tolist()
        lines, planes = self.sizes[rows, 1], self.sizes[rows].prod(1)
        first = self.starts[rows] + cuts.corner[:, 0] * lines + cuts.corner[:, 1]
        mirrored = torch.zeros_like(rows) if mirrored is None else mirrored
        facts = torch.cat([torch.stack([first, lines, planes, mirrored], 1), cuts.part, cuts.resized, cuts.offset], 1)
        facts = facts.pin_memory() if self.device.type == "cuda" else facts
        first, lines, planes, mirrored, h, w, *axes = facts.to(self.device, non_blocking=True).unbind(1)
        y = torch.arange(height, device=self.device).minimum(h[:, None] - 1) * lines[:, None]
        x = torch.arange(width, device=self.device).minimum(w[:, None] - 1)
        place = (first[:, None] + y)[:, :, None] + x[:, None]
        pixels = torch.stack([self.bytes[place + band * planes[:, None, None]] for band in range(self.channels)], 1)
        vertical, horizontal = taps(h, axes[0], axes[2], size, height), taps(w, axes[1], axes[3], size, width)
        vertical, horizontal = (
            torch.where((mirrored & way > 0)[:, None, None], weights.flip(1), weights)
            for way, weights in ((UPSIDE_DOWN, vertical), (LEFT_RIGHT, horizontal))
        )
        return (vertical[:, None] @ pixels.float() @ horizontal.mT[:, None]).round_()

    def judged(self, rows: Tensor, view: View) -> Tensor:
        """Judged views [B, C, crop, crop] of these rows, as ``cut`` has them."""
        return self.cut(rows, cuts_of(self.sizes[rows], view), None, view.crop)


def resident(pixels: Pixels, device: torch.device) -> Resident | None:
    """The pixels in the memory of a GPU; None without one, and where they are not kept decoded or would take too much of it.

    A CPU has the file of kept pixels mapped into its memory, and cuts images one by one faster (``benchmarks.loading``).
    """
    if device.type != "cuda" or not isinstance(pixels, Cache):
        return None
    room = SHARE * torch.cuda.get_device_properties(device).total_memory
    return Resident(pixels, device) if pixels.nbytes <= room else None
