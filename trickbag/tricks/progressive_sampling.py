"""Progressive sampling: first every image is shown equally often, in the end every class.

Formula: an epoch of N draws shows class k q_k = (1 - s) n_k + s N / K times, s = e / (E - 1) in epoch e of 0 .. E - 1: q_k
  rounded up or down to whole draws, anew each epoch, so that it is q_k in the mean. Within a class every image comes once
  before any comes again. K counts the classes that have images.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, arXiv:1910.09217,
  eq. 2; s as in the authors' code, which ends at balance.
Helps: macro recall and rare classes on imbalanced data; features are learned from all images alike at first.
Hurts: top-1 over all images; runs of one epoch, which stay at the beginning.
Costs: nothing; late epochs see only a part of the frequent classes' images.
"""

from typing import Any

from torch import Generator, Tensor

from trickbag.trick import Fit, Stage, Trick, drawn


def progressive_order(labels: Tensor, share: float, rng: Generator) -> Tensor:
    """Labels [N] int64 -> rows [N] int64; share 0: every image once, 1: every class equally often.

    >>> import torch
    >>> labels, rng = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), torch.Generator()
    >>> [labels[progressive_order(labels, share, rng)].bincount().tolist() for share in (0.0, 0.5, 1.0)]
    [[6, 2], [5, 3], [4, 4]]
    """
    counts = labels.bincount()
    seen = (counts > 0).double()
    return drawn(labels, (1 - share) * counts + share * seen * len(labels) / seen.sum(), rng)


class ProgressiveSampling(Trick):
    """Go from equally frequent images to equally frequent classes, epoch by epoch."""

    stage = Stage.LABEL

    def setup(self, model: Any, fit: Fit) -> None:
        """Remember how many epochs there are."""
        self.epochs_ = fit.facts.epochs

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows [N]: as many draws as images."""
        share = min(1.0, epoch / max(1, self.epochs_ - 1)) if epoch else 0.0
        return progressive_order(labels, share, rng)
