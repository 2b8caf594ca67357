"""Progressive resizing: begin on small images, end on full ones.

Formula: side(t) = size * (start + (1 - start) t / until), rounded to multiples of 32 pixels (of 4 where size < 128),
  never above size; from t = until on it is size.
Paper: Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021, arXiv:2104.00298,
  section 4; Howard, fast.ai at DAWNBench, 2018.
Helps: a time budget: early steps are several times cheaper.
Hurts: networks of a fixed input size (they refuse other sizes), fine details when the full size comes late.
Costs: less than nothing: with the defaults about a third of the training's multiplications is saved.
"""

import math
from typing import Annotated, Any

from pydantic import Field

from trickbag.trick import Fit, Stage, Trick


def grown_size(t: float, size: int, start: float, until: float) -> int:
    """The side in pixels at share ``t`` of training; ``start`` and ``until`` in (0, 1].

    >>> [grown_size(t, 224, 0.5, 0.8) for t in (0, 0.2, 0.4, 0.6, 0.8)]
    [128, 128, 160, 192, 224]
    """
    share = start + (1 - start) * t / until
    if share >= 1:
        return size
    step = 32 if size >= 128 else 4
    return min(size, max(step, step * math.floor(share * size / step + 0.5)))


class ProgressiveResizing(Trick):
    """Let the side of training images grow to the recipe's size."""

    stage = Stage.SHAPE
    neutral = {"start": 1.0}
    start: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Side at the start, a share of the recipe's size, in (0, 1]."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of training at which the full size is reached, in (0, 1]."""

    def setup(self, model: Any, fit: Fit) -> None:
        """Remember the recipe's size."""
        self.full_ = fit.facts.size

    def size(self, t: float) -> int:
        """The side in pixels at share ``t``."""
        return grown_size(t, self.full_, self.start, self.until)
