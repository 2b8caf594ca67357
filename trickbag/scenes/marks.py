"""From what a label file says of an image to its boxes: inside of the image, of some area, each once; nothing silently."""

from collections.abc import Mapping, Sequence

import numpy as np

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
    limits = np.array([width, height, width, height], np.float64)
    kept: dict[tuple[float, ...], bool] = {}
    faults = list[Fault]()
    for mark in marks:
        given = np.array(mark.xyxy) * (limits if relative else 1.0)
        said = f"{mark.where}: {mark.name}, " + " ".join(f"{value:.6g}" for value in given)
        if kind := _kind(given, limits):
            faults.append(Fault(kind, file, said))
        if kind not in ("", "clipped"):
            continue
        key = (float(numbers[mark.name]), *np.round(given.clip(0, limits), _DIGITS).tolist())
        if key in kept:
            faults.append(Fault("double", file, said))
        kept[key] = kept.get(key, True) and mark.ignored
    table = np.array(list(kept), np.float64).reshape(-1, 5)
    return Boxes(table[:, 1:], table[:, 0].astype(np.int64), np.array(list(kept.values()), bool)), faults


def _kind(box: np.ndarray, limits: np.ndarray) -> str:
    """What is wrong with a box; "clipped" where it is still of use, "" for nothing."""
    if not np.isfinite(box).all():
        return "not finite"
    if (box[:2] > box[2:]).any():
        return "reversed"
    if (box[2:] - box[:2] <= LEAST).any():
        return "no area"
    inside = box.clip(0, limits)
    if (inside[2:] - inside[:2] <= LEAST).any():
        return "outside"
    return "clipped" if (abs(inside - box) > ROUNDING).any() else ""
