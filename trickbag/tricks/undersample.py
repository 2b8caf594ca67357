"""Undersampling: every class is shown as often as the smallest.

Formula: an epoch draws min_k n_k images, over the classes that have any, of every class without repeats, other images each
  epoch.
Paper: Buda et al., "A systematic study of the class imbalance problem in convolutional neural networks", Neural Networks 2018,
  arXiv:1710.05381, section 2.1.
Helps: macro recall in little time, where the smallest class has images enough and epochs are many.
Hurts: nearly everywhere else: most images of frequent classes are rarely seen.
Costs: less than nothing: an epoch is shorter, K min_k n_k images in place of sum n_k.
"""

from torch import Generator, Tensor

from trickbag.trick import Stage, Trick, drawn


def shrunk_order(labels: Tensor, rng: Generator) -> Tensor:
    """Labels [N] int64 -> rows [M] int64 in which every class that occurs has as many draws as the smallest has images.

    >>> import torch
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> labels[shrunk_order(labels, torch.Generator())].bincount()
    tensor([2, 2])
    """
    counts = labels.bincount()
    return drawn(labels, counts[counts > 0].min().expand_as(counts), rng)


class Undersample(Trick):
    """Leave out images of frequent classes, others each epoch; a balanced data set is merely shuffled."""

    stage = Stage.LABEL

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows, at most as many as there are images."""
        return shrunk_order(labels, rng)
