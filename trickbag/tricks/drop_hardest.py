"""Drop the hardest: the images of a batch with the largest losses, whose labels are probably wrong, do not count.

Formula: of the B images of a batch, share(t) * B with the largest losses weigh 0 and the others 1 / (1 - share(t)), so that the
  loss is the mean of those kept; where this is no whole number, an image counts in part. share(t) = share * min(t / warmup, 1),
  t the share of training done: networks learn what is regular before they learn wrong labels by heart. Losses are taken before
  weights, and with micro-batches or several devices from each part of a batch.
Paper: Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018,
  arXiv:1804.06872, R(T) of algorithm 1; with one network alone: Shen and Sanghavi, "Learning with Bad Training Data via
  Iterative Trimmed Loss Minimization", ICML 2019, arXiv:1810.11874.
Helps: label noise, of which the share should be known roughly.
Hurts: clean labels and rare classes, whose images are the hard ones; mixup and cutmix, of which the evenly mixed are dropped.
Costs: nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from trickbag.trick import Stage, Trick


def kept(losses: Tensor, share: float) -> Tensor:
    """Losses [B] -> the weights of their images [B], whose mean is 1; share in [0, 1) of them are dropped, the largest first.

    >>> import torch
    >>> kept(torch.tensor([0.1, 5.0, 0.3, 0.2]), 0.5)
    tensor([2., 0., 0., 2.])
    """
    easier = losses.argsort(descending=True, stable=True).argsort()
    return (easier + 1 - share * len(losses)).clamp(0, 1).to(losses.dtype) / (1 - share)


class DropHardest(Trick):
    """Learn from those images of a batch that fit their labels best."""

    stage = Stage.LABEL
    neutral = {"share": 0.0}
    share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Of the images of a batch, dropped from the end of the warm-up on; 0: all count."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of training over which it grows from 0."""

    def select(self, losses: Tensor, t: float) -> Tensor:
        """The weights of the images by their losses [B]."""
        return kept(losses, self.share * (min(t / self.warmup, 1.0) if self.warmup else 1.0))
