"""Oversampling: every class is shown as often as the largest.

Formula: an epoch draws max_k n_k images of every class that has any; within a class every image comes once before any comes
  again. Copies of an image are augmented each in its own way.
Paper: Buda et al., "A systematic study of the class imbalance problem in convolutional neural networks", Neural Networks 2018,
  arXiv:1710.05381, section 2.1.
Helps: macro recall and rare classes on imbalanced data, with every image in use; augmentation makes copies differ.
Hurts: top-1 over all images; rare images are learned by heart.
Costs: an epoch is longer: K max_k n_k images in place of sum n_k.
"""

from torch import Generator, Tensor

from trickbag.trick import Stage, Trick, drawn


def grown_order(labels: Tensor, rng: Generator) -> Tensor:
    """Labels [N] int64 -> rows [M] int64 in which every class that occurs has as many draws as the largest has images.

    >>> import torch
    >>> labels = torch.tensor([0, 0, 0, 0, 1])
    >>> labels[grown_order(labels, torch.Generator())].bincount()
    tensor([4, 4])
    """
    counts = labels.bincount()
    return drawn(labels, counts.max().expand_as(counts), rng)


class Oversample(Trick):
    """Repeat images of rare classes; a balanced data set is merely shuffled."""

    stage = Stage.LABEL

    def order(self, labels: Tensor, epoch: int, rng: Generator) -> Tensor:
        """The epoch's rows, at least as many as there are images."""
        return grown_order(labels, rng)
