"""After: a trick begins to act after a part of training.

Formula: the trick in steps that begin at ``share`` of training or later, none before; an order of images by the start of its
  epoch.
Paper: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, arXiv:1906.07413, for
  weights of classes; for SAM: Zhou et al., "Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in Training",
  ICLR 2025, arXiv:2410.10373.
Helps: unequal classes, whose weights are meant for features that are learned already; costly tricks such as SAM, whose price
  falls with their part of training.
Hurts: augmentation and mixing, which shape the features from the start.
Costs: what the trick costs, in its part of training. In a study, the part before it is trained once for both.
"""

from trickbag.timed import Timed
from trickbag.trick import Stage


class After(Timed):
    """Let a trick act from ``share`` of training on; 0: all the time, 1: never.

    >>> from trickbag.tricks import parse
    >>> trick = parse("after(sam, 0.75)")
    >>> [trick.acts(t) for t in (0.74, 0.75, 1.0)], trick.begin()
    ([False, True, True], 0.75)
    """

    stage = Stage.PIXEL
    neutral = {"share": 1.0}
    example = "after(random_erasing, 0.5)"

    @property
    def span(self) -> tuple[float, float]:
        """From the share on."""
        begin, end = self.trick.span
        return max(begin, self.share), end
