"""Until: a trick acts in the first part of training and is off in the rest.

Formula: the trick in steps that begin before ``share`` of training, none after; an order of images by the start of its epoch.
Paper: He et al., "Data Augmentation Revisited", 2019, arXiv:1909.09148 (the last epochs without augmentation); Golatkar et al.,
  "Time Matters in Regularizing Deep Networks", NeurIPS 2019, arXiv:1905.13277; of a teacher: Cho and Hariharan, "On the
  Efficacy of Knowledge Distillation", ICCV 2019, arXiv:1910.01348.
Helps: mixing and strong augmentation, whose images differ from those that are judged; small networks with a large teacher.
Hurts: label noise and few images, which long training learns by heart once nothing regularises it.
Costs: what the trick costs, in its part of training.
"""

from typing import Any, ClassVar

from trickbag.timed import Timed
from trickbag.trick import Stage


class Until(Timed):
    """Let a trick act up to ``share`` of training; 1: all the time, 0: never.

    >>> from trickbag.tricks import parse
    >>> trick = parse("until(mixup(alpha=0.4), 0.9)")
    >>> [trick.acts(t) for t in (0.0, 0.89, 0.9)], str(trick)
    ([True, True, False], 'until(mixup(alpha=0.4), 0.9)')
    """

    stage = Stage.MIX
    neutral: ClassVar[dict[str, Any] | None] = {"share": 0.0}
    example = "until(mixup, 0.5)"

    @property
    def span(self) -> tuple[float, float]:
        """Up to the share."""
        begin, end = self.trick.span
        return begin, min(end, self.share)
