"""From what a label file says of an image to its boxes: inside of the image, of some area, each once; nothing silently."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from trickbag.data.images import Box
from trickbag.scenes.found import Mark
from trickbag.scenes.table import Boxes, Fault

LEAST = 1.0
"""Pixels: a box that is no wider or no higher is taken for a slip of the hand."""
ROUNDING = 0.01
"""Pixels by which a box may reach past its image without a word: the sixth digit of a share of its sides."""
_DIGITS = 6
"""Of a pixel, to which boxes are rounded: what sums and products of decimal fractions leave behind these is noise."""


def boxes_of(
    marks: Sequence[Mark], size: tuple[int, int], numbers: Mapping[str, int], file: str, relative: bool
) -> tuple[Boxes, list[Fault]]:
    """The boxes of an image of this height and width, and what was clipped or dropped.

    ``numbers``: class -> its number. ``relative``: whether the marks are shares of the image's sides.
    """
    height, width = size
    sides = (width, height, width, height)
    kept: dict[tuple[float, ...], bool] = {}
    faults = list[Fault]()
    for mark in marks:
        box = tuple(share * side for share, side in zip(mark.xyxy, sides, strict=True)) if relative else mark.xyxy
        clipped = tuple(round(min(max(value, 0.0), side), _DIGITS) for value, side in zip(box, sides, strict=True))
        key = (numbers[mark.name], *clipped)
        kind = _kind(box, clipped) or ("double" if key in kept else "")
        if kind:
            said = " ".join(f"{value:.6g}" for value in box)
            faults.append(Fault(kind, file, f"{mark.where}: {mark.name}, {said}"))
        if kind in ("", "clipped", "double"):
            kept[key] = kept.get(key, True) and mark.ignored
    table = np.array(list(kept), np.float64).reshape(-1, 5)
    return Boxes(table[:, 1:], table[:, 0].astype(np.int64), np.array(list(kept.values()), bool)), faults


def _kind(box: Box, clipped: Box) -> str:
    """What is wrong with a box; "clipped" where it is still of use, "" for nothing."""
    if not all(map(math.isfinite, box)):
        return "not finite"
    left, top, right, bottom = box
    if left > right or top > bottom:
        return "reversed"
    if right - left <= LEAST or bottom - top <= LEAST:
        return "no area"
    if clipped[2] - clipped[0] <= LEAST or clipped[3] - clipped[1] <= LEAST:
        return "outside"
    return "clipped" if any(abs(inside - value) > ROUNDING for inside, value in zip(clipped, box, strict=True)) else ""
