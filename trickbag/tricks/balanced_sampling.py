"""Balanced sampling: every class is shown equally often.

Formula: an epoch of N draws over K classes shows each class N / K times (one more for N mod K of them, drawn anew each epoch);
  within a class every image comes once before any comes again.
Paper: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
  arXiv:1910.09217, section 3.
Helps: macro recall and rare classes on imbalanced data.
Hurts: top-1 over all images; rare images are learned by heart, features are worse than with plain order.
Costs: nothing; an epoch sees only a part of the frequent classes' images.
"""

from torch import Generator, Tensor

from trickbag.trick import Stage, Trick, drawn


def balanced_order(labels: Tensor, rng: Generator) -> Tensor:
    """Labels [N] int64 -> rows [N] int64 in which every class that occurs is drawn equally often, give or take one.

    >>> import torch
    >>> labels = torch.tensor([0, 0, 0, 0, 0, 1])
    >>> labels[balanced_order(labels, torch.Generator())].bincount()
    tensor([3, 3])
    """
    seen = (labels.bincount() > 0).double()
    return drawn(labels, seen * len(labels) / seen.sum().clamp(min=1), rng)


class BalancedSampling(Trick):
    """Show every class equally often; a balanced data set is merely shuffled."""

    stage = Stage.LABEL

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows [N]: as many draws as images."""
        return balanced_order(labels, rng)
